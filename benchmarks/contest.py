"""What benchmarks of a training step have in common: options, a random batch, contestants in turn, the table."""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from workers import Worker, use_cores

HERE = pathlib.Path(__file__).parent
OURS = "jaxdistill"
TOLERANCE = 1e-4
COLUMNS = {
    **{"contestant": 14, "type": 8, "s/step": 7, "ours is": 7, "fastest": 7, "there": 7, "CPU s": 7, "in CPU": 7},
    **{"tokens/s": 8, "MFU": 5, "compile s": 9, "peak MB": 7, "last loss": 9},
}


def options_of(description: str, contestants: Mapping[str, str]) -> argparse.ArgumentParser:
    """A parser with the options that every such benchmark has; `contestants` are names and their scripts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--predictions", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=0, help="rows at a time; all when 0")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--contestants", nargs="+", choices=list(contestants), default=list(contestants))
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="of PyTorch's contestants")
    parser.add_argument("--unroll", type=int, default=1, help="of our scan over layers; 0 lays out all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="steps of every contestant that count")
    parser.add_argument("--smoke", action="store_true", help="a tiny job without dropout: do the losses agree?")
    parser.add_argument("--json", help="write all measurements to this file")
    parser.set_defaults(scripts=dict(contestants))
    return parser


def read_options(parser: argparse.ArgumentParser, smoke: Mapping) -> argparse.Namespace:
    """The options given, over those of `smoke` where it is asked for; restricts the process to its threads' cores."""
    parser.set_defaults(**(smoke if "--smoke" in sys.argv[1:] else {}))
    options = parser.parse_args()
    use_cores(options.threads)
    return options


def random_view(options: argparse.Namespace, random: np.random.Generator, vocab: int, other: int = 0) -> dict:
    """A view of random pieces: rows up to 8 positions short of full, as packed windows are.

    With `other`, a mixed one: half of its pieces are from a second vocabulary of that size.
    """
    shortest = max(options.length - 8, options.predictions + 2)
    mask = np.arange(options.length) < random.integers(shortest, options.length + 1, options.batch)[:, None]
    source = random.integers(0, 2, mask.shape) * (other > 0)
    ids = random.integers(5, np.where(source == 1, other, vocab)) * mask
    places = np.arange(1, shortest - 1)
    positions = np.stack([np.sort(random.choice(places, options.predictions, False)) for _ in mask])
    targets = np.take_along_axis(ids, positions, 1)
    targets[:, -1] = np.where(random.random(len(mask)) < 0.5, -1, targets[:, -1])
    view = {"ids": ids, "mask": mask, "positions": positions, "targets": targets}
    if other:
        view |= {"source": source, "target_source": np.take_along_axis(source, positions, 1)}
    return {name: x if x.dtype == bool else x.astype(np.int32) for name, x in view.items()}


def measure(settings: dict) -> dict[str, dict]:
    """Starts every contestant, and has them step in turn; the first round warms up and does not count."""
    workers = {}
    for name in settings["contestants"]:
        workers[name] = Worker(HERE / settings["scripts"][name], json.dumps(settings | {"contestant": name}))
    found = {name: {**worker.started, "steps": []} for name, worker in workers.items()}
    for _ in range(settings["rounds"] + 1):
        for name, worker in workers.items():
            found[name]["steps"].append(worker.ask("step"))
    for worker in workers.values():
        worker.close()
    return found


def print_rows(found: dict[str, dict], dtype: str, tokens: int) -> None:
    """Prints a row for each contestant: median and fastest step and CPU seconds, each with its ratio to ours."""
    rate = max(result.get("matmul", 0) for result in found.values())
    flops = max(result.get("flops", 0) for result in found.values())

    def cells(name: str, key: str, pick: Callable) -> tuple[str, str]:
        mine, ours = (
            pick([step[key] for step in found[contestant]["steps"][1:]]) if contestant in found else 0
            for contestant in (name, OURS)
        )
        return f"{mine:.3f}", f"{mine / ours:.2f}x" if ours else "-"

    for name, result in found.items():
        steps = result["steps"]
        seconds = statistics.median(step["seconds"] for step in steps[1:])
        row = [
            *(name, dtype, *cells(name, "seconds", statistics.median), *cells(name, "seconds", min)),
            *(*cells(name, "cpu", statistics.median), f"{tokens / seconds:,.0f}"),
            f"{flops / seconds / rate:.0%}" if rate and flops else "-",
            *(f"{result['compile']:.1f}", f"{steps[-1]['peak'] / 2**20:,.0f}", f"{steps[-1]['loss']:.5f}"),
        ]
        print_row(row)


def print_row(cells: Iterable[str]) -> None:
    print("| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)) + " |")


def contest(options: argparse.Namespace, folder: pathlib.Path, shapes: dict, batch: dict, of: str) -> None:
    """Measures all contestants in every type, prints the table, and compares the losses of a smoke run.

    Args:
      options: from `read_options`.
      folder: where the models that all start from lie.
      shapes: the models' shapes by role, for the contestants.
      batch: what every step reads.
      of: what the batch is, in words.

    Raises:
      SystemExit: the losses of a smoke run differ.
    """
    np.savez(folder / "batch.npz", **{f"{role}/{name}": x for role, view in batch.items() for name, x in view.items()})
    everything, tokens = {}, int(batch["student"]["mask"].sum())
    print(
        f"{of}, {options.batch} x {options.length}, {tokens:,} real student tokens, "
        f"{options.micro_batch or options.batch} rows at a time; dropout {options.dropout:g}, {options.threads} "
        f"threads, {options.rounds} rounds; load {os.getloadavg()[0]:.1f} at the start"
    )
    print_row(COLUMNS)
    print_row("-" * (width - 1) + ":" for width in COLUMNS.values())
    for dtype in options.dtype:
        everything[dtype] = measure(vars(options) | shapes | {"folder": str(folder), "dtype": dtype})
        print_rows(everything[dtype], dtype, tokens)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"options": vars(options), "found": everything}, indent=1))
    if options.smoke:
        for dtype, found in everything.items():
            for one, two in itertools.pairwise(found.values()):
                for left, right in zip(one["steps"], two["steps"], strict=True):
                    if abs(left["loss"] - right["loss"]) > TOLERANCE:
                        sys.exit(f"the losses of two contestants differ in {dtype}: {left['loss']} and {right['loss']}")
