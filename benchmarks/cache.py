"""A teacher that is computed once beside one that runs at every step: bytes a position, and speed.

    python benchmarks/cache.py CORPUS TEACHER

The job is configs/distilbert.py with masks that stay. The cache is built, then both train for some steps in turns.
"""

import argparse
import dataclasses
import pathlib
import tempfile
import time

import numpy as np

from configs import distilbert
from jaxdistill import cache
from jaxdistill.experiment import Experiment
from jaxdistill.inputs import open_inputs
from jaxdistill.metrics import read_lines
from jaxdistill.run import Run
from jaxdistill.train import train


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="a small prepared corpus: the teacher reads all of it")
    parser.add_argument("teacher")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--top", type=int, default=8, help="pieces kept at each position")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each in every round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def rate(experiment: Experiment, workdir: pathlib.Path) -> float:
    """Positions a second, the first step, which compiles, left out."""
    train(experiment, workdir, notify=lambda line: None)
    return read_lines(workdir / "metrics.jsonl")[-1]["positions_per_second"]


def main() -> None:
    options = arguments()
    steps = options.steps + 1
    made = distilbert.config(
        options.corpus,
        teacher=options.teacher,
        rarity=0.0,
        length=options.length,
        batch=options.batch,
        steps=steps,
    )
    made = dataclasses.replace(made, run=Run(log_every=steps, save_every=steps, tensorboard=False))
    made = cache.static(made, 0)
    positions = len(open_inputs(made.data)) * options.length
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        began = time.perf_counter()
        size = cache.build(made, folder / "cache", options.top)
        seconds = time.perf_counter() - began
        kinds = {"at every step": made, "cached": cache.using(made, folder / "cache")}
        found = {kind: [] for kind in kinds}
        for number in range(options.rounds):
            for kind, experiment in kinds.items():
                found[kind].append(rate(experiment, folder / f"{kind} {number}"))
    print(f"{size} bytes a position; {positions:,} positions took {seconds:.0f} s, once")
    print("| the teacher | positions/s | |\n|---|---:|---:|")
    plain, cached = (float(np.median(found[kind])) for kind in kinds)
    print(f"| at every step | {plain:,.0f} | 1.00x |\n| cached | {cached:,.0f} | {cached / plain:.2f}x |")


if __name__ == "__main__":
    main()
