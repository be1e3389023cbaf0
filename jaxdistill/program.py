"""The training step as XLA compiles it, from shapes alone, on devices that are there or are emulated."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh

from jaxdistill import knobs, sharding, tree
from jaxdistill import step as steps
from jaxdistill.cache import open_cache
from jaxdistill.data.masking import GROUP
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data, Experiment
from jaxdistill.inputs import Inputs
from jaxdistill.run import Run
from jaxdistill.task_inputs import TaskInputs
from jaxdistill.traffic import state_shapes

_COUNT = "--xla_force_host_platform_device_count"
_FAST = "--xla_backend_optimization_level=0"  # of the machine code, which nobody runs: the buffers are the same


def batch_shapes(experiment: Experiment, inputs: Inputs | TaskInputs) -> dict[str, Any]:
    """Shapes of a batch, of a task's the widest; few rows are made, however many it has."""
    data = experiment.data
    few = dataclasses.replace(data, batch=GROUP) if isinstance(data, Data) else data
    batches = inputs.batches(few, experiment.seed)
    widest = 0 if isinstance(data, Data) else batches.longest
    if data.cache:
        batches = dataclasses.replace(batches, computed=open_cache(experiment, inputs))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((data.batch, *leaf.shape[1:]), leaf.dtype), batches(widest))


def compile_step(experiment: Experiment, mesh: jax.sharding.Mesh, batch: Mapping[str, Any]) -> jax.stages.Compiled:
    """Compiles the step with `run.micro_batch` rows a device at a time; nothing is computed.

    Args:
      experiment: what would run.
      mesh: of devices that are there.
      batch: shapes, from `batch_shapes`.
    """
    shapes = state_shapes(experiment)
    places = steps.state_shardings(experiment, shapes, mesh), sharding.batch_sharding(mesh)
    state = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, places[0])
    rows = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[1]), dict(batch))
    return steps.make_train_step(experiment, mesh, experiment.run.micro_batch * mesh.size).lower(state, rows).compile()


def argument_bytes(experiment: Experiment, mesh_shape: Mapping[str, int], batch: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of `parameters`, `optimizer` and `batch` that lie on each device, from shapes and shardings alone.

    Args:
      experiment: what would run.
      mesh_shape: devices along `data` and `fsdp`.
      batch: shapes, from `batch_shapes`.
    """
    mesh = AbstractMesh(tuple(mesh_shape.values()), tuple(mesh_shape))
    shapes = state_shapes(experiment)
    places = steps.state_shardings(experiment, shapes, mesh)

    def size(part: str) -> int:
        held = jax.tree.map(
            lambda leaf, at: math.prod(at.shard_shape(leaf.shape)) * leaf.dtype.itemsize, shapes[part], places[part]
        )
        return sum(jax.tree.leaves(held))

    rows = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(dict(batch)))
    return {
        "parameters": size("trained") + size("frozen"),
        "optimizer": size("optimizer"),
        "batch": rows // math.prod(mesh_shape.values()),
    }


def temporary_bytes(
    arguments: Sequence[str], batch: Mapping[str, Any], asked: Sequence[tuple[int, int, int]]
) -> list[int]:
    """Bytes of everything else in compiled steps: activations, gradients, parameters that are gathered.

    Another process compiles them for emulated CPU devices, whose number is fixed when jax is first used.

    Args:
      arguments: a config and its knobs, as typed.
      batch: shapes, from `batch_shapes`.
      asked: devices, how many of them are along `fsdp`, and rows a device at a time, for each.

    Raises:
      UserError: the compiler failed.
    """
    flat = {name: (leaf.shape, leaf.dtype.name) for name, leaf in tree.flatten(batch).items()}
    job = {"arguments": list(arguments), "batch": flat, "asked": list(asked)}
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_COUNT)]
    most = max(devices for devices, _, _ in asked)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join([*flags, f"{_COUNT}={most}", _FAST])}
    root = str(pathlib.Path(__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "jaxdistill.program"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise UserError(f"the step could not be compiled: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def experiment_of(arguments: Sequence[str]) -> Experiment:
    """The experiment of a config and its knobs, as typed.

    Raises:
      UserError: they do not make one.
    """
    function = knobs.load(arguments[0])
    joined = knobs.join(function, Run)
    values, run = joined(**knobs.parse(joined, arguments[1:]))
    return dataclasses.replace(function(**values), run=Run(**run))


def _main() -> None:
    job = json.load(sys.stdin)
    experiment = experiment_of(job["arguments"])
    batch = tree.unflatten({name: jax.ShapeDtypeStruct(shape, kind) for name, (shape, kind) in job["batch"].items()})
    found = []
    for devices, fsdp, rows in job["asked"]:
        run = dataclasses.replace(experiment.run, devices=devices, fsdp=fsdp, micro_batch=rows)
        compiled = compile_step(dataclasses.replace(experiment, run=run), sharding.make_mesh(fsdp, devices), batch)
        found.append(compiled.memory_analysis().temp_size_in_bytes)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
