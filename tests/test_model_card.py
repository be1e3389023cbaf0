"""The model card says what it was told and nothing else, in the form that the hub reads."""

import ast
import dataclasses
import re

import huggingface_hub
import pytest
import yaml

from jaxdistill.bert import BertConfig
from jaxdistill.errors import UserError
from jaxdistill.model_card import Facts, Measured, model_card

CONFIG = BertConfig(vocab=4928, hidden=48, layers=12, heads=12, ffn=192, positions=128)
BARE = Facts("tiny", CONFIG, vocabulary=4928, length=128, step=1000, steps=1000, method="masked language modelling")
FULL = dataclasses.replace(
    BARE,
    method="mixed-vocabulary distillation",
    variant="up",
    base_model="owner/teacher",
    base_revision="0123abc",
    base_parameters=58_952_000,
    corpus="an encyclopedia | novels",
    corpus_sha256="feed" * 16,
    dtype="float16",
    file_bytes=1_182_000,
    measured=Measured(
        {
            "teacher": {"per piece": 0.5123456, "per word": 0.4},
            "alone": {"per piece": 0.21, "per word": 0.15},
            "distilled": {"per piece": 0.25, "per word": 0.18},
        },
        "held-out text",
        "jaxdistill evaluate RUN --corpus HELD_OUT",
    ),
    command="jaxdistill train extreme --workdir RUN",
    versions={"jaxdistill": "0.1.0", "jax": "0.10.2"},
)


def front_matter(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_a_full_card_holds_every_fact():
    card = model_card(FULL)
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["bert", "distillation", "jaxdistill"],
        "base_model": "owner/teacher",
    }
    for fact in (
        "# tiny",
        "589,520 parameters",
        "4,928 WordPieces",
        "variant `up`",
        "`owner/teacher`, commit `0123abc`, 58,952,000 parameters",
        "100.0x fewer parameters",
        "an encyclopedia \\| novels",
        "feed" * 16,
        "1,000 of 1,000",
        "float16, 1,182,000 bytes",
        "| model | per piece | per word |",
        "| teacher | 0.5123 | 0.4 |",
        "| distilled | 0.25 | 0.18 |",
        "On held-out text:",
        "jaxdistill evaluate RUN --corpus HELD_OUT",
        "jaxdistill train extreme --workdir RUN",
        "jaxdistill 0.1.0, jax 0.10.2",
        "trained on rows of 128 pieces",
        "Texts longer than 128 pieces must be cut: this training had none.",
        "none is stated here",
    ):
        assert fact in card, fact
    assert "Unfinished" not in card


def test_a_bare_card_invents_nothing():
    card = model_card(BARE)
    assert set(front_matter(card)) == {"library_name", "pipeline_tag", "tags"}
    for word in ("None", "Base model", "SHA-256", "Measured", "Compression", "variant", "Made with", "How it was made"):
        assert word not in card, word


def test_positions_that_did_not_train_are_not_for_use():
    card = model_card(dataclasses.replace(BARE, length=64))
    assert "trained on rows of 64 pieces" in card
    assert "Texts longer than 64 pieces must be cut: this training had none, and left its positions beyond" in card
    assert "beyond that, up to 128, as they were" in card


@pytest.mark.parametrize("pair", [False, True])
def test_a_classifier_is_called_with_as_many_texts_as_it_reads(pair):
    config = dataclasses.replace(CONFIG, mlm=False, pooler=True, classifier=("no", "yes"))
    card = model_card(dataclasses.replace(BARE, config=config, pair=pair))
    (call,) = re.findall(r"^use\((.*)\)$", card, re.M)
    assert list(ast.literal_eval(call)) == ["text", "text_pair"] if pair else isinstance(ast.literal_eval(call), str)


def test_the_hub_reads_the_card():
    data = huggingface_hub.ModelCard(model_card(FULL)).data
    assert data.base_model == "owner/teacher" and data.pipeline_tag == "fill-mask"


def test_the_hub_reads_what_the_model_scored_on_a_task():
    rows = {"student": {"f1": 0.875, "accuracy": 0.75}, "teacher": {"f1": 0.9, "accuracy": 0.8}}
    measured = Measured(rows, "the dev split of mrpc", "jaxdistill evaluate RUN", "mrpc", "ab" * 32)
    card = model_card(dataclasses.replace(BARE, measured=measured))
    found = huggingface_hub.ModelCard(card).data.eval_results
    assert [(each.metric_type, each.metric_value) for each in found] == [("f1", 0.875), ("accuracy", 0.75)]
    assert {(each.task_type, each.dataset_name, each.dataset_split) for each in found} == {
        ("fill-mask", "mrpc", "validation")
    }


def test_a_folder_is_no_base_model_of_the_hub():
    card = model_card(dataclasses.replace(FULL, base_model="/models/mine", base_revision=None))
    assert "base_model" not in front_matter(card)
    assert "`/models/mine`, 58,952,000 parameters" in card


def test_an_unfinished_run_says_its_step():
    assert "after step 300 of 1,000" in model_card(dataclasses.replace(BARE, step=300))


def test_a_model_without_a_head_fills_no_masks():
    card = model_card(dataclasses.replace(FULL, config=dataclasses.replace(CONFIG, mlm=False)))
    assert front_matter(card)["pipeline_tag"] == "feature-extraction"
    assert "fill-mask" not in card and "AutoModel.from_pretrained" in card


def test_odd_text_cannot_break_the_card():
    odd = 'a: "b"\n---\n# c | d'
    card = model_card(dataclasses.replace(FULL, name=odd, base_model=odd, command="echo '```'"))
    assert front_matter(card)["base_model"] == odd
    assert huggingface_hub.ModelCard(card).data.base_model == odd
    assert "````\necho '```'\n````" in card


def test_scores_of_different_measures_make_no_table():
    scores = {"one": {"per piece": 0.1}, "other": {"per word": 0.2}}
    with pytest.raises(UserError, match="the scores of 'other'"):
        model_card(dataclasses.replace(FULL, measured=Measured(scores, "text", "command")))
