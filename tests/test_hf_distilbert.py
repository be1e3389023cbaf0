"""DistilBERT folders in and out, against `transformers` itself; what it can't express stays a BERT."""

import dataclasses
import filecmp
import json

import numpy as np
import pytest
import torch
import transformers
from hf_folders import (
    OURS,
    WEIGHTS,
    WORDS,
    batch,
    change_config,
    change_weights,
    check_logits_against_torch,
    check_torch_agrees,
    drop,
    our_logits,
    put,
    random_params,
    same,
    torch_logits,
    torch_model,
)
from safetensors.numpy import load_file

from jaxdistill import bert, cli, hf, tree
from jaxdistill.data.vocab import write_tokenizer
from jaxdistill.errors import UserError
from jaxdistill.export import export, read_run
from jaxdistill.train import train

SHAPE = dataclasses.replace(OURS, types=0, eps=1e-12)


@pytest.fixture
def folder(tmp_path):
    """A masked LM as `transformers` saves it, to change."""
    torch_model(transformers.DistilBertForMaskedLM).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("sinusoidal", [False, True])
def test_logits_agree_with_torch_and_float64_is_the_judge(tmp_path, sinusoidal):
    model = torch_model(transformers.DistilBertForMaskedLM, sinusoidal_pos_embds=sinusoidal)
    check_logits_against_torch(model, tmp_path / "theirs", SHAPE)
    found = hf.read_hf(tmp_path / "theirs")
    assert hf.read_config(tmp_path / "theirs") == SHAPE and found.set_aside == found.fresh == ()


def test_what_we_write_computes_the_same_in_torch(tmp_path):
    params = random_params(SHAPE)
    hf.write_hf(tmp_path / "ours", SHAPE, params, None)
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert isinstance(model, transformers.DistilBertForMaskedLM) and model.dtype == torch.float32
    ids, mask = batch()
    ours = our_logits(SHAPE, params, ids, mask)
    assert np.abs(ours - torch_logits(model.eval(), ids, mask))[mask].max() < 1e-5
    found = hf.read_hf(tmp_path / "ours")
    assert found.config == SHAPE
    same(found.params, params)


@pytest.mark.parametrize(
    ("kind", "mlm"), [(transformers.DistilBertForMaskedLM, True), (transformers.DistilBertModel, False)]
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_we_write_is_what_save_pretrained_writes(tmp_path, kind, mlm, dtype):
    torch_model(kind).to(getattr(torch, dtype)).save_pretrained(tmp_path / "theirs")
    found = hf.read_hf(tmp_path / "theirs", mlm=mlm)
    hf.write_hf(tmp_path / "ours", found.config, found.params, None, dtype=dtype)
    assert filecmp.cmp(tmp_path / "theirs" / WEIGHTS, tmp_path / "ours" / WEIGHTS, shallow=False)
    theirs = json.loads((tmp_path / "theirs/config.json").read_text())
    ours = json.loads((tmp_path / "ours/config.json").read_text())
    del theirs["transformers_version"], ours["jaxdistill_version"]
    assert ours == theirs


def test_its_tokenizer_gives_no_token_types(tmp_path):
    hf.write_hf(tmp_path / "out", SHAPE, random_params(SHAPE), WORDS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert tokenizer("the HOUSE ab").input_ids == [WORDS.cls, 17, 18, 5, 16, WORDS.sep]
    assert tokenizer.model_max_length == 20
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").pad_token_id == WORDS.pad
    assert hf.read_hf(tmp_path / "out").vocabulary == WORDS


@pytest.mark.parametrize("parts", [{"eps": 0.01}, {"pooler": True}, {"pooler": True, "nsp": True}])
def test_what_distilbert_lacks_is_written_as_a_bert_with_two_zero_rows(tmp_path, parts):
    config = dataclasses.replace(SHAPE, **parts)
    hf.write_hf(tmp_path / "out", config, random_params(config), None)
    content = json.loads((tmp_path / "out/config.json").read_text())
    assert (content["model_type"], content["type_vocab_size"]) == ("bert", 2)
    table = load_file(tmp_path / "out" / WEIGHTS)["bert.embeddings.token_type_embeddings.weight"]
    assert table.shape == (2, 24) and not table.any()


def test_every_form_of_names_is_read(folder):
    expected = hf.read_hf(folder).params

    def old(tensors):
        renamed = {name.removeprefix("distilbert."): value for name, value in tensors.items()}
        renamed["embeddings.LayerNorm.gamma"] = renamed.pop("embeddings.LayerNorm.weight")
        renamed["embeddings.position_ids"] = np.arange(20)[None]
        renamed["vocab_projector.weight"] = renamed["embeddings.word_embeddings.weight"]
        return renamed

    change_weights(folder, old)
    change_config(folder, tie_weights_=True, tie_word_embeddings="gone", sinusoidal_pos_embds="gone")
    found = hf.read_hf(folder)
    assert found.config == SHAPE and found.set_aside == ("embeddings.position_ids",)
    same(found.params, expected)
    change_weights(folder, drop("embeddings.word_embeddings.weight"))
    same(hf.read_hf(folder).params, expected)


def test_a_head_that_is_not_asked_for_is_set_aside(folder):
    whole = hf.read_hf(folder)
    encoder = hf.read_hf(folder, mlm=False)
    assert encoder.set_aside == (
        "vocab_layer_norm.bias",
        "vocab_layer_norm.weight",
        "vocab_projector.bias",
        "vocab_transform.bias",
        "vocab_transform.weight",
    )
    same(encoder.params, {name: value for name, value in whole.params.items() if name != "mlm"})


def test_heads_that_are_missing_start_fresh(tmp_path):
    torch_model(transformers.DistilBertModel).save_pretrained(tmp_path / "encoder")
    found = hf.read_hf(tmp_path / "encoder", pooler=True)
    assert found.fresh == ("mlm", "pooler") and found.set_aside == ()
    shapes = tree.flatten(bert.shapes(dataclasses.replace(SHAPE, pooler=True)))
    assert {name: leaf.shape for name, leaf in tree.flatten(found.params).items()} == {
        name: leaf.shape for name, leaf in shapes.items()
    }
    with pytest.raises(UserError, match="no mlm head"):
        hf.read_hf(tmp_path / "encoder", fresh_heads=False)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            transformers.DistilBertForSequenceClassification,
            {"classifier.weight", "pre_classifier.bias"},
        ),
        (transformers.DistilBertForQuestionAnswering, {"qa_outputs.bias", "qa_outputs.weight"}),
    ],
)
def test_a_head_for_another_task_is_set_aside(tmp_path, kind, names):
    torch_model(kind).save_pretrained(tmp_path / "model")
    found = hf.read_hf(tmp_path / "model")
    assert names <= set(found.set_aside) and found.fresh == ("mlm",)
    with pytest.raises(UserError, match="no mlm head"):
        hf.read_hf(tmp_path / "model", fresh_heads=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("distilbert.transformer.layer.1.ffn.lin2.bias"), "lacks distilbert.transformer.layer.1.ffn.lin2.bias"),
        (drop("vocab_projector.bias"), "lacks vocab_projector.bias"),
        (
            put("distilbert.transformer.layer.0.ffn.lin1.weight", np.zeros((24, 40), np.float32)),
            r"layer.0.ffn.lin1.weight is \[24, 40\] instead of \[40, 24\]",
        ),
        (put("distilbert.embeddings.token_type_embeddings.weight", np.zeros((2, 24), np.float32)), "no part of a Dist"),
        (put("vocab_projector.weight", np.zeros((60, 24), np.float32)), "untied decoder"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "relu"}, "activation is 'relu', but only 'gelu'"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"tie_weights_": False}, "tie_weights_ is False"),
        ({"dim": "gone"}, "lacks dim: is it a DistilBERT model's"),
        ({"n_heads": 5}, "5 attention heads do not divide the width 24"),
        ({"attention_dropout": 1.5}, "attention_dropout is 1.5"),
        ({"model_type": "camembert"}, "model_type is 'camembert', but only 'bert' and 'distilbert'"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(folder, changes, message):
    change_config(folder, **changes)
    for read in (hf.read_hf, hf.read_config):
        with pytest.raises(UserError, match=message):
            read(folder)


def test_distilbert_base_has_its_number_of_parameters():
    with torch.device("meta"):
        theirs = transformers.DistilBertModel(transformers.DistilBertConfig())
    ours = bert.BertConfig(vocab=30_522, hidden=768, layers=6, heads=12, ffn=3072, types=0, mlm=False)
    assert bert.parameter_count(ours) == sum(part.numel() for part in theirs.parameters()) == 66_362_880


def test_fill_reads_a_distilbert_folder(folder, capsys):
    change_weights(folder, put("vocab_projector.bias", np.float32(100 * (np.arange(60) == WORDS.ids["house"]))))
    write_tokenizer(WORDS, folder, 20)
    assert cli.main(["fill", str(folder), "the [MASK]"]) == 0
    assert capsys.readouterr().out.startswith("house 100.0%")


def test_a_distilbert_is_a_teacher_too(tiny_inputs, workdir, tmp_path):
    whole = hf.read_hf(tiny_inputs.teacher)
    config = dataclasses.replace(whole.config, types=0)
    del whole.params["embeddings"]["type"]
    hf.write_hf(tmp_path / "teacher", config, whole.params, whole.vocabulary)
    made = tiny_inputs.experiment(variant="up", teacher=str(tmp_path / "teacher"), steps=1, run={"devices": 1})
    train(made, workdir, notify=lambda line: None)
    export(workdir, tmp_path / "after", role="teacher", notify=lambda line: None)
    found = read_run(workdir, "teacher")
    assert json.loads((tmp_path / "after/config.json").read_text())["architectures"] == ["DistilBertForMaskedLM"]
    check_torch_agrees(tmp_path / "after", found.config, found.params)
