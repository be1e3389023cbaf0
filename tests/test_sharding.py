import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxdistill import bert, optim, sharding, tree
from jaxdistill.bert import BertConfig
from jaxdistill.errors import UserError
from jaxdistill.optim import Optimizer


def specs(fsdp: int, config: BertConfig, role: str = "student") -> dict:
    mesh = sharding.make_mesh(fsdp)
    found = tree.flatten(sharding.parameter_shardings({role: bert.shapes(config)}, mesh)[role])
    return {name: place.spec for name, place in found.items()}


def test_parameters_lie_on_the_first_axis_of_the_order():
    found = specs(4, BertConfig(vocab=64, hidden=16, layers=4, heads=2, ffn=32, positions=8, pooler=True, nsp=True))
    assert found["embeddings/word"] == P("fsdp", None)
    assert found["embeddings/position"] == P(None, "fsdp"), "the width comes before the positions"
    assert found["layers/query/kernel"] == P(None, "fsdp", None)
    assert found["layers/ffn_in/kernel"] == P(None, None, "fsdp")
    assert found["layers/ffn_out/kernel"] == P(None, "fsdp", None)
    assert found["layers/ffn_in/bias"] == P(None, "fsdp")
    assert found["layers/attention_norm/scale"] == P(None, "fsdp")
    assert found["mlm/transform/kernel"] == P("fsdp", None)
    assert found["mlm/bias"] == P("fsdp")
    assert found["nsp/kernel"] == P("fsdp", None) and found["nsp/bias"] == P()


def test_a_dimension_that_does_not_divide_falls_to_the_next():
    found = specs(8, BertConfig(vocab=30_522, hidden=768, layers=8, heads=12, ffn=3072, positions=512))
    assert found["embeddings/word"] == P(None, "fsdp")
    assert found["mlm/bias"] == P()
    found = specs(8, BertConfig(vocab=61, hidden=12, layers=8, heads=2, ffn=20, positions=16))
    assert found.pop("embeddings/position") == P("fsdp", None)
    assert set(found.values()) == {P()}, "the layer axis divides, and is never sharded"


def test_the_bridge_and_an_fsdp_of_one_are_replicated():
    config = BertConfig(vocab=64, hidden=16, layers=2, heads=2, ffn=32)
    assert set(specs(1, config).values()) == {P()}
    mesh = sharding.make_mesh(4)
    bridge = {"bridge": {"projection": {"hidden_hidden": {"left": jnp.zeros((8, 8))}}}}
    assert {place.spec for place in jax.tree.leaves(sharding.parameter_shardings(bridge, mesh))} == {P()}


def test_rows_lie_on_every_device():
    mesh = sharding.make_mesh(2)
    assert mesh.shape == {"data": 4, "fsdp": 2}
    rows = jax.device_put(np.arange(16).reshape(8, 2), sharding.batch_sharding(mesh))
    assert [shard.data.shape for shard in rows.addressable_shards] == [(1, 2)] * 8
    assert sharding.replicated(mesh).is_fully_replicated
    assert sharding.make_mesh(1, 3).size == 3


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_moments_lie_where_their_parameters_do(name):
    mesh = sharding.make_mesh(4)
    shapes = bert.shapes(BertConfig(vocab=64, hidden=16, layers=2, heads=2, ffn=32, positions=8))
    place = sharding.parameter_shardings({"student": shapes}, mesh)["student"]
    transform = optim.make({"student": Optimizer(name)}, 10)["student"]
    state = jax.eval_shape(transform.init, shapes)
    found = sharding.optimizer_shardings(transform, state, place, mesh)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    moments, arrays = jax.tree.leaves(found), jax.tree.leaves(state)
    assert sum(not spot.is_fully_replicated for spot in moments) == 2 * len(jax.tree.leaves(place))
    for spot, array in zip(moments, arrays, strict=True):
        assert spot.is_fully_replicated == (array.ndim == 0)


@pytest.mark.parametrize(
    ("fsdp", "devices", "match"),
    [
        (3, 0, "fsdp=3 does not divide the 8 devices"),
        (0, 0, "fsdp=0"),
        (1, 9, "has 8"),
        (4, 6, "does not divide the 6"),
    ],
)
def test_meshes_that_can_not_be_made_are_refused(fsdp, devices, match):
    with pytest.raises(UserError, match=match):
        sharding.make_mesh(fsdp, devices)


def test_what_belongs_to_no_model_lies_everywhere():
    mesh = sharding.make_mesh(fsdp=2, devices=4)
    params = {
        tree.BRIDGE: {"hidden": {"kernel": np.zeros((4, 4))}},
        tree.CONSTANTS: {"shared": {"teacher": np.zeros(4)}},
    }
    for found in tree.flatten(sharding.parameter_shardings(params, mesh)).values():
        assert found.is_fully_replicated
