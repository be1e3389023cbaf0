"""Random starts: BERT's, and the one that looks at neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import bert, tree
from jaxdistill.errors import UserError
from jaxdistill.initial import Random

SHAPE = bert.BertConfig(vocab=300, hidden=64, layers=2, heads=4, ffn=64, positions=64)


def attention_at(params, offset):
    """Mean attention of each first-layer head to the position at an offset from its own, [heads]."""
    ids = jnp.asarray(np.random.default_rng(0).integers(5, 300, (8, 32)))
    outputs = bert.Bert(SHAPE).apply({"params": params}, ids, ids >= 0, want=frozenset({"scores"}))
    probabilities = np.asarray(jax.nn.softmax(outputs.scores[0], -1))
    places = np.arange(4, 28)
    return probabilities[:, :, places, places + offset].mean((0, 2))


def test_each_head_looks_at_its_own_neighbour():
    params = Random(neighbours=True)(SHAPE, jax.random.key(0))
    offsets = [-2, -1, 1, 2]
    found = np.stack([attention_at(params, offset) for offset in offsets], 1)
    assert [offsets[place] for place in found.argmax(1)] == [-1, 1, -2, 2]
    assert found.max(1).min() > 0.2 > 4 / 32 > np.max(attention_at(Random()(SHAPE, jax.random.key(0)), -1))


def test_the_rest_starts_as_bert_does():
    plain, near = (tree.flatten(Random(choice)(SHAPE, jax.random.key(3))) for choice in (False, True))
    changed = {name for name in plain if not np.array_equal(plain[name], near[name])}
    tables = {"embeddings/word", "embeddings/position"}
    assert changed == tables | {"layers/query/kernel", "layers/key/kernel"}
    for name in changed - tables:
        assert np.array_equal(plain[name][1:], near[name][1:])
    np.testing.assert_allclose(near["embeddings/word"], 2.5 * plain["embeddings/word"], rtol=1e-6)


def test_heads_of_an_odd_size_are_refused_when_the_config_is_built(tiny_inputs):
    with pytest.raises(UserError, match=r"size 3.*must be even"):
        tiny_inputs.experiment(variant="nokd", hidden=12, heads=4, neighbours=True)


def test_heads_of_an_odd_size_cannot_start():
    shape = bert.BertConfig(vocab=30, hidden=6, layers=1, heads=2, ffn=6, positions=8)
    with pytest.raises(UserError, match=r"size 3.*must be even"):
        Random(neighbours=True)(shape, jax.random.key(0))
