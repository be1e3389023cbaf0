"""The estimate of a step's memory, and the micro-batch that follows from it."""

import dataclasses

import jax
import pytest

from jaxdistill import bert, memory, sharding
from jaxdistill import step as steps
from jaxdistill.errors import UserError
from jaxdistill.inputs import make_batches, read_inputs, read_vocabularies


def compiled(experiment, batches):
    """XLA's own figures for a step."""
    place = sharding.replicated(sharding.make_mesh(1, 1))
    shaped = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
    state, batch = jax.tree.map(shaped, (steps.init_state(experiment), batches(0)))
    return steps.make_train_step(experiment).lower(state, batch).compile().memory_analysis()


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_the_estimate_is_an_upper_bound_and_no_wild_one(tiny_inputs, attention):
    made = [tiny_inputs.experiment(variant="nokd", batch=batch, hidden=32, attention=attention) for batch in (64, 128)]
    read = read_inputs(made[0].data.corpus, read_vocabularies(made[0].data), 16)
    few, many = (compiled(experiment, make_batches(experiment.data, read, 0)) for experiment in made)
    grown = (many.temp_size_in_bytes - few.temp_size_in_bytes) / 64
    assert grown <= memory.row_bytes(made[0]) <= 2 * grown
    state = memory.state_bytes(made[0])  # parameters, two moments, and gradients, which are not among the arguments
    assert state * 0.7 <= few.argument_size_in_bytes <= state


def test_only_cudnn_has_no_scores(tiny_inputs, monkeypatch):
    experiment = tiny_inputs.experiment(variant="nokd", attention="fused")
    student, length = experiment.models["student"], experiment.data.length
    with_scores = memory.row_bytes(experiment)
    monkeypatch.setattr(bert, "attention_kernel", lambda config: "cudnn")
    scores = 4 * student.heads * length**2
    assert with_scores - memory.row_bytes(experiment) == (student.layers + 3) * scores


def test_a_tree_that_does_not_train_has_neither_gradient_nor_moments(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="dual")
    frozen = dataclasses.replace(experiment, trains=(("teacher/.*", False), (".*", True)))
    alone = tiny_inputs.experiment(variant="nokd")
    teacher = memory.state_bytes(experiment) - memory.state_bytes(alone)
    assert memory.state_bytes(frozen) - memory.state_bytes(alone) == teacher / 4 > 0


def rows(experiment, devices=1, room=2**40, cpu=False, **run):
    experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, **run))
    return memory.choose_micro_batch(experiment, devices, room, cpu)


def test_rows_divide_the_share_of_a_device(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="nokd", batch=24)
    one, state = memory.row_bytes(experiment), memory.state_bytes(experiment)
    assert rows(experiment) == 24 and rows(experiment, 4) == 6
    assert rows(experiment, room=state + 11 * one * 3 // 2) == 8  # 11 fit, of the divisors of 24
    assert rows(experiment, room=state + one * 8 // 5) == 1
    assert rows(experiment, 3, room=state + 3 * one * 8 // 5) == 2  # of 8 rows each, 3 fit
    assert rows(experiment, 4, room=state // 2 + 2 * one * 8 // 5, fsdp=2) == 2
    assert rows(tiny_inputs.experiment(variant="nokd", batch=96), cpu=True) == memory.CPU_ROWS < 96


def test_what_is_asked_for_is_taken(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="nokd", batch=24)
    assert rows(experiment, 2, room=0, micro_batch=4) == 4


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"devices": 5}, "24 rows does not divide over 5 devices"),
        ({"devices": 2, "micro_batch": 5}, r"micro_batch=5 does not divide the 12 rows of each device"),
        ({"room": 1000}, "one row needs about"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_inputs, how, told):
    with pytest.raises(UserError, match=told):
        rows(tiny_inputs.experiment(variant="nokd", batch=24), **how)


def test_a_device_has_memory():
    total = memory.device_bytes(jax.devices()[0]) * len(jax.devices())
    assert 2**20 < total < 2**50
