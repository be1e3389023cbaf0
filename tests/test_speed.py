"""Turns of calls under a clock of our own, and what a call computes."""

import itertools

import jax
import numpy as np
import pytest
from toy_models import STUDENT, random_params

from jaxdistill import bert, speed


@pytest.mark.parametrize(
    ("limits", "rounds"), [((3, 100, 0.0), 3), ((3, 100, 7.5), 4), ((3, 10, 1e9), 10), ((5,), 5)], ids=str
)
def test_calls_take_turns_until_the_time_is_up(monkeypatch, limits, rounds):
    now, called = [0.0], []

    def taking(name, *seconds):
        each = itertools.chain([1000.0], itertools.cycle(seconds))

        def call():
            called.append(name)
            now[0] += next(each)

        return call

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    found = speed.turns({"one": taking("one", 1.0, 5.0, 1.0), "two": taking("two", 2.0)}, *limits)
    expected = list(itertools.islice(itertools.cycle([1.0, 5.0, 1.0]), rounds))
    assert found == {"one": expected, "two": [2.0] * rounds}, "without the first calls"
    assert called == ["one", "two"] * (rounds + 1)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (4, 1, STUDENT.vocab)),
        ({"mlm": False, "pooler": True, "classifier": ("a", "b", "c")}, (4, 3)),
        ({"mlm": False, "types": 0, "spans": True}, (4, 9, 2)),
        ({"mlm": False}, (4, 9, STUDENT.hidden)),
    ],
    ids=["masked LM", "classifier", "spans", "encoder"],
)
def test_a_call_reads_full_rows_with_the_head(changes, shape):
    config = bert.BertConfig(**vars(STUDENT) | changes)
    params = random_params(config)
    found = np.asarray(speed.reading(config, params, 9, 4)())
    ids = np.ones((4, 9), np.int32)
    outputs = bert.Bert(config).apply(
        {"params": params}, ids, ids > 0, positions=0 * ids[:, :1] if config.mlm else None
    )
    if config.mlm:
        expected = bert.logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])
    else:
        expected = next(each for each in (outputs.classes, outputs.spans, outputs.last) if each is not None)
    assert found.shape == shape
    np.testing.assert_allclose(found, np.asarray(jax.device_get(expected)), atol=1e-5)
