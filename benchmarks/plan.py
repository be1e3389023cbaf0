"""What `jaxdistill plan` foretells beside what is: bytes and seconds of a step, here, with random text and weights.

    python benchmarks/plan.py

Foretold bytes are sums over shapes and shardings, and what a compilation in another process asks for; *compiled* is
what XLA says of the program that then runs, *formula* what the choice of rows at a time goes by, from above. Foretold
seconds follow from a calibration of this machine, which is measured first unless one is kept; none of its steps is of
these configs.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import statistics
import tempfile
import time

import jax

from jaxdistill import calibration, chips, memory, plan, sharding
from jaxdistill import step as steps
from jaxdistill.initial import Random
from jaxdistill.inputs import open_inputs

CONFIGS = (
    "extreme --variant nokd --hidden 192 --batch 32",
    "mlm --batch 64",
    "distilbert --length 128 --batch 16",
    "extreme --variant dual --batch 16",
    "extreme --variant up --batch 16",
)
SMOKE = ("extreme --variant nokd --layers 1 --batch 8 --length 32 --predictions 4",)
MIB = 2**20


def measure(experiment, rounds: int) -> tuple[int, float]:
    """Bytes that the compiled step asks for, and seconds that it takes: the median after one to warm up."""
    batch = open_inputs(experiment.data).batches(experiment.data, 0)(0)
    mesh = sharding.make_mesh(1, 1)
    shapes = jax.eval_shape(lambda: steps.init_state(experiment))
    state = jax.device_put(steps.init_state(experiment), steps.state_shardings(experiment, shapes, mesh))
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    step = steps.make_train_step(experiment, mesh, experiment.run.micro_batch).lower(state, batch).compile()
    asked, took = step.memory_analysis(), []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        state, _ = step(state, batch)
        jax.block_until_ready(state)
        took.append(time.perf_counter() - began)
    return asked.argument_size_in_bytes + asked.temp_size_in_bytes, statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", help="configs and their knobs, each in quotes")
    parser.add_argument("--rounds", type=int, default=3, help="steps that count")
    parser.add_argument("--calibrate", action="store_true", help="measure anew even if a calibration is kept")
    parser.add_argument("--smoke", action="store_true", help="one tiny config")
    options = parser.parse_args()
    name = calibration.name_here("float32")
    if options.calibrate or calibration.read(name) is None:
        calibration.keep(name, calibration.calibrate("float32"))
    kind = name.partition("/")[0]
    hardware = chips.find_hardware(f"{kind}-{calibration.cores() if kind == 'cpu' else 1}")
    print(f"{hardware}; load {os.getloadavg()[0]:.1f} at the start\n")
    print("| config | rows | MiB foretold | compiled | | formula | s foretold | measured | |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for config in options.configs or (SMOKE if options.smoke else CONFIGS):
        with tempfile.TemporaryDirectory() as folder:
            job = plan.read_job(shlex.split(config), pathlib.Path(folder))
            (found,) = plan.plans(job, [hardware])
            if isinstance(found, Exception):
                raise found
            made = dataclasses.replace(found.experiment, start=dict.fromkeys(job.experiment.start, Random()))
            asked, took = measure(made, 1 if options.smoke else options.rounds)
            formula = memory.state_bytes(made) + made.run.micro_batch * memory.row_bytes(made)
        print(
            f"| `{config}` | {made.run.micro_batch} | {found.total / MIB:,.0f} | {asked / MIB:,.0f} | "
            f"{found.total / asked:.2f}x | {formula / MIB:,.0f} | {found.seconds:.3f} | {took:.3f} | "
            f"{found.seconds / took:.2f}x |",
            flush=True,
        )
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
