"""What a run would take: everything is built and compiled, nothing is trained."""

import dataclasses
import os

import jax

from jaxdistill import manifest, sharding
from jaxdistill import step as steps
from jaxdistill.cache import open_cache
from jaxdistill.experiment import Data, Experiment
from jaxdistill.initial import Random
from jaxdistill.inputs import open_inputs
from jaxdistill.resolve import describe, resolve

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
    batches = inputs.batches(experiment.data, experiment.seed)
    experiment, _, _ = resolve(experiment, inputs, mesh, workdir, manifest.read_manifest(workdir))
    if experiment.data.cache:
        batches = dataclasses.replace(batches, computed=open_cache(experiment, inputs))
    # Shapes do not depend on where parameters start, so no weights are read.
    anywhere = dataclasses.replace(experiment, start=dict.fromkeys(experiment.start, Random()))
    shapes = jax.eval_shape(lambda: steps.init_state(anywhere))
    place = steps.state_shardings(experiment, shapes, mesh)
    state = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), shapes, place)
    rows, widest = sharding.batch_sharding(mesh), 0 if isinstance(experiment.data, Data) else batches.longest
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows),
        batches(widest),
    )
    update = steps.make_train_step(experiment, mesh, experiment.run.micro_batch * mesh.size)
    memory = update.lower(state, batch).compile().memory_analysis()
    lines = describe(experiment, inputs, mesh)
    if memory is not None:
        lines.append(
            f"  bytes per device: state and batch {memory.argument_size_in_bytes / MIB:,.1f} MiB, activations and "
            f"gradients {memory.temp_size_in_bytes / MIB:,.1f} MiB"
        )
    epochs = experiment.steps * experiment.data.batch / len(inputs)
    lines.append(
        f"  the whole run: {experiment.steps * steps.flops_per_step(experiment):.3g} FLOP, "
        f"{experiment.steps * experiment.data.batch * experiment.data.length:,} positions, {epochs:.2f} epochs"
    )
    return lines
