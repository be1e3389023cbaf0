"""Starts: at random, with neighbours, from a whole model, from some of its layers, from its words."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from hf_folders import change_weights, check_torch_agrees, put, random_params
from safetensors.numpy import load_file

from jaxdistill import bert, hf, hf_families, manifest, step, tree
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.export import export, read_run
from jaxdistill.initial import FromHuggingFace, FromLayers, FromTable, FromWords, Random, recorded
from jaxdistill.train import train

SHAPE = bert.BertConfig(vocab=300, hidden=64, layers=2, heads=4, ffn=64, positions=64)
DEEP = bert.BertConfig(vocab=30, hidden=8, layers=4, heads=2, ffn=16, positions=12)


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


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A teacher's folder; tests only read it."""
    folder = tmp_path_factory.mktemp("deep") / "teacher"
    hf.write_hf(folder, DEEP, random_params(DEEP), None)
    return folder


def test_a_whole_model_must_have_the_same_shape(deep):
    start = FromHuggingFace(str(deep))
    start.check(DEEP)
    other = dataclasses.replace(DEEP, positions=8, types=0)
    for refuse in (start.check, lambda config: start(config, jax.random.key(0))):
        with pytest.raises(
            UserError, match="positions is 12 there and 8 here, types is 2 there and 0 here; start from"
        ):
            refuse(other)


@pytest.mark.parametrize("types", [0, 2])
def test_a_student_starts_from_the_layers_named(deep, types):
    config = dataclasses.replace(DEEP, layers=2, positions=8, types=types)
    params = FromLayers(str(deep), layers=(0, 3))(config, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, bert.shapes(config))
    stored, flat = load_file(deep / "model.safetensors"), tree.flatten(params)
    for ours, value in flat.items():
        theirs = hf_families.BERT.names[ours]
        for mine, other in ((0, 0), (1, 3)) if ours.startswith("layers/") else ((slice(None), 0),):
            expected = stored[theirs.format(other)][: 8 if ours == "embeddings/position" else None]
            assert np.array_equal(value[mine].T if ours.endswith("/kernel") else value[mine], expected), ours


@pytest.mark.parametrize(
    ("layers", "changes", "message"),
    [
        ((0, 1, 2), {}, "layers is 3 there and 2 here"),
        ((0, 4), {}, r"layers \[0, 4\] of .*: it has 0 to 3"),
        ((-1, 0), {}, "it has 0 to 3"),
        ((), {}, "it has 0 to 3"),
        ((0, 3), {"vocab": 29, "hidden": 12, "ffn": 15}, "vocab is 30 .* 29 here, hidden is 8 .* 12 here, ffn is 16"),
        ((0, 3), {"heads": 4, "positions": 13}, "heads is 2 there and 4 here, positions is 12 there and 13 here"),
        ((0, 3), {"types": 3, "eps": 1e-6}, "types is 2 there and 3 here, eps is 1e-12 there and 1e-06 here"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_the_config(deep, layers, changes, message):
    with pytest.raises(UserError, match=message):
        FromLayers(str(deep), layers=layers).check(dataclasses.replace(DEEP, **{"layers": 2} | changes))


def test_starts_are_checked_when_the_config_is_built(deep, tiny_inputs):
    made = tiny_inputs.experiment(variant="nokd")
    for start in (FromHuggingFace(str(deep)), FromLayers(str(deep), layers=(0, 3))):
        with pytest.raises(UserError, match=f"can't start from {deep}: vocab is 30 there and 60 here"):
            dataclasses.replace(made, start={"student": start})


def test_a_distilbert_is_a_start_too(deep, tmp_path):
    config = dataclasses.replace(DEEP, types=0)
    params = random_params(config)
    hf.write_hf(tmp_path / "distilbert", config, params, None)
    start = FromLayers(str(tmp_path / "distilbert"), layers=(3, 0))
    found = tree.flatten(start(dataclasses.replace(config, layers=2), jax.random.key(0)))
    for name, value in tree.flatten(params).items():
        assert np.array_equal(found[name], value[np.array([3, 0])] if name.startswith("layers/") else value), name
    with pytest.raises(UserError, match="types is 0 there and 2 here"):
        start.check(dataclasses.replace(DEEP, layers=2))


def test_the_weights_of_a_folder_are_part_of_the_contents(deep, tmp_path):
    start = FromLayers(str(deep), layers=(0, 1))
    assert start.pin(None) is start and start.contents() == FromHuggingFace(str(deep)).contents() != ""
    config = dataclasses.replace(DEEP, types=0)
    hf.write_hf(tmp_path / "other", config, random_params(config), None)
    other = dataclasses.replace(start, source=str(tmp_path / "other"))
    before = other.contents()
    assert before != start.contents()
    change_weights(tmp_path / "other", put("vocab_projector.bias", np.zeros(30, np.float32)))
    assert other.contents() != before


def from_words(tiny_inputs, **changes):
    return FromWords(str(tiny_inputs.teacher), vocabulary=str(tiny_inputs.vocabulary), **changes)


def test_a_start_comes_back_from_the_manifest(deep, tiny_inputs):
    for start in (
        Random(neighbours=True),
        FromHuggingFace("owner/name", "0123abc"),
        FromLayers(str(deep), layers=(0, 3)),
        FromTable(str(deep), base=Random(neighbours=True)),
        from_words(tiny_inputs, base=Random(neighbours=True)),
    ):
        assert recorded(json.loads(json.dumps(manifest.as_dict(start)))) == start


def test_a_student_of_layers_is_trained_and_exported_as_a_distilbert(tiny_inputs, workdir, tmp_path):
    made = tiny_inputs.experiment(variant="nokd", steps=1, run={"devices": 1})
    config = hf.read_config(tiny_inputs.teacher)
    student = dataclasses.replace(config, layers=1, types=0, positions=16)
    data = dataclasses.replace(made.data, vocabularies={"student": str(tiny_inputs.teacher)})
    start = FromLayers(str(tiny_inputs.teacher), layers=(1,))
    made = dataclasses.replace(
        made,
        data=data,
        models={"student": student},
        start={"student": start},
        trains=((r"student/embeddings/position", False), (".*", True)),
    )
    train(made, workdir, notify=lambda line: None)
    export(workdir, tmp_path / "out", notify=lambda line: None)
    found, began = read_run(workdir), hf.read_hf(tiny_inputs.teacher).params
    assert np.array_equal(found.params["embeddings"]["position"], began["embeddings"]["position"][:16])
    assert not np.array_equal(found.params["embeddings"]["word"], began["embeddings"]["word"])
    assert isinstance(
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out"), transformers.DistilBertForMaskedLM
    )
    check_torch_agrees(tmp_path / "out", found.config, found.params)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "A DistilBERT encoder" in card and f"`{tiny_inputs.teacher}`" in card


@pytest.mark.parametrize("neighbours", [False, True])
def test_only_the_words_start_from_the_teacher(tiny_inputs, neighbours):
    base = Random(neighbours)
    start = from_words(tiny_inputs, base=base)
    students = []
    for variant in ("nokd", "up"):
        made = tiny_inputs.experiment(variant=variant, neighbours=neighbours)
        plain = tree.flatten(step.init_params(made)["student"])
        made = dataclasses.replace(made, start={**made.start, "student": start})
        students.append(tree.flatten(step.init_params(made)["student"]))
        changed = {name for name in plain if not np.array_equal(plain[name], students[-1][name])}
        assert changed == {"embeddings/word"}
    assert all(np.array_equal(students[0][name], students[1][name]) for name in plain)
    words, random = students[0]["embeddings/word"], plain["embeddings/word"]
    np.testing.assert_allclose(np.square(words).mean(), np.square(random).mean(), rtol=0.1)
    own, other = (read_vocabulary(path) for path in (tiny_inputs.vocabulary, tiny_inputs.teacher))
    both = [piece for piece in own.pieces if piece in other.ids]
    theirs = hf.read_hf(tiny_inputs.teacher).params["embeddings"]["word"][[other.ids[piece] for piece in both]]
    shares = [np.corrcoef(distances(words[np.array([own.ids[p] for p in both])]), distances(theirs))[0, 1]]
    shares += [np.corrcoef(distances(random[np.array([own.ids[p] for p in both])]), distances(theirs))[0, 1]]
    assert shares[0] > 0.8 > 0.3 > shares[1]


def distances(rows):
    rows = np.asarray(rows, np.float64)
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)[np.triu_indices(len(rows), 1)]


def test_words_that_do_not_fit_are_refused_by_the_config(tiny_inputs, tmp_path):
    start, config = from_words(tiny_inputs), tiny_inputs.experiment(variant="nokd").models["student"]
    start.check(config)
    for changes, message in (
        ({"hidden": 24}, "is 12 wide, the model that is to start from its words 24"),
        ({"vocab": 59}, "has 60 pieces, the model only 59 rows"),
    ):
        with pytest.raises(UserError, match=message):
            start.check(dataclasses.replace(config, **changes))
    with pytest.raises(UserError, match="does not exist"):
        dataclasses.replace(start, vocabulary=str(tmp_path / "none.txt")).check(config)
    assert start.contents() != dataclasses.replace(start, vocabulary=str(tiny_inputs.teacher)).contents()


def test_a_teacher_that_must_be_whole_is_refused_without_its_head(tmp_path):
    shape = bert.BertConfig(vocab=9, hidden=4, layers=1, heads=1, ffn=4, positions=4)
    bare = dataclasses.replace(shape, mlm=False)
    hf.write_hf(tmp_path / "bare", bare, bert.init(bare, jax.random.key(0)), None)
    with pytest.warns(UserWarning, match="fresh ones start at random"):
        FromHuggingFace(str(tmp_path / "bare"))(shape, jax.random.key(0))
    with pytest.raises(UserError, match="has no mlm head"):
        FromHuggingFace(str(tmp_path / "bare"), whole=True)(shape, jax.random.key(0))
