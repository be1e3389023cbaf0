"""What a run would take here: everything is built and compiled, nothing is trained."""

import math
import os

from jaxdistill import manifest, sharding
from jaxdistill import step as steps
from jaxdistill.experiment import Experiment
from jaxdistill.inputs import open_inputs
from jaxdistill.program import batch_shapes, compile_step
from jaxdistill.resolve import describe, resolve
from jaxdistill.task_inputs import TaskInputs

MIB = 2**20


def dry_run(experiment: Experiment, workdir: str | os.PathLike) -> list[str]:
    """Lines with parameters, tokens per epoch, FLOPs per step, and bytes per device of the compiled step.

    Args:
      experiment: what would run.
      workdir: where; nothing is written there, but a run that it holds must be the same one.

    Raises:
      UserError: the experiment could not run.
    """
    inputs = open_inputs(experiment.data)
    mesh = sharding.make_mesh(experiment.run.fsdp, experiment.run.devices)
    inputs.batches(experiment.data, experiment.seed)
    experiment, _, _ = resolve(experiment, inputs, mesh, workdir, manifest.read_manifest(workdir))
    memory = compile_step(experiment, mesh, batch_shapes(experiment, inputs)).memory_analysis()
    lines = describe(experiment, inputs, mesh)
    if memory is not None:
        lines.append(
            f"  bytes per device: state and batch {memory.argument_size_in_bytes / MIB:,.1f} MiB, activations and "
            f"gradients {memory.temp_size_in_bytes / MIB:,.1f} MiB"
        )
    epoch = len(inputs) / experiment.data.batch
    epochs = experiment.steps / (math.ceil(epoch) if isinstance(inputs, TaskInputs) else epoch)
    lines.append(
        f"  the whole run: {experiment.steps * steps.flops_per_step(experiment):.3g} FLOP, "
        f"{experiment.steps * experiment.data.batch * experiment.data.length:,} positions, {epochs:.2f} epochs"
    )
    return lines
