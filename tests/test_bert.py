"""The model against torch's, against itself in other layouts, and against what its options promise."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxdistill import bert, tree
from jaxdistill.attention import attention_kernel, fused_attention
from jaxdistill.bert import Bert, BertConfig
from jaxdistill.dropout import row_seeds
from jaxdistill.errors import UserError
from jaxdistill.hf_families import BERT

# Every size differs from the others, so that no axis can stand for another.
SMALL = BertConfig(
    vocab=61,
    hidden=24,
    layers=3,
    heads=4,
    ffn=40,
    positions=20,
    types=2,
    pooler=True,
    dropout=0.1,
    attention_dropout=0.1,
    eps=0.01,
)
PAPER = {"vocab": 4928, "layers": 12, "heads": 12}


def random_params(config: BertConfig, seed: int = 0, scale: float = 0.15) -> dict:
    """Parameters far from their starts, biases and scales too, so that an error in any of them shows."""
    draw = np.random.default_rng(seed)

    def fill(name, leaf):
        value = draw.normal(0, scale, leaf.shape)
        return jnp.asarray(value + name.endswith("/scale"), jnp.float32)

    return tree.map_names(fill, bert.shapes(config))


def batch(config: BertConfig, rows: int = 4, length: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids and a mask whose rows have different lengths, the first the full one."""
    draw = np.random.default_rng(seed)
    lengths = np.linspace(length, length // 3, rows).astype(int)
    return draw.integers(0, config.vocab, (rows, length), np.int32), np.arange(length) < lengths[:, None]


@functools.partial(jax.jit, static_argnames=("config", "want", "unroll"))
def run(config, params, ids, mask, want=frozenset(), unroll=1, **inputs) -> bert.Outputs:
    """`Bert(config)` compiled; tests that ask for the same thing share the program."""
    return Bert(config, unroll=unroll).apply({"params": params}, ids, mask, want=want, **inputs)


def torch_bert(config: BertConfig, params: dict) -> transformers.BertForPreTraining:
    """Torch's BERT with the same parameters, in eval mode; its attention gives the probabilities away."""
    theirs = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=config.vocab,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=config.ffn,
            max_position_embeddings=config.positions,
            type_vocab_size=config.types,
            layer_norm_eps=config.eps,
            attn_implementation="eager",
        )
    ).eval()
    state = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in tree.flatten(params).items():
            for layer, part in enumerate(value if name.startswith("layers/") else [value]):
                part = np.array(part.T if name.endswith("/kernel") else part)
                state[BERT.names[name].format(layer)].copy_(torch.from_numpy(part))
    return theirs


def test_outputs_have_their_shapes_and_types():
    ids, mask = batch(SMALL)
    positions = np.zeros((4, 5), np.int32)
    outputs = run(
        SMALL, random_params(SMALL), ids, mask, positions=positions, want=frozenset({"hidden", "first", "scores"})
    )
    assert {name: None if value is None else value.shape for name, value in outputs._asdict().items()} == {
        "last": (4, 16, 24),
        "embeddings": (4, 16, 24),
        "hidden": (3, 4, 16, 24),
        "first": (3, 4, 24),
        "scores": (3, 4, 4, 16, 16),
        "pooled": (4, 24),
        "predictions": (4, 5, 24),
        **dict.fromkeys(("classes", "spans", "transformed", "top", "chances")),
    }
    assert np.array_equal(outputs.hidden[-1], outputs.last) and np.array_equal(outputs.first, outputs.hidden[:, :, 0])
    bare = run(dataclasses.replace(SMALL, pooler=False), random_params(SMALL), ids, mask)
    assert bare.hidden is bare.scores is bare.pooled is bare.predictions is None


@pytest.mark.parametrize(
    ("hidden", "positions", "whole", "exported"),
    [(48, 128, 591_970, 589_520), (96, 512, 1_888_642, 1_879_136), (192, 128, 6_389_698, 6_352_256)],
)
def test_the_papers_parameter_counts(hidden, positions, whole, exported):
    config = BertConfig(**PAPER, hidden=hidden, ffn=4 * hidden, positions=positions)
    assert bert.parameter_count(config) == exported
    assert bert.parameter_count(dataclasses.replace(config, pooler=True, nsp=True)) == whole


def test_the_parameter_count_of_bert_base():
    config = BertConfig(vocab=30522, hidden=768, layers=12, heads=12, ffn=3072, pooler=True, nsp=True)
    assert bert.parameter_count(config) == 110_106_428


def test_axes_name_every_dimension_of_every_parameter():
    config = dataclasses.replace(SMALL, nsp=True, classifier=("no", "yes"), spans=True)
    sizes = dataclasses.asdict(config) | {"classes": 2}
    for name, leaf in tree.flatten(bert.shapes(config)).items():
        assert leaf.shape == tuple(sizes[axis] for axis in tree.first_match(bert.AXES, name)), name


def test_initial_parameters_are_bert_s():
    config = dataclasses.replace(SMALL, vocab=4000, hidden=64, heads=4)
    params = tree.flatten(jax.jit(functools.partial(bert.init, config))(jax.random.key(0)))
    for name, value in params.items():
        if name.endswith("/bias"):
            assert not value.any()
        elif name.endswith("/scale"):
            assert (value == 1).all()
        else:
            assert abs(value).max() <= 0.04, name  # a normal of 0.02 cut at two deviations has 0.0176, as TensorFlow's
            assert value.std() == pytest.approx(0.0176, rel=0.02 if value.size > 5000 else 0.2), name
    kernels = params["layers/query/kernel"]
    assert not np.array_equal(kernels[0], kernels[1])


def test_no_types_means_no_type_table():
    names = tree.flatten(bert.shapes(dataclasses.replace(SMALL, types=0)))
    assert "embeddings/type" not in names
    assert len(names) == len(tree.flatten(bert.shapes(SMALL))) - 1


def test_everything_computed_agrees_with_torch():
    params = random_params(SMALL)
    ids, mask = batch(SMALL)
    types = np.random.default_rng(1).integers(0, 2, ids.shape, np.int32)
    positions = np.broadcast_to(np.arange(16, dtype=np.int32), ids.shape)
    with jax.default_matmul_precision("highest"):
        ours = run(SMALL, params, ids, mask, types=types, positions=positions, want=frozenset({"hidden", "scores"}))
        scored = bert.logits(ours.predictions, params["embeddings"]["word"], params["mlm"]["bias"])
    with torch.no_grad():
        theirs = torch_bert(SMALL, params)(
            input_ids=torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(mask).long(),
            token_type_ids=torch.from_numpy(types).long(),
            output_hidden_states=True,
            output_attentions=True,
        )
        pooled = theirs.hidden_states[-1][:, 0] @ torch.from_numpy(np.array(params["pooler"]["kernel"]))
        pooled = torch.tanh(pooled + torch.from_numpy(np.array(params["pooler"]["bias"])))
    assert np.abs(scored - theirs.prediction_logits.numpy())[mask].max() < 1e-5
    for layer, (mine, other) in enumerate(zip([ours.embeddings, *ours.hidden], theirs.hidden_states, strict=True)):
        assert np.abs(mine - other.numpy())[mask].max() < 1e-5, layer
    probabilities = jax.nn.softmax(jnp.where(mask[:, None, None, :], ours.scores, -jnp.inf), axis=-1)
    for mine, other in zip(probabilities, theirs.attentions, strict=True):
        assert np.abs(mine - other.numpy()).max(axis=1)[mask].max() < 1e-5
    assert np.abs(ours.pooled - pooled.numpy()).max() < 1e-5


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 401, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(bert.gelu(jnp.asarray(x)) - exact).max() < 5e-7


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_padding_adds_nothing(attention):
    config = dataclasses.replace(SMALL, attention=attention, attention_dropout=0.0)
    params = random_params(config)
    ids, mask = batch(config)
    first = run(config, params, ids, mask).last
    other = run(config, params, np.where(mask, ids, config.vocab - 1 - ids), mask).last
    assert np.array_equal(first[mask], other[mask])
    longer = run(config, params, np.pad(ids, ((0, 0), (0, 4))), np.pad(mask, ((0, 0), (0, 4)))).last
    np.testing.assert_allclose(longer[:, :16][mask], first[mask], atol=2e-6)


def test_fused_attention_equals_plain():
    config = dataclasses.replace(SMALL, attention_dropout=0.0)
    params, (ids, mask) = random_params(config), batch(config)
    seeds = row_seeds(0, 1, jnp.arange(4), 0)
    for rows in (None, seeds):
        plain = run(config, params, ids, mask, dropout_seeds=rows).last
        fused = run(dataclasses.replace(config, attention="fused"), params, ids, mask, dropout_seeds=rows).last
        np.testing.assert_allclose(fused[mask], plain[mask], atol=5e-6)


def test_fused_attention_is_a_softmax_over_the_real_positions():
    """By the lengths that cuDNN is given, too."""
    draw = np.random.default_rng(0)
    query, key, value = (draw.normal(size=(4, 16, 2, 8)).astype(np.float32) for _ in range(3))
    _, mask = batch(SMALL)
    found = fused_attention(query, key, value, mask, "xla")
    for row, count in enumerate(mask.sum(axis=1)):
        for head in range(2):
            own = (x[row, :count, head] for x in (query, key, value))
            q, k, v = (x.astype(np.float64) for x in own)
            odds = np.exp(q @ k.T / 8**0.5)
            np.testing.assert_allclose(found[row, :count, head], odds / odds.sum(1, keepdims=True) @ v, atol=1e-5)
        assert not found[row, count:].any()


GPU = dataclasses.replace(SMALL, hidden=64, heads=2, attention="fused", attention_dropout=0.0, dtype="bfloat16")


@pytest.mark.parametrize(
    ("backend", "capability", "change", "kernel"),
    [
        ("gpu", "8.0", {}, "cudnn"),  # heads of 32
        ("gpu", "12.0", {"hidden": 256}, "cudnn"),
        ("gpu", "9.0", {"attention": "plain"}, "plain"),
        ("gpu", "9.0", {"dtype": "float32"}, "xla"),
        ("gpu", "9.0", {"hidden": 8}, "xla"),  # heads of 4: the students of the paper
        ("gpu", "9.0", {"hidden": 272}, "xla"),
        ("gpu", "7.5", {}, "xla"),
        ("gpu", "gfx942", {}, "xla"),
        ("tpu", None, {}, "xla"),
        ("cpu", None, {}, "xla"),
    ],
)
def test_cudnn_computes_attention_where_it_can(monkeypatch, backend, capability, change, kernel):
    chip = types.SimpleNamespace(compute_capability=capability) if capability else object()
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [chip])
    assert attention_kernel(dataclasses.replace(GPU, **change)) == kernel


def test_unrolled_layers_equal_scanned_ones():
    params, (ids, mask) = random_params(SMALL), batch(SMALL)
    seeds = row_seeds(0, 1, jnp.arange(4), 0)
    want = frozenset({"hidden", "scores"})
    scanned = run(SMALL, params, ids, mask, dropout_seeds=seeds, want=want)
    unrolled = run(SMALL, params, ids, mask, unroll=SMALL.layers, dropout_seeds=seeds, want=want)
    for one, other in zip(scanned, unrolled, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, atol=5e-6)


def test_bfloat16_is_close_and_logits_are_float32():
    params, (ids, mask) = random_params(SMALL, scale=0.1), batch(SMALL)
    positions = np.broadcast_to(np.arange(16, dtype=np.int32), ids.shape)

    def scored(dtype):
        outputs = run(
            dataclasses.replace(SMALL, dtype=dtype), params, ids, mask, positions=positions, want=frozenset({"scores"})
        )
        return outputs, bert.logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])

    wide, exact = scored("float32")
    narrow, rounded = scored("bfloat16")
    assert narrow.last.dtype == narrow.predictions.dtype == jnp.bfloat16
    assert narrow.scores.dtype == rounded.dtype == jnp.float32
    error = np.abs(rounded - exact)[mask]
    assert 0 < error.max() < 0.05 * np.abs(exact).max()
    assert np.abs(narrow.last.astype(jnp.float32) - wide.last)[mask].mean() < 0.02


def test_words_take_the_place_of_the_table_s_rows():
    params, (ids, mask) = random_params(SMALL), batch(SMALL)
    looked_up = run(SMALL, params, ids, mask).last
    given = run(SMALL, params, ids, mask, words=params["embeddings"]["word"][ids]).last
    np.testing.assert_allclose(given, looked_up, atol=1e-6)


def test_predictions_are_made_where_asked():
    params, (ids, mask) = random_params(SMALL), batch(SMALL)
    everywhere = np.broadcast_to(np.arange(16, dtype=np.int32), ids.shape)
    places = np.random.default_rng(2).integers(0, 16, (4, 5), np.int32)
    whole = run(SMALL, params, ids, mask, positions=everywhere).predictions
    some = run(SMALL, params, ids, mask, positions=places).predictions
    np.testing.assert_allclose(some, np.take_along_axis(np.asarray(whole), places[..., None], axis=1), atol=1e-6)


def test_a_row_keeps_its_dropout_in_any_micro_batch():
    params, (ids, mask) = random_params(SMALL), batch(SMALL, rows=6)

    def seeds(rows):
        return row_seeds(1, 2, jnp.asarray(rows), 0)

    together = run(SMALL, params, ids, mask, dropout_seeds=seeds(range(6))).last
    order = np.array([4, 0, 5, 2, 1, 3])
    permuted = run(SMALL, params, ids[order], mask[order], dropout_seeds=seeds(order)).last
    np.testing.assert_allclose(permuted, together[order], atol=5e-6)
    for start in range(0, 6, 2):
        rows = np.arange(start, start + 2)
        part = run(SMALL, params, ids[rows], mask[rows], dropout_seeds=seeds(rows)).last
        np.testing.assert_allclose(part, together[rows], atol=5e-6)
    plain = run(SMALL, params, ids, mask).last
    assert np.abs(plain - together).max() > 0.1
    swapped = run(SMALL, params, ids, mask, dropout_seeds=seeds(order)).last
    assert np.abs(swapped - together).max() > 0.1


def test_every_dropout_of_the_model_is_a_site_of_its_own(monkeypatch):
    seen = []

    def dropout(x, seeds, site, rate):
        jax.debug.callback(lambda site: seen.append((int(site), rate)), jnp.asarray(site))
        return x

    monkeypatch.setattr(bert, "dropout", dropout)
    config = dataclasses.replace(SMALL, dropout=0.2, attention_dropout=0.3)
    ids, mask = batch(config)
    seeds = row_seeds(0, 0, jnp.arange(4), 0)
    jax.block_until_ready(Bert(config).apply({"params": random_params(config)}, ids, mask, dropout_seeds=seeds))
    jax.effects_barrier()
    assert sorted(seen) == [(site, 0.3 if site % 3 == 1 else 0.2) for site in range(3 * config.layers + 1)]


def test_flops_agree_with_an_unrolled_compile():
    config = BertConfig(
        vocab=2000,
        hidden=192,
        layers=2,
        heads=4,
        ffn=768,
        positions=64,
        pooler=True,
        dropout=0.0,
        attention_dropout=0.0,
    )
    length, predictions, rows = 48, 7, 2

    def forward(params, ids, mask, positions):
        outputs = Bert(config, unroll=config.layers).apply({"params": params}, ids, mask, positions=positions)
        scored = bert.logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])
        return scored, outputs.pooled

    int32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    mask = jax.ShapeDtypeStruct((rows, length), jnp.bool_)
    lowered = jax.jit(forward).lower(bert.shapes(config), int32((rows, length)), mask, int32((rows, predictions)))
    counted = lowered.compile().cost_analysis()["flops"] / rows
    formula = bert.flops(config, length, predictions)
    assert formula <= counted < 1.06 * formula, (counted, formula)  # the rest is element-wise
    small = bert.flops(config, length, predictions, vocab=100)
    assert formula - small == predictions * 2 * config.hidden * 1900


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": 0}, "vocab=0"),
        ({"layers": -1}, "layers=-1"),
        ({"heads": 5}, "5 attention heads do not divide the width 24"),
        ({"types": -1}, "types=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout=-0.1"),
        ({"attention": "flash"}, "choose plain or fused"),
        ({"attention": "fused"}, "fused attention has no dropout"),
        ({"dtype": "float16"}, "choose float32 or bfloat16"),
        ({"pooler": False, "nsp": True}, "pooler=True"),
    ],
)
def test_a_config_that_is_no_bert_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)


def test_an_input_longer_than_the_positions_is_refused():
    ids = np.zeros((1, 21), np.int32)
    with pytest.raises(UserError, match="length 21, but the model has 20 positions"):
        run(SMALL, random_params(SMALL), ids, ids == 0)


def test_fused_attention_has_no_scores():
    config = dataclasses.replace(SMALL, attention="fused", attention_dropout=0.0)
    ids, mask = batch(config)
    with pytest.raises(UserError, match="attention=plain"):
        run(config, random_params(config), ids, mask, want=frozenset({"scores"}))


def test_predictions_of_a_few_rows_at_a_time_are_the_same(monkeypatch):
    config = BertConfig(vocab=11, hidden=8, layers=2, heads=2, ffn=8, positions=6)
    params = bert.init(config, jax.random.key(0))
    ids = np.arange(36, dtype=np.int32).reshape(6, 6) % 11
    given = config, params, ids, ids > 0, np.array([[1, 2]] * 6)
    assert jax.device_count() > 1
    whole = bert.predict(*given)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert "while" in jax.jit(bert.predict, static_argnums=0).lower(*given).as_text()
    np.testing.assert_allclose(bert.predict(*given), whole, rtol=1e-5, atol=1e-6)
    odd = (config, params, *(x[:5] for x in given[2:]))
    np.testing.assert_allclose(bert.predict(*odd), whole[:5], rtol=1e-5, atol=1e-6)
