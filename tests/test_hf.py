"""Hugging Face folders in and out: against `transformers` itself, in every form that folders have, and refusals."""

import dataclasses
import errno
import filecmp
import json
import os
import shutil

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from jaxdistill import bert, hf, tree
from jaxdistill.bert import Bert, BertConfig
from jaxdistill.data.vocab import SPECIALS, Vocabulary, write_tokenizer
from jaxdistill.errors import UserError

TORCH = transformers.BertConfig(
    vocab_size=60,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=20,
    layer_norm_eps=0.01,
    hidden_dropout_prob=0.2,
    attention_probs_dropout_prob=0.3,
)
OURS = BertConfig(
    vocab=60, hidden=24, layers=3, heads=4, ffn=40, positions=20, dropout=0.2, attention_dropout=0.3, eps=0.01
)
WORDS = Vocabulary((*SPECIALS, *"abcdefghij", "##a", "##b", "the", "house"))
WEIGHTS = "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def torch_model(kind=transformers.BertForMaskedLM, seed=0, **changes):
    """A torch model with parameters far from their starts, biases and scales too."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(**(TORCH.to_diff_dict() | changes))
    model = kind(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(0, 0.15).add_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that `BertForPreTraining` saved: with pooler and next-sentence head. Only read."""
    folder = tmp_path_factory.mktemp("saved") / "pretraining"
    torch_model(transformers.BertForPreTraining).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, saved):
    """A folder with config.json and weights of a masked LM, to change."""
    target = tmp_path / "model"
    target.mkdir()
    shutil.copy(saved / "config.json", target)
    kept = {name: value for name, value in load_file(saved / WEIGHTS).items() if "pooler" not in name}
    save_file({name: value for name, value in kept.items() if "seq_relationship" not in name}, target / WEIGHTS)
    return target


def change_weights(folder, change):
    """Rewrites the weights as `change(tensors)` returns them, or leaves them."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / WEIGHTS)


def change_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


def same(one, other):
    one, other = tree.flatten(one), tree.flatten(other)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def random_params(config, seed=0):
    draw = np.random.default_rng(seed)

    def fill(name, leaf):
        return (draw.normal(0, 0.15, leaf.shape) + name.endswith("/scale")).astype(np.float32)

    return tree.map_names(fill, bert.shapes(config))


def batch(vocab=60, rows=5, length=16):
    draw = np.random.default_rng(0)
    lengths = np.linspace(length, length // 3, rows).astype(int)
    return draw.integers(0, vocab, (rows, length), np.int32), np.arange(length) < lengths[:, None]


def our_logits(config, params, ids, mask, types=None):
    """Logits at every position, with float32 matrix products."""
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)

    @jax.jit
    def run(params):
        outputs = Bert(config).apply({"params": params}, ids, mask, types=types, positions=positions)
        return bert.logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])

    with jax.default_matmul_precision("highest"):
        return np.asarray(run(params))


def torch_logits(model, ids, mask, types=None):
    types = torch.zeros(ids.shape, dtype=torch.long) if types is None else torch.from_numpy(types).long()
    with torch.no_grad():
        inputs = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask).long()}
        return model(**inputs, token_type_ids=types).logits.numpy()


# Parity


def test_logits_agree_with_torch_and_float64_is_the_judge(tmp_path):
    model = torch_model()
    model.save_pretrained(tmp_path / "theirs")
    found = hf.read_hf(tmp_path / "theirs")
    assert found.config == OURS
    ids, mask = batch()
    ours, theirs = our_logits(found.config, found.params, ids, mask), torch_logits(model, ids, mask)
    assert np.abs(ours - theirs)[mask].max() < 1e-5
    exact = torch_logits(model.double(), ids, mask)
    assert exact.dtype == np.float64
    assert np.abs(ours - exact)[mask].max() <= 3 * np.abs(theirs - exact)[mask].max()


@pytest.mark.parametrize("types", [0, 1, 2])
def test_what_we_write_computes_the_same_in_torch(tmp_path, types):
    config = dataclasses.replace(OURS, types=types)
    params = random_params(config)
    hf.write_hf(tmp_path / "ours", config, params, None)
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert isinstance(model, transformers.BertForMaskedLM) and model.dtype == torch.float32
    ids, mask = batch()
    kinds = None if types == 1 else np.random.default_rng(1).integers(0, 2, ids.shape, np.int32)
    ours = our_logits(config, params, ids, mask, kinds)
    assert np.abs(ours - torch_logits(model.eval(), ids, mask, kinds))[mask].max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "heads"),
    [
        (transformers.BertForMaskedLM, {}),
        (transformers.BertForPreTraining, {"pooler": True, "nsp": True}),
        (transformers.BertModel, {"mlm": False, "pooler": True}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_we_write_is_what_save_pretrained_writes(tmp_path, kind, heads, dtype):
    model = torch_model(kind).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs")
    found = hf.read_hf(tmp_path / "theirs", **heads)
    assert found.set_aside == found.fresh == () and found.revision is None and found.vocabulary is None
    hf.write_hf(tmp_path / "ours", found.config, found.params, None, dtype=dtype)
    assert filecmp.cmp(tmp_path / "theirs" / WEIGHTS, tmp_path / "ours" / WEIGHTS, shallow=False)
    theirs = json.loads((tmp_path / "theirs/config.json").read_text())
    ours = json.loads((tmp_path / "ours/config.json").read_text())
    del theirs["transformers_version"], ours["jaxdistill_version"]
    assert ours == theirs


def test_a_round_trip_is_exact(tmp_path):
    params = random_params(dataclasses.replace(OURS, pooler=True))
    config = dataclasses.replace(OURS, pooler=True)
    hf.write_hf(tmp_path / "ours", config, params, WORDS)
    found = hf.read_hf(tmp_path / "ours", pooler=True)
    assert found.config == config and found.vocabulary == WORDS
    same(found.params, params)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found.params))
    assert hf.read_config(tmp_path / "ours") == OURS


# Forms of real folders


def test_every_form_of_names_and_types_is_read(folder, saved):
    expected = hf.read_hf(folder).params

    def old(tensors):
        renamed = {}
        for name, value in tensors.items():
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[name] = value
        renamed["bert.embeddings.position_ids"] = np.arange(20)[None]
        renamed["cls.predictions.decoder.weight"] = renamed["bert.embeddings.word_embeddings.weight"]
        renamed["cls.predictions.decoder.bias"] = renamed["cls.predictions.bias"]
        return renamed

    change_weights(folder, old)
    found = hf.read_hf(folder)
    assert found.set_aside == ("bert.embeddings.position_ids",)
    same(found.params, expected)

    def only_the_copy(tensors):
        del tensors["cls.predictions.bias"]

    change_weights(folder, only_the_copy)
    same(hf.read_hf(folder).params, expected)

    whole = hf.read_hf(saved)
    same(whole.params, expected)
    assert whole.set_aside == (
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    )
    encoder = hf.read_hf(saved, mlm=False)
    same(encoder.params, {name: value for name, value in expected.items() if name != "mlm"})
    assert "cls.predictions.bias" in encoder.set_aside


@pytest.mark.parametrize(("dtype", "step"), [(np.float16, 2**-11), (ml_dtypes.bfloat16, 2**-8), (np.float64, 2**-24)])
def test_other_float_types_are_read(folder, dtype, step):
    expected = tree.flatten(hf.read_hf(folder).params)
    change_weights(folder, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    for name, value in tree.flatten(hf.read_hf(folder).params).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name], rtol=step, atol=1e-7)


def test_an_encoder_without_a_prefix_starts_its_heads_fresh(tmp_path):
    torch_model(transformers.BertModel, attn_implementation="eager").save_pretrained(tmp_path / "encoder")
    found = hf.read_hf(tmp_path / "encoder")
    assert found.fresh == ("mlm",)
    assert found.set_aside == ("pooler.dense.bias", "pooler.dense.weight")
    assert {name: leaf.shape for name, leaf in tree.flatten(found.params).items()} == {
        name: leaf.shape for name, leaf in tree.flatten(bert.shapes(OURS)).items()
    }
    kernel = found.params["mlm"]["transform"]["kernel"]
    assert isinstance(kernel, np.ndarray) and 0.01 < kernel.std() < 0.03
    same(found.params, hf.read_hf(tmp_path / "encoder").params)
    other = hf.read_hf(tmp_path / "encoder", seed=1).params
    assert not np.array_equal(kernel, other["mlm"]["transform"]["kernel"])
    assert np.array_equal(found.params["embeddings"]["word"], other["embeddings"]["word"])
    with pytest.raises(UserError, match="no mlm head"):
        hf.read_hf(tmp_path / "encoder", fresh_heads=False)
    assert hf.read_hf(tmp_path / "encoder", mlm=False, pooler=True).fresh == ()


def shard(folder):
    """Cuts the weights into two files with an index, and returns the index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(where.values()):
        save_file({name: value for name, value in tensors.items() if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_read(folder):
    expected = hf.read_hf(folder).params
    shard(folder)
    same(hf.read_hf(folder).params, expected)


def test_shards_as_transformers_cuts_them_are_read(tmp_path):
    model = torch_model()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "cut", max_shard_size="12KB")
    assert len(list((tmp_path / "cut").glob("model-*"))) > 2
    same(hf.read_hf(tmp_path / "cut").params, hf.read_hf(tmp_path / "one").params)


@pytest.mark.parametrize("how", ["parent", "absolute", "link", "missing", "disagree"])
def test_an_index_that_leads_astray_is_refused(folder, tmp_path, how):
    index = shard(folder)
    name = "cls.predictions.bias"
    file = index["weight_map"][name]
    shutil.copy(folder / file, tmp_path / "outside.safetensors")
    message = "lies outside the folder"
    if how == "parent":
        index["weight_map"][name] = "../outside.safetensors"
    elif how == "absolute":
        index["weight_map"][name] = str(tmp_path / "outside.safetensors")
    elif how == "link":
        (folder / file).unlink()
        (folder / file).symlink_to(tmp_path / "outside.safetensors")
    elif how == "missing":
        (folder / file).unlink()
        message = f"names {file}, which is missing"
    else:
        del index["weight_map"][name]
        message = f"disagree on {name}"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


# Folders that are refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', but only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "run code of its own"),
        ({"hidden_size": "gone"}, "lacks hidden_size"),
        ({"hidden_size": "24"}, "hidden_size is '24'"),
        ({"num_attention_heads": 5}, "5 attention heads do not divide the width 24"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(folder, changes, message):
    change_config(folder, **changes)
    for read in (hf.read_hf, hf.read_config):
        with pytest.raises(UserError, match=message):
            read(folder)


def test_an_old_config_has_the_defaults_of_its_time(folder):
    change_config(folder, model_type="gone", layer_norm_eps="gone", type_vocab_size="gone", tie_word_embeddings="gone")
    assert hf.read_config(folder) == dataclasses.replace(OURS, eps=1e-12, types=2)


def drop(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def put(name, value):
    return lambda tensors: tensors | {name: value}


def poke(name, number):
    def change(tensors):
        tensors[name] = np.array(tensors[name])
        tensors[name].flat[3] = number

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("bert.encoder.layer.1.output.dense.bias"), "lacks bert.encoder.layer.1.output.dense.bias"),
        (drop("cls.predictions.bias"), "lacks cls.predictions.bias"),
        (put("classifier.weight", np.zeros((2, 24), np.float32)), "no part of a BERT .*: classifier.weight"),
        (put("bert.encoder.layer.3.output.dense.bias", np.zeros(24, np.float32)), "no part of a BERT .*layer.3"),
        (put("bert.pooler.other", np.zeros(24, np.float32)), "no part of a BERT .*bert.pooler.other"),
        (
            put("bert.embeddings.word_embeddings.weight", np.zeros((61, 24), np.float32)),
            r"\[61, 24\] instead of \[60, 24\]",
        ),
        (
            put("bert.encoder.layer.0.intermediate.dense.weight", np.zeros((24, 40), np.float32)),
            r"layer.0.intermediate.dense.weight is \[24, 40\] instead of \[40, 24\]",
        ),
        (put("cls.predictions.bias", np.zeros(60, np.int8)), "cls.predictions.bias has the type I8"),
        (poke("bert.encoder.layer.2.attention.self.key.weight", np.nan), "NaN .* in bert.encoder.layer.2.attention"),
        (poke("cls.predictions.bias", np.inf), "infinite numbers in cls.predictions.bias"),
        (put("cls.predictions.decoder.weight", np.zeros((60, 24), np.float32)), "untied decoder"),
        (put("cls.predictions.decoder.bias", np.ones(60, np.float32)), "untied decoder"),
        (put("embeddings.LayerNorm.bias", np.zeros(24, np.float32)), "which are the same tensor"),
        (put("bert.embeddings.LayerNorm.beta", np.zeros(24, np.float32)), "which are the same tensor"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


def test_a_pickle_is_refused_with_the_way_out(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickle \(pytorch_model.bin\).*AutoModelForMaskedLM.*save_pretrained"):
        hf.read_hf(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        hf.read_hf(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", "torn"])
def test_a_torn_file_is_refused(folder, content):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100] if content == "torn" else content)
    with pytest.raises(UserError, match="can't be read as safetensors"):
        hf.read_hf(folder)


def test_places_that_hold_no_model_are_refused(tmp_path, folder):
    for source, message in [
        (tmp_path / "nowhere", "does not exist"),
        ("./nowhere", "does not exist"),
        ("a/b/c", "does not exist"),
        (folder / WEIGHTS, "is a file: give the folder"),
        (tmp_path, "config.json does not exist"),
    ]:
        with pytest.raises(UserError, match=message):
            hf.read_hf(source)
    with pytest.raises(UserError, match="a folder, which has no revision 'main'"):
        hf.read_hf(folder, revision="main")
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        hf.read_config(folder)


def test_the_tokenizer_comes_along_and_must_fit(folder):
    write_tokenizer(WORDS, folder, 20)
    assert hf.read_hf(folder).vocabulary == WORDS
    write_tokenizer(Vocabulary((*SPECIALS, *(f"w{number}" for number in range(60)))), folder, 20)
    with pytest.raises(UserError, match="65 pieces, the model only 60 rows"):
        hf.read_hf(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(UserError, match="run code of its own"):
        hf.read_hf(folder)


# The hub, replaced at its boundary


def hub(monkeypatch, tmp_path, folder, asked):
    """Replaces the download by a snapshot of `folder` laid out as the hub's cache lays it out, in links to blobs."""

    def snapshot_download(repo_id, *, revision=None, allow_patterns=None, **options):
        assert not options
        asked.append((repo_id, revision, allow_patterns))
        root = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}"
        snapshot = root / "snapshots" / COMMIT
        shutil.rmtree(root, ignore_errors=True)
        (root / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        names = huggingface_hub.utils.filter_repo_objects(
            sorted(path.name for path in folder.iterdir()), allow_patterns=allow_patterns
        )
        for number, name in enumerate(names):
            shutil.copy(folder / name, root / "blobs" / str(number))
            (snapshot / name).symlink_to(f"../../blobs/{number}")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_hub_model_is_pinned_to_its_commit(folder, tmp_path, monkeypatch, sharded):
    expected = hf.read_hf(folder).params
    write_tokenizer(WORDS, folder, 20)
    if sharded:
        shard(folder)
    for name in ("pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling.py", "model.fp16.safetensors"):
        (folder / name).write_text("never fetched")
    asked = []
    hub(monkeypatch, tmp_path, folder, asked)
    found = hf.read_hf("someone/model", revision="v1")
    assert found.revision == COMMIT and found.source == "someone/model" and found.vocabulary == WORDS
    same(found.params, expected)
    assert asked[0][:2] == ("someone/model", "v1")
    fetched = {path.name for path in (tmp_path / "cache/models--someone--model/snapshots" / COMMIT).iterdir()}
    assert "config.json" in fetched
    assert not [
        name for name in fetched if not name.endswith((".json", "vocab.txt", "model.safetensors")) and not sharded
    ]
    assert not fetched & {"pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling.py", "model.fp16.safetensors"}
    assert hf.read_config("someone/model") == OURS
    assert asked[1] == ("someone/model", None, ["config.json"])


def test_a_pickle_on_the_hub_is_refused(folder, tmp_path, monkeypatch):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    hub(monkeypatch, tmp_path, folder, [])
    with pytest.raises(UserError, match=r"someone/model has no model.safetensors; .*pickle.*save_pretrained"):
        hf.read_hf("someone/model")


@pytest.mark.parametrize(
    "error",
    [
        huggingface_hub.errors.LocalEntryNotFoundError("cannot find it in the cache\nmore"),
        huggingface_hub.errors.HFValidationError("not a repo id"),
        ConnectionError("no route to host"),
        RuntimeError("the transport's own"),
    ],
)
def test_a_hub_out_of_reach_says_what_was_asked(monkeypatch, error):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError) as caught:
        hf.read_hf("someone/model", revision="v1")
    message = str(caught.value)
    assert "someone/model at revision 'v1'" in message and str(error).splitlines()[0] in message
    assert "more" not in message.split("cache")[-1]


def test_offline_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="the Hugging Face hub could not give nobody/nothing"):
        hf.read_config("nobody/nothing")


# Writing


def test_the_exported_folder_is_complete(tmp_path):
    params = jax.tree.map(jnp.asarray, random_params(OURS))
    hf.write_hf(tmp_path / "out", OURS, params, WORDS, "# A card\n", extra={"scores.json": "{}\n"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "scores.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    assert (tmp_path / "out/README.md").read_text() == "# A card\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("the HOUSE ab").input_ids == [WORDS.cls, 17, 18, 5, 16, WORDS.sep]
    assert tokenizer.model_max_length == 20
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").pad_token_id == WORDS.pad
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert np.array_equal(model.embeddings.word_embeddings.weight.detach().numpy(), params["embeddings"]["word"])


def test_a_pooler_is_written_beside_the_masked_lm(tmp_path):
    config = dataclasses.replace(OURS, pooler=True)
    params = random_params(config)
    hf.write_hf(tmp_path / "out", config, params, None)
    model, report = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert np.array_equal(model.pooler.dense.weight.detach().numpy(), params["pooler"]["kernel"].T)


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is free
    hf.write_hf(out, OURS, random_params(OURS), WORDS, "first")
    hf.write_hf(out, OURS, random_params(OURS, 1), None)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    same(hf.read_hf(out).params, random_params(OURS, 1))
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"already holds thesis.tex"):
        hf.write_hf(out, OURS, random_params(OURS), None)
    (out / "thesis.tex").unlink()
    change_config(out, jaxdistill_version="gone")
    with pytest.raises(UserError, match=r"already holds config.json, model.safetensors"):
        hf.write_hf(out, OURS, random_params(OURS), None)
    hf.write_hf(out, OURS, random_params(OURS), None, replace=True)
    same(hf.read_hf(out).params, random_params(OURS))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        hf.write_hf(tmp_path / "file", OURS, random_params(OURS), None, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, before):
    out = tmp_path / "out"
    if before:
        hf.write_hf(out, OURS, random_params(OURS), WORDS, "first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hf, "write_tokenizer", full)
    with pytest.raises(UserError, match=r"could not be written .*No space left"):
        hf.write_hf(out, OURS, random_params(OURS, 1), WORDS, "second")
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])
    if before:
        assert (out / "README.md").read_text() == "first"
        same(hf.read_hf(out).params, random_params(OURS))


def test_a_failed_swap_puts_the_old_folder_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    hf.write_hf(out, OURS, random_params(OURS), None, "first")
    rename = os.rename

    def fail_to_install(source, target):
        if str(source).endswith(".tmp") and target == out:
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(hf.hf_files.os, "rename", fail_to_install)
    with pytest.raises(UserError, match="could not be written"):
        hf.write_hf(out, OURS, random_params(OURS, 1), None, "second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "README.md").read_text() == "first"


def without_bias(params):
    return {name: value for name, value in params.items() if name != "mlm"}


def overflowing(params):
    params["embeddings"]["word"][3, 4] = 1e6
    return params


def not_a_number(params):
    params["layers"]["query"]["kernel"][1, 2, 3] = np.nan
    return params


def wrongly_shaped(params):
    params["mlm"]["bias"] = np.zeros(61, np.float32)
    return params


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without_bias, {}, "the parameters and the config disagree on mlm/bias, mlm/norm/bias"),
        (wrongly_shaped, {}, r"mlm/bias is \[61\], the config says \[60\]"),
        (not_a_number, {}, "layers/query/kernel holds numbers that are not finite"),
        (overflowing, {"dtype": "float16"}, "embeddings/word holds numbers that are not finite in float16"),
        (dict, {"dtype": "int8"}, "choose float32 or float16"),
        (dict, {"extra": {"../x": ""}}, "can't be the name"),
        (dict, {"extra": {"config.json": ""}}, "can't be the name"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(tmp_path, change, options, message):
    with pytest.raises(UserError, match=message):
        hf.write_hf(tmp_path / "out", OURS, change(random_params(OURS)), None, **options)
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path):
    large = Vocabulary((*SPECIALS, *(f"w{number}" for number in range(60))))
    with pytest.raises(UserError, match="65 pieces, the model only 60 rows"):
        hf.write_hf(tmp_path / "out", OURS, random_params(OURS), large)
