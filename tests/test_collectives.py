"""What a training step sends between devices, read from the compiled program, beside the least possible."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
from tiny import RUN

from jaxdistill import knobs, sharding, traffic
from jaxdistill.collectives import collectives, wire_bytes
from jaxdistill.inputs import open_inputs
from jaxdistill.program import batch_shapes, compile_step
from jaxdistill.run import Run

SCALARS = 2048
"""Bytes of losses, counts and norms that a step may add up beside the gradients; the tiny gradients are 20 times it."""


def compiled(experiment, mesh, micro_batch=0) -> str:
    """The text of the training step's program."""
    run = dataclasses.replace(experiment.run, micro_batch=micro_batch // mesh.size)
    batch = batch_shapes(experiment, open_inputs(experiment.data))
    return compile_step(dataclasses.replace(experiment, run=run), mesh, batch).as_text()


def other(name, tiny_inputs, **changes):
    values = {"corpus": str(tiny_inputs.corpus), "teacher": str(tiny_inputs.teacher), "length": 16, "steps": 3}
    made = knobs.load(name)(**values | {"batch": 16} | changes)
    return dataclasses.replace(made, run=Run(**RUN))


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_runs():
    mesh = sharding.make_mesh(2)

    def local(x):
        def body(carry, part):
            return carry + jax.lax.psum(part * carry, "data"), None

        return jax.lax.scan(body, jnp.zeros(6), x)[0], jax.lax.all_gather(x, "fsdp", tiled=True)

    run = jax.shard_map(local, mesh=mesh, in_specs=P(), out_specs=(P(), P()), check_vma=False)
    found = collectives(jax.jit(run).lower(jnp.zeros((5, 6))).compile().as_text(), mesh.size)
    assert {(one.kind, one.times, one.payload, one.devices) for one in found} == {
        ("all-reduce", 5, 6 * 4, 4),
        ("all-gather", 1, 2 * 5 * 6 * 4, 2),
    }
    assert wire_bytes(found) == {"all-reduce": 5 * 2 * 24 * 3 / 4, "all-gather": 240 / 2}


@pytest.mark.parametrize("variant", ["nokd", "dual", "down", "up"])
def test_data_parallel_training_adds_up_the_gradients_once(variant, tiny_inputs):
    experiment, mesh = tiny_inputs.experiment(variant=variant, batch=16), sharding.make_mesh()
    found = wire_bytes(collectives(compiled(experiment, mesh), mesh.size))
    least = traffic.least_bytes(experiment, mesh.shape)
    assert found.keys() == {"all-reduce"}
    assert least["total"] <= found["all-reduce"] <= least["total"] + SCALARS


@pytest.mark.parametrize("fsdp", [2, 8])
def test_sharded_training_gathers_parameters_and_scatters_gradients_once(fsdp, tiny_inputs):
    experiment, mesh = tiny_inputs.experiment(variant="up", batch=32), sharding.make_mesh(fsdp)
    found = wire_bytes(collectives(compiled(experiment, mesh, 16), mesh.size))
    least = traffic.least_bytes(experiment, mesh.shape)
    assert found.keys() == {"all-reduce", "all-gather", "reduce-scatter"}
    assert found["all-gather"] == pytest.approx(least["all_gather"])
    assert found["reduce-scatter"] == pytest.approx(least["reduce_scatter"])
    assert least["all_reduce"] <= found["all-reduce"] <= least["all_reduce"] + SCALARS


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("distilbert", {"layers": 1, "predictions": 4}),
        ("tinybert_general", {"size": "1x8"}),
    ],
)
def test_chunks_layers_and_micro_batches_add_up_at_the_end(name, changes, tiny_inputs):
    experiment, mesh = other(name, tiny_inputs, **changes), sharding.make_mesh()
    found = collectives(compiled(experiment, mesh, 8), mesh.size)
    least = traffic.least_bytes(experiment, mesh.shape)["total"]
    assert all(one.times == 1 for one in found)
    assert least <= sum(wire_bytes(found).values()) <= least + SCALARS
