"""Hugging Face folders in and out: against `transformers` itself, in every form of names, and refusals."""

import dataclasses
import filecmp
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from hf_folders import (
    OURS,
    WEIGHTS,
    WORDS,
    batch,
    change_weights,
    check_logits_against_torch,
    drop,
    our_logits,
    put,
    random_params,
    same,
    torch_logits,
    torch_model,
)

from jaxdistill import bert, hf, tree
from jaxdistill.data.vocab import SPECIALS, Vocabulary, write_tokenizer
from jaxdistill.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A masked LM as `transformers` saves it, to change."""
    torch_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_logits_agree_with_torch_and_float64_is_the_judge(tmp_path):
    check_logits_against_torch(torch_model(), tmp_path / "theirs", OURS)


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


def test_every_form_of_names_is_read(folder):
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


def test_heads_not_asked_for_are_set_aside(tmp_path):
    torch_model(transformers.BertForPreTraining).save_pretrained(tmp_path / "saved")
    whole = hf.read_hf(tmp_path / "saved")
    assert whole.set_aside == (
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    )
    encoder = hf.read_hf(tmp_path / "saved", mlm=False)
    same(encoder.params, {name: value for name, value in whole.params.items() if name != "mlm"})
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
        (put("scorer.weight", np.zeros((2, 24), np.float32)), "no part of a BERT .*: scorer.weight"),
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


def test_the_tokenizer_comes_along_and_must_fit(folder):
    write_tokenizer(WORDS, folder, 20)
    assert hf.read_hf(folder).vocabulary == WORDS
    write_tokenizer(Vocabulary((*SPECIALS, *(f"w{number}" for number in range(60)))), folder, 20)
    with pytest.raises(UserError, match="65 pieces, the model only 60 rows"):
        hf.read_hf(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(UserError, match="run code of its own"):
        hf.read_hf(folder)
