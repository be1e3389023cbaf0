"""Heads of tasks in Hugging Face folders: against `transformers`, both ways, with the names of the classes."""

import dataclasses
import filecmp

import jax
import numpy as np
import pytest
import torch
import transformers
from hf_folders import OURS, WEIGHTS, batch, change_config, random_params, same, torch_model

from jaxdistill import bert, hf
from jaxdistill.bert import BertConfig
from jaxdistill.errors import UserError
from jaxdistill.initial import FromHuggingFace

NAMES = ("no", "maybe", "yes")
CLASSES = dataclasses.replace(OURS, mlm=False, pooler=True, classifier=NAMES)
SCORE = dataclasses.replace(CLASSES, classifier=("score",))
SPANS = dataclasses.replace(OURS, mlm=False, spans=True)
DISTIL = {"types": 0, "eps": 1e-12}
MODELS = [
    (transformers.BertForSequenceClassification, CLASSES),
    (transformers.BertForSequenceClassification, SCORE),
    (transformers.BertForQuestionAnswering, SPANS),
    (transformers.DistilBertForSequenceClassification, dataclasses.replace(CLASSES, pooling="relu", **DISTIL)),
    (transformers.DistilBertForQuestionAnswering, dataclasses.replace(SPANS, **DISTIL)),
]
IDS = [f"{kind.__name__}-{len(config.classifier)}" for kind, config in MODELS]


def fine_tuned(kind, config):
    names = {"id2label": dict(enumerate(config.classifier))} if len(config.classifier) > 1 else {"num_labels": 1}
    return torch_model(kind, **(names if config.classifier else {}))


def ours(config: BertConfig, params: dict) -> np.ndarray:
    ids, mask = batch()
    types = (np.arange(ids.shape[1]) > 7).astype(np.int32) * np.ones_like(ids)
    outputs = bert.Bert(config).apply({"params": params}, ids, mask, types=types)
    return np.asarray(outputs.spans if config.spans else outputs.classes)


def theirs(model: torch.nn.Module) -> np.ndarray:
    ids, mask = batch()
    given = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
    if isinstance(model, transformers.BertPreTrainedModel):
        given["token_type_ids"] = (torch.arange(ids.shape[1]) > 7).long().expand(*ids.shape)
    with torch.no_grad():
        found = model.eval()(**given)
    return (
        found.logits.numpy() if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1).numpy()
    )


@pytest.mark.parametrize(("kind", "config"), MODELS, ids=IDS)
def test_a_fine_tuned_model_of_transformers_computes_the_same_here(tmp_path, kind, config):
    model = fine_tuned(kind, config)
    model.save_pretrained(tmp_path / "theirs")
    assert hf.read_task_config(tmp_path / "theirs") == config
    params = FromHuggingFace(str(tmp_path / "theirs"), whole=True)(config, jax.random.key(0))
    mask = batch()[1] if config.spans else slice(None)
    np.testing.assert_allclose(ours(config, params)[mask], theirs(model)[mask], atol=1e-5)
    hf.write_hf(tmp_path / "ours", config, params, None)
    assert filecmp.cmp(tmp_path / "theirs" / WEIGHTS, tmp_path / "ours" / WEIGHTS, shallow=False)


@pytest.mark.parametrize(("kind", "config"), MODELS, ids=IDS)
def test_what_we_write_is_that_class_with_these_names(tmp_path, kind, config):
    params = random_params(config)
    hf.write_hf(tmp_path / "ours", config, params, None)
    auto = "AutoModelForQuestionAnswering" if config.spans else "AutoModelForSequenceClassification"
    model, report = getattr(transformers, auto).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(model) is kind and not any(report.values()), report
    if len(config.classifier) > 1:
        assert model.config.id2label == dict(enumerate(NAMES)) and model.config.label2id["yes"] == 2
    mask = batch()[1] if config.spans else slice(None)
    np.testing.assert_allclose(ours(config, params)[mask], theirs(model)[mask], atol=1e-5)


def test_classes_are_told_apart_by_name_and_not_by_number(tmp_path):
    fine_tuned(*MODELS[0]).save_pretrained(tmp_path / "theirs")
    turned = dataclasses.replace(CLASSES, classifier=("yes", "no", "maybe"))
    start = FromHuggingFace(str(tmp_path / "theirs"), whole=True)
    one, other = (ours(config, start(config, jax.random.key(0))) for config in (CLASSES, turned))
    np.testing.assert_allclose(other, one[:, [2, 0, 1]], atol=1e-6)


def test_a_classifier_of_other_classes_is_not_taken(tmp_path):
    fine_tuned(*MODELS[0]).save_pretrained(tmp_path / "theirs")
    other = dataclasses.replace(CLASSES, classifier=("no", "yes", "perhaps"))
    with pytest.warns(UserWarning, match="no weights for classifier"):
        found = FromHuggingFace(str(tmp_path / "theirs"))(other, jax.random.key(0))
    whole = hf.read_hf(tmp_path / "theirs", mlm=False, pooler=True, classifier=NAMES)
    same({**found, "classifier": 0}, {**whole.params, "classifier": 0})
    assert not np.array_equal(found["classifier"]["kernel"], whole.params["classifier"]["kernel"])
    with pytest.raises(UserError, match="of the classes no, yes, perhaps; its classes are no, maybe, yes"):
        FromHuggingFace(str(tmp_path / "theirs"), whole=True)(other, jax.random.key(0))


def test_an_encoder_gets_a_fresh_head_and_a_masked_lm_is_no_fine_tuned_model(tmp_path):
    torch_model().save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="no weights for pooler and classifier"):
        FromHuggingFace(str(tmp_path / "theirs"))(CLASSES, jax.random.key(0))
    with pytest.raises(UserError, match="is of BertForMaskedLM: a fine-tuned one ends with"):
        hf.read_task_config(tmp_path / "theirs")


def test_badly_named_classes_and_what_no_class_computes_are_refused(tmp_path):
    fine_tuned(*MODELS[0]).save_pretrained(tmp_path / "theirs")
    for names in ({"0": "a", "2": "b"}, {"0": 1, "1": 2}, {"0": None, "1": "a"}, {}, ["a", "b"], None):
        change_config(tmp_path / "theirs", id2label=names)
        with pytest.raises(UserError, match="must name every class from 0 on"):
            hf.read_task_config(tmp_path / "theirs")
    for named in (5, {"a": 1}, [], [None], None):
        change_config(tmp_path / "theirs", architectures=named)
        with pytest.raises(UserError, match="is of no class: a fine-tuned one ends with"):
            hf.read_task_config(tmp_path / "theirs")
    relu = dataclasses.replace(CLASSES, pooling="tanh-relu")
    with pytest.raises(UserError, match="no BERT whose pooler ends with tanh-relu: train it with pooling tanh"):
        hf.write_hf(tmp_path / "ours", relu, random_params(relu), None)
    for change, match in (
        ({"pooler": False}, "read the pooler"),
        ({"pooling": "gelu"}, "choose tanh, relu"),
        ({"classifier": ("a", "a")}, "named twice"),
    ):
        with pytest.raises(UserError, match=match):
            dataclasses.replace(CLASSES, **change)
