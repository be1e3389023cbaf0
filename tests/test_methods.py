"""The configs of methods beside `extreme` and `mlm`: trained in their smoke size, and their default shapes counted."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers
from test_configs import ONE, check_loads, finish, same
from tiny import RUN

from jaxdistill import bert, cache, hf, knobs, step, tree
from jaxdistill.bert import BertConfig
from jaxdistill.data.masking import Masking
from jaxdistill.data.vocab import SPECIALS, read_vocabulary, write_tokenizer
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment
from jaxdistill.export import export, read_model, read_run
from jaxdistill.initial import FromTable, Random
from jaxdistill.inputs import open_inputs
from jaxdistill.optim import Optimizer
from jaxdistill.run import Run
from jaxdistill.terms import AttentionScores, HiddenStates


@pytest.fixture
def make(tiny_inputs):
    """`make("tinybert_general", size="1x8")`: that config for a run of seconds."""

    def make(name, **changes) -> Experiment:
        values = {"corpus": str(tiny_inputs.corpus), "teacher": str(tiny_inputs.teacher), "length": 16, "batch": 8}
        made = knobs.load(name)(**values | {"steps": 3, "learning_rate": 0.01} | changes)
        return dataclasses.replace(made, run=Run(**RUN | ONE))

    return make


def first_batch(experiment):
    data = experiment.data
    return open_inputs(data).batches(data, experiment.seed)(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict[str, str]:
    """BERT_BASE by its config alone, 4,928 pieces, and no corpus: arguments of configs whose shapes are counted."""
    folder = tmp_path_factory.mktemp("base")
    config = BertConfig(vocab=30_522, hidden=768, layers=12, heads=12, ffn=3072)
    (folder / "config.json").write_text(json.dumps(hf.hf_names.config_json(config, None, "float32")))
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *(f"w{number}" for number in range(4928 - 5))]) + "\n")
    return {"corpus": "-", "teacher": str(folder)}


def encoder_and_pooler(config: BertConfig) -> int:
    return bert.parameter_count(dataclasses.replace(config, mlm=False, pooler=True))


def test_distilbert_trains_and_its_student_loads(make, workdir, tmp_path, tiny_inputs):
    experiment = make("distilbert", held_out=str(tiny_inputs.held_out))
    last = finish(experiment, workdir)
    assert last["loss"] == pytest.approx(5 * last["ce"] + 2 * last["mlm"] + last["cos"], rel=1e-5)
    assert all(last[f"kernel_gradient/{name}"] > 0 for name in ("ce", "mlm", "cos"))
    assert {name for name in last if name.startswith("gradient_norm/")} == {"gradient_norm/student"}
    start, found = step.init_params(experiment), read_run(workdir)
    assert same(start["teacher"], read_run(workdir, "teacher").params), "the teacher is frozen"
    assert np.array_equal(found.params["embeddings"]["position"], start["teacher"]["embeddings"]["position"])
    assert not np.array_equal(found.params["embeddings"]["word"], start["teacher"]["embeddings"]["word"])
    assert json.loads((workdir / "scores.json").read_text())["scores"].keys() == {"student", "teacher"}
    check_loads(workdir, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForMaskedLM"]


@pytest.mark.parametrize(
    ("changes", "terms"), [({"ce": 0.0}, {"mlm", "cos"}), ({"mlm": 0.0}, {"ce", "cos"}), ({"cos": 0.0}, {"ce", "mlm"})]
)
def test_distilbert_s_losses_are_left_out_one_by_one(make, changes, terms):
    assert set(make("distilbert", **changes).terms) == terms


def test_distilbert_starts_from_layers_spread_over_the_teacher(base):
    config = knobs.load("distilbert")
    made = config(**base)
    assert made.start["student"].layers == (0, 2, 4, 7, 9, 11)
    assert config(**base, layers=3).start["student"].layers == (0, 6, 11)
    assert not made.trains_name("student/embeddings/position") and made.trains_name("student/embeddings/word")
    random = config(**base, start="random")
    assert random.start["student"] == Random() and random.trains_name("student/embeddings/position")
    assert bert.parameter_count(dataclasses.replace(made.models["student"], mlm=False)) == 66_362_880


def test_distilbert_s_defaults_are_the_paper_s(base):
    made = knobs.load("distilbert")(**base)
    assert (made.data.batch, made.data.length) == (4000, 512)
    assert made.data.masking == Masking(rate=0.15, predictions=128, rarity=0.7)
    assert {name: term.weight for name, term in made.terms.items()} == {"ce": 5.0, "mlm": 2.0, "cos": 1.0}
    assert made.terms["ce"].temperature == 2.0 and not made.terms["ce"].masked_only
    rule = {"learning_rate": 5e-4, "warmup": 0.05, "decay": "linear", "weight_decay": 0.0, "clip": 5.0}
    assert made.optimizers == {"student": Optimizer("adamw", **rule, b1=0.9, b2=0.98, eps=1e-6)}


def test_mixed_vocabulary_training_goes_from_the_first_stage_to_the_second(make, tmp_path, tiny_inputs):
    given = {"vocabulary": str(tiny_inputs.vocabulary), "hidden": 8, "heads": 2, "positions": 24, "predictions": 3}
    first, out = make("mixed_vocab", stage=1, **given), str(tmp_path / "table")
    last = finish(first, tmp_path / "first")
    assert {"teacher_mlm"} == {name for name in last if name.endswith("_mlm") and "/" not in name}
    assert all(last[f"gradient_norm/{role}"] > 0 for role in ("student", "teacher", "bridge"))
    export(tmp_path / "first", out, role="student", notify=lambda line: None)
    began = tree.flatten(step.init_params(first)["student"])
    ended = tree.flatten(read_run(tmp_path / "first").params)
    assert [name for name in began if not np.array_equal(began[name], ended[name])] == ["embeddings/word"]

    after = {"stage": 2, "table": out, "teacher": "google-bert/bert-large-uncased"}
    second = make("mixed_vocab", **after, layers=2, **given)
    start = tree.flatten(step.init_params(second)["student"])
    random = tree.flatten(step.init_params(dataclasses.replace(second, start={"student": Random()}))["student"])
    assert np.array_equal(start["embeddings/word"], ended["embeddings/word"])
    assert [name for name in start if not np.array_equal(start[name], random[name])] == ["embeddings/word"]
    assert finish(second, tmp_path / "second")["student_mlm"] > 0
    check_loads(tmp_path / "second", tmp_path / "model")

    near = make("mixed_vocab", **after, layers=2, neighbours=True, **given)
    begun = Random(neighbours=True)(near.models["student"], jax.random.key(0))
    both = [FromTable(out, base=Random(choice))(near.models["student"], jax.random.key(0)) for choice in (False, True)]
    word = both[1]["embeddings"]["word"]
    np.testing.assert_allclose(np.square(word).mean(), np.square(begun["embeddings"]["word"]).mean(), rtol=1e-5)
    ratio = np.asarray(word / both[0]["embeddings"]["word"])
    assert ratio.min() == pytest.approx(ratio.max(), rel=1e-5) and ratio.min() > 1.5
    assert same(both[1]["layers"], begun["layers"]) and near.start["student"] == FromTable(out, base=Random(True))
    slow = make("mixed_vocab", stage=1, learning_rate=1e-3, teacher_learning_rate=1e-4, **given).optimizers
    assert {role: rule.learning_rate for role, rule in slow.items()} == {
        "student": 1e-3,
        "teacher": 1e-4,
        "bridge": 1e-3,
    }

    pieces = read_vocabulary(tiny_inputs.vocabulary)
    write_tokenizer(dataclasses.replace(pieces, lowercase=False), tmp_path / "cased", 16)
    for changes, match in (
        ({"stage": 1, "table": out}, "table is of stage 2"),
        ({"stage": 1, "neighbours": True}, "neighbours is of stage 2"),
        (after | {"teacher_learning_rate": 1e-4}, "teacher_learning_rate is of stage 1"),
        ({"stage": 1, "layers": 2}, "layers is of stage 2"),
        (after | {"mix": 0.2}, "mix is of stage 1"),
        (after | {"teacher": str(tiny_inputs.teacher)}, "teacher is of stage 1"),
        (after | {"table": ""}, "stage 2 starts from stage 1"),
        (after | {"vocabulary": str(tiny_inputs.teacher)}, "cuts words otherwise than"),
        (after | {"vocabulary": str(tmp_path / "cased")}, "cuts words otherwise than"),
        (after | {"hidden": 12}, "is 60 x 8, the model's 60 x 12"),
    ):
        with pytest.raises(UserError, match=match):
            make("mixed_vocab", **given | changes)


@pytest.mark.parametrize(("layers", "parameters"), [(6, 6_198_016), (12, 10_936_576)])
def test_mixed_vocabulary_students_have_their_parameters(base, layers, parameters, tmp_path):
    vocabulary = pathlib.Path(base["teacher"], "vocab.txt")
    shutil.copy(vocabulary, tmp_path)
    held = BertConfig(vocab=4928, hidden=256, layers=1, heads=1, ffn=1, mlm=False)
    (tmp_path / "config.json").write_text(json.dumps(hf.hf_names.config_json(held, None, "float32")))
    given = {"corpus": "-", "vocabulary": str(vocabulary), "table": str(tmp_path)}
    student = knobs.load("mixed_vocab")(stage=2, layers=layers, **given).models["student"]
    assert encoder_and_pooler(student) == parameters


def test_tinybert_trains_and_its_student_loads(make, workdir, tmp_path):
    experiment = make("tinybert_general", size="1x8")
    last = finish(experiment, workdir)
    terms = ("embeddings", "hidden", "attention")
    assert last["loss"] == pytest.approx(sum(last[name] for name in terms), rel=1e-5)
    assert all(last[f"kernel_gradient/{name}"] > 0 for name in ("hidden", "attention"))
    assert {name for name in last if name.startswith("gradient_norm/")} == {
        "gradient_norm/student",
        "gradient_norm/bridge",
    }
    assert same(step.init_params(experiment)["teacher"], read_run(workdir, "teacher").params), "the teacher is frozen"
    with pytest.raises(UserError, match=r"the student of .* has no masked-LM head"):
        read_model(workdir)
    export(workdir, tmp_path / "model", notify=lambda line: None)
    found = read_run(workdir)
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"pooler"} and not report["unexpected_keys"]
    rows = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")("The old sailor.", return_tensors="pt")
    with torch.no_grad():
        expected = theirs.eval()(**rows).last_hidden_state.numpy()
    ids = rows.input_ids.numpy()
    ours = bert.Bert(found.config).apply({"params": found.params}, ids, ids >= 0)
    np.testing.assert_allclose(ours.last, expected, atol=1e-5)
    model = str(tmp_path / "model")
    given = {"corpus": experiment.data.corpus, "length": 16, "predictions": 3, "batch": 8, "steps": 3}
    further = knobs.load("mlm")(vocabulary=model, start=model, **given)
    with pytest.warns(UserWarning, match="no weights for mlm"):
        assert same(step.init_params(further)["model"]["layers"], found.params["layers"])
        finish(dataclasses.replace(further, run=experiment.run), tmp_path / "further")
    check_loads(tmp_path / "further", tmp_path / "whole")


def test_tinybert_reads_the_text_unless_asked_for_masks(make):
    plain, masked = (make("tinybert_general", size="2x8", masked=masked) for masked in (False, True))
    text, batch = first_batch(plain), first_batch(masked)
    for found in (text, batch):
        np.testing.assert_array_equal(found["student"]["ids"], found["teacher"]["ids"])
    read, view = text["student"]["ids"], batch["student"]
    assert (view["ids"] == open_inputs(masked.data).vocabularies["teacher"].mask).any()
    rows, slots = np.nonzero(view["targets"] >= 0)
    places = rows, view["positions"][rows, slots]
    np.testing.assert_array_equal(read[places], view["targets"][rows, slots])
    restored = view["ids"].copy()
    restored[places] = read[places]
    np.testing.assert_array_equal(restored, read)


def test_tinybert_s_defaults_are_the_paper_s(base):
    made = knobs.load("tinybert_general")(**base)
    assert (made.data.batch, made.data.length, made.steps) == (256, 128, 300_000)
    student = made.models["student"]
    assert (student.layers, student.hidden, student.ffn, student.heads) == (4, 312, 1200, 12)
    assert {name: (type(term), term.weight) for name, term in made.terms.items()} == {
        "embeddings": (HiddenStates, 1.0),
        "hidden": (HiddenStates, 1.0),
        "attention": (AttentionScores, 1.0),
    }
    rule = Optimizer("adamw", learning_rate=5e-5, warmup=0.1)
    assert made.optimizers == {"student": rule, "bridge": rule} and made.start["student"] == Random()
    assert not made.trains_name("teacher/embeddings/word")


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"embd": 0.0}, {"hidden", "attention"}),
        ({"hidn": 0.0}, {"embeddings", "attention"}),
        ({"attn": 0.0}, {"embeddings", "hidden"}),
        ({"released": True}, {"states", "attention"}),
        ({"released": True, "embd": 0.0}, {"hidden", "attention"}),
    ],
    ids=["embd", "hidn", "attn", "released", "released-embd"],
)
def test_tinybert_s_losses_are_left_out_one_by_one(make, changes, terms):
    made = make("tinybert_general", size="2x8", **changes)
    assert set(made.terms) == terms
    bridge = step.init_params(made).get("bridge", {})
    assert set(bridge) == terms - {"attention"}
    assert [set(maps) for maps in bridge.values()] == [
        {"all"} if "released" in changes else {name.replace("hidden", "layers")} for name in bridge
    ]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": "312"}, "write layers x width, such as 4x312"),
        ({"size": "2x9"}, "2 attention heads do not divide the width 9"),
        ({"size": "3x8"}, "a student of 3 layers can't follow a teacher of 2"),
        ({"released": True, "hidn": 2.0}, "give both one weight"),
        ({"embd": 0.0, "hidn": 0.0, "attn": 0.0}, "at least one loss term"),
    ],
    ids=str,
)
def test_tinybert_refuses_what_does_not_fit(make, changes, match):
    with pytest.raises(UserError, match=match):
        make("tinybert_general", **{"size": "2x8"} | changes)


@pytest.mark.parametrize(
    ("size", "ffn", "parameters"),
    [
        ("4x312", 1200, 14_350_248),
        ("6x768", 3072, 66_955_008),
        ("3x768", 3072, 45_691_392),
        ("4x768", 3072, 52_779_264),
    ],
)
def test_tinyberts_have_the_parameters_of_the_papers(base, size, ffn, parameters):
    student = knobs.load("tinybert_general")(**base, size=size, layer_map="top").models["student"]
    assert (student.ffn, student.heads) == (ffn, 12)
    assert encoder_and_pooler(student) == parameters


def test_the_page_of_methods_has_the_parameters_that_are_counted_here():
    page = (pathlib.Path(__file__).parent.parent / "docs" / "methods.md").read_text(encoding="utf-8")
    counted = (66_362_880, 14_350_248, 66_955_008, 45_691_392, 52_779_264, 6_198_016, 10_936_576)
    assert re.findall(r"([\d,]+) \|$", page, re.M) == [f"{count:,}" for count in counted]


def test_cross_vocabulary_trains_and_its_student_loads(make, tiny_inputs, workdir, tmp_path):
    given = {"vocabulary": str(tiny_inputs.vocabulary), "hidden": 8, "heads": 2, "positions": 24, "predictions": 3}
    experiment = make("cross_vocabulary", **given, scores=1.0, neighbours=True)
    last = finish(experiment, workdir)
    terms = ("student_mlm", "shared", "states", "scores")
    assert last["loss"] == pytest.approx(sum(last[name] for name in terms), rel=1e-5)
    assert all(last[name] > 0 and last[f"kernel_gradient/{name}"] > 0 for name in terms)
    assert 0 < last["shared/share"] <= 1
    assert same(step.init_params(experiment)["teacher"], read_run(workdir, "teacher").params), "the teacher is frozen"
    check_loads(workdir, tmp_path / "model")


def test_cross_vocabulary_with_a_teacher_computed_once(make, tiny_inputs, workdir, tmp_path):
    given = {"vocabulary": str(tiny_inputs.vocabulary), "hidden": 8, "heads": 2, "positions": 24, "predictions": 3}
    experiment = cache.static(make("cross_vocabulary", **given, dropout=0.0), 1)
    cache.build(experiment, tmp_path / "cache", progress=False)
    cached = cache.using(experiment, tmp_path / "cache")
    one, other = finish(experiment, workdir), finish(cached, tmp_path / "cached")
    for name in ("student_mlm", "shared", "states", "loss"):
        assert other[name] == pytest.approx(one[name], rel=5e-3), name
