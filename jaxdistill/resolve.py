"""From the experiment that was asked for to the one that runs: micro-batch, pinned revisions, hashes; a summary."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

import jax

from jaxdistill import bert, distributed, manifest, memory
from jaxdistill import step as steps
from jaxdistill.attention import attention_kernel
from jaxdistill.chips import matmul_rate
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment, TaskData
from jaxdistill.inputs import Inputs, check_held_out
from jaxdistill.task_inputs import TaskInputs
from jaxdistill.taught import settle, sizes

MAY_CHANGE = frozenset(
    {
        "run",
        *(f"data.{field}" for field in ("corpus", "held_out", "vocabularies", "source", "dev", "augmented", "scored")),
    }
)
"""Fields that may change when a run continues: how it runs, what it is scored on, and paths: of what is read to train
the contents are compared instead."""

_SHORT = 10.0
"""Seconds of matrix products below which a run's duration is not foretold: compiling takes longer."""


def resolve(
    experiment: Experiment,
    inputs: Inputs | TaskInputs,
    mesh: jax.sharding.Mesh,
    workdir: str | os.PathLike,
    saved: Mapping[str, Any] | None,
    accept: Collection[str] = ("versions",),
) -> tuple[Experiment, dict[str, Any], list[str]]:
    """Settles what was left open, and checks that a saved run may go on.

    Args:
      experiment: as the config gave it.
      inputs: what it reads.
      mesh: the devices.
      workdir: for messages.
      saved: the manifest in the workdir, if there is one; its micro-batch is kept where it divides, its `once`, and
        its commits of hub models where no revision was asked for.
      accept: what may differ from the saved run, of `manifest.KINDS`.

    Returns:
      The experiment that runs, its manifest, and lines to print.

    Raises:
      UserError: vocabularies do not fit the models, the held-out corpus can't be read, the batch does not divide, the
        saved run is another one, or of several processes one was asked for something else.
    """
    check_held_out(experiment.data)
    for name, view in experiment.data.views.items():
        role = experiment.reader(name)
        vocabulary, rows = inputs.vocabularies[view.vocabulary], experiment.models[role].vocab
        if vocabulary.size > rows:
            raise UserError(
                f"the vocabulary {view.vocabulary!r} has {vocabulary.size:,} pieces, but the model {role!r} only "
                f"{rows:,} rows: they do not belong together"
            )
    kept = saved["config"] if saved else {"run": {}, "start": {}}
    starts = {role: start.pin(kept["start"].get(role, {}).get("revision")) for role, start in experiment.start.items()}
    experiment = dataclasses.replace(experiment, start=starts)
    if isinstance(inputs, TaskInputs):
        experiment = settle(experiment, inputs, kept["run"].get("once"))
    rows = kept["run"].get("micro_batch", 0)
    if not experiment.run.micro_batch and rows and experiment.data.batch % (rows * mesh.size) == 0:
        experiment = experiment.with_run(micro_batch=rows)
    device = mesh.local_devices[0]
    room = min(distributed.gather(memory.device_bytes(device)))
    rows = memory.choose_micro_batch(experiment, mesh.size, room, device.platform == "cpu")
    experiment = experiment.with_run(micro_batch=rows)
    weights = {role: digest for role, start in starts.items() if (digest := start.contents())}
    current = manifest.manifest(
        experiment, inputs.hashes() | {f"weights of {role}": found for role, found in weights.items()}
    )
    paths = {f"start.{role}.{field}" for role in weights for field in ("source", "vocabulary")}
    manifest.check_alike(distributed.gather(current), (MAY_CHANGE - {"run"}) | paths)
    notes = manifest.check_manifest(workdir, saved, current, MAY_CHANGE | paths, accept) if saved else []
    return experiment, current, [f"note: {line}" for line in notes]


def describe(experiment: Experiment, inputs: Inputs | TaskInputs, mesh: jax.sharding.Mesh) -> list[str]:
    """Lines that say what is about to run: models, data, and the work of a step."""
    data, run = experiment.data, experiment.run
    lines = [
        f"{experiment.name}: {experiment.steps:,} steps of {data.batch:,} rows of {data.length}, seed {experiment.seed}"
    ]
    for role, config in experiment.models.items():
        kernel = f" by {attention_kernel(config)}" if config.attention == "fused" else ""
        lines.append(
            f"  {role}: {config.layers} x {config.hidden}, {config.heads} heads, {config.vocab:,} pieces, "
            f"{bert.parameter_count(config):,} parameters, {config.attention} attention{kernel} "
            f"(attention dropout {config.attention_dropout:g}), {config.dtype}"
        )
    lines += inputs.describe(data)
    if isinstance(inputs, TaskInputs):
        lines += [
            f"  what {view} says is computed once: {size / 2**20:,.1f} MiB" for view, size in sizes(experiment, inputs)
        ]
    micro, flops, device = run.micro_batch * mesh.size, steps.flops_per_step(experiment), mesh.devices.flat[0]
    lines.append(
        f"  {mesh.size} x {device.device_kind} (data {mesh.shape['data']}, fsdp {mesh.shape['fsdp']}), {micro} rows at "
        f"a time, {flops / 1e12:.3g} TFLOP a step{' of full rows' if isinstance(data, TaskData) else ''}"
    )
    if isinstance(data, TaskData):
        return lines  # its rows are as long as their text: what full ones take is no bound
    rate = matmul_rate(device, next(iter(experiment.models.values())).dtype) * _apart(mesh)
    least = flops * experiment.steps / rate
    if least >= _SHORT:
        lines.append(
            f"  matrix products run at {rate / 1e12:.3g} TFLOP/s here: the whole run takes at least {_duration(least)}"
        )
    return lines


def _apart(mesh: jax.sharding.Mesh) -> int:
    """How many devices of a mesh compute at the same time: CPU devices of one process share its cores."""
    return mesh.size if mesh.devices.flat[0].platform != "cpu" else jax.process_count()


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
