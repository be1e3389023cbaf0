"""Every config: trained in its smoke size, and its default shapes counted."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hf_folders import check_torch_agrees
from tiny import RUN

from jaxdistill import bert, hf, knobs, step, tree
from jaxdistill.bert import BertConfig
from jaxdistill.data.views import View
from jaxdistill.data.vocab import SPECIALS
from jaxdistill.errors import UserError
from jaxdistill.export import export, read_model, read_run
from jaxdistill.fill import fill_in
from jaxdistill.initial import FromHuggingFace, FromWords, Random
from jaxdistill.inputs import open_inputs
from jaxdistill.run import Run
from jaxdistill.terms import (
    AttentionScores,
    CosineStates,
    HiddenStates,
    Patience,
    Ramp,
    SharedTargets,
    SoftTargets,
    TaskLoss,
)
from jaxdistill.train import train

ONE = {"devices": 1, "log_every": 1, "save_every": 3, "score_rows": 8}
METHODS = {"cross_vocabulary", "distilbert", "extreme_plus", "mixed_vocab", "tinybert_general"}  # in test_methods.py
TASKS = {"finetune", "pkd", "tinybert_task"}  # in test_task_runs.py
VARIANTS = ("nokd", "dual", "down", "up")


def finish(experiment, workdir) -> dict[str, float]:
    """Trains to the end, and returns the last line of metrics."""
    assert train(experiment, workdir, notify=lambda line: None).finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == experiment.steps
    assert all(math.isfinite(value) for line in lines for value in line.values())
    return lines[-1]


def check_loads(workdir, folder) -> None:
    """Exports a run's student, or its only model, for `transformers`, and has it fill a mask."""
    export(workdir, folder, notify=lambda line: None)
    found = read_run(workdir)
    check_torch_agrees(folder, found.config, found.params)
    assert "[MASK]" not in fill_in(read_model(folder), "The old [MASK].")


def same(one, other) -> bool:
    one, other = tree.flatten(one), tree.flatten(other)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_every_config_is_tested_here():
    assert set(knobs.names()) == {"extreme", "mlm", *METHODS, *TASKS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_extreme_trains_and_its_student_loads(variant, tiny_inputs, workdir, tmp_path):
    last = finish(tiny_inputs.experiment(variant=variant, steps=3, run=ONE), workdir)
    roles = {"student"} if variant == "nokd" else {"student", "teacher", "bridge"}
    assert {name.split("/")[1] for name in last if name.startswith("gradient_norm/")} == roles
    assert all(last[f"gradient_norm/{role}"] > 0 for role in roles)
    terms = {"student_mlm"} | ({"teacher_mlm"} if roles > {"student"} else set())
    assert {name for name in last if name.endswith("_mlm") and "/" not in name} == terms
    assert ("projection" in last) == (variant in ("down", "up"))
    assert ("projection/explained/hidden_ffn" in last) == (variant in ("down", "up"))
    if variant != "nokd":
        teacher = read_run(workdir, "teacher")
        assert not same(teacher.params, hf.read_hf(tiny_inputs.teacher).params), "the teacher trains too"
    check_loads(workdir, tmp_path / "model")


def test_variants_are_paired(tiny_inputs):
    """The student starts from the same numbers and reads the same rows, whatever trains beside it."""
    made = {variant: tiny_inputs.experiment(variant=variant) for variant in VARIANTS}
    alone, joint = (step.init_params(made[variant])["student"] for variant in ("nokd", "up"))
    assert same(alone, joint)
    assert len({json.dumps(sorted(experiment.data.vocabularies.items())) for experiment in made.values()}) == 1
    assert len({experiment.data.views["student"] for experiment in made.values()}) == 1
    assert not same(step.init_params(tiny_inputs.experiment(variant="nokd", seed=1))["student"], alone)


def test_words_may_start_from_the_teacher_s_in_any_variant(tiny_inputs):
    expected = FromWords(str(tiny_inputs.teacher), vocabulary=str(tiny_inputs.vocabulary), base=Random(True))
    for variant in ("nokd", "up"):
        made = tiny_inputs.experiment(variant=variant, words=True, neighbours=True)
        assert made.start["student"] == expected


@pytest.fixture
def mlm(tiny_inputs):
    values = {"corpus": str(tiny_inputs.corpus), "vocabulary": str(tiny_inputs.teacher), "length": 16, "predictions": 3}
    values |= {"batch": 8, "steps": 3}

    def make(**changes):
        experiment = knobs.load("mlm")(**values | changes)
        return dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, **ONE, tensorboard=False))

    return make


def test_mlm_trains_from_scratch_and_loads(mlm, workdir, tmp_path):
    experiment = mlm(hidden=8, layers=2, heads=2, positions=16)
    assert finish(experiment, workdir)["mlm"] > 0
    assert experiment.models["model"].ffn == 32
    check_loads(workdir, tmp_path / "model")


def test_mlm_trains_a_model_further(mlm, tiny_inputs):
    """Not run: it differs from the other in its start alone."""
    experiment = mlm(start=str(tiny_inputs.teacher), dropout=0.0)
    read = hf.read_hf(tiny_inputs.teacher)
    assert experiment.start["model"] == FromHuggingFace(str(tiny_inputs.teacher))
    assert same(step.init_params(experiment)["model"], read.params)
    assert dataclasses.replace(experiment.models["model"], dropout=0.1, attention_dropout=0.1) == read.config


def test_a_student_goes_on_at_its_full_length(tiny_inputs, tmp_path):
    """Trained on rows of 16 with 32 positions, exported, then some steps on rows of 32."""
    short = {"variant": "nokd", "positions": 32, "steps": 2}
    finish(tiny_inputs.experiment(**short, run=ONE), tmp_path / "short")
    export(tmp_path / "short", tmp_path / "student", notify=lambda line: None)
    long = tiny_inputs.experiment(**short, length=32, start=str(tmp_path / "student"), run=ONE)
    before = read_run(tmp_path / "short").params
    assert same(step.init_params(long)["student"], before)
    finish(long, tmp_path / "long")
    moved = read_run(tmp_path / "long").params["embeddings"]["position"] - before["embeddings"]["position"]
    early, late = (np.abs(part).mean() for part in np.split(moved, 2))
    assert moved.shape == (32, 8) and late > early / 3


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"heads": 3}, "3 attention heads do not divide the width 8"),
        ({"layers": 3}, "a student of 3 layers can't follow a teacher of 2"),
        ({"positions": 8}, "length 16, but 'student' has 8 positions"),
        ({"length": 32, "positions": 32}, "length 32, but 'teacher' has \\d+ positions"),
        ({"predictions": 17}, "17 predictions do not fit a row of 16"),
        ({"mix": 1.5}, "mixing probability 1.5"),
        ({"masking": 0.0}, "masking rate 0.0"),
        ({"dropout": 1.0}, "dropout=1.0 is not a rate"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"teacher_learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"batch": 2**31}, "at most 2,147,483,647"),
        ({"steps": 0}, "steps=0"),
        ({"start": "folder", "neighbours": True}, "neighbours and words are for a random start"),
        ({"teacher": "no/such/folder"}, "no/such/folder does not exist"),
        ({"vocabulary": "no/vocab.txt"}, "no/vocab.txt does not exist"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_when_the_config_is_built(tiny_inputs, changes, match):
    with pytest.raises(UserError, match=match):
        tiny_inputs.experiment(**changes)


def test_a_reader_of_two_vocabularies_is_scored_on_both(tiny_inputs):
    made = tiny_inputs.experiment(variant="dual")
    term = dataclasses.replace(made.terms["teacher_mlm"], mixed=None)
    with pytest.raises(UserError, match="'teacher_mlm' must have the same `mixed`"):
        dataclasses.replace(made, terms={**made.terms, "teacher_mlm": term})
    plain = dataclasses.replace(made.data.views["teacher"], mixed_with=None)
    with pytest.raises(UserError, match="its view is mixed with None"):
        dataclasses.replace(made, data=dataclasses.replace(made.data, views={**made.data.views, "teacher": plain}))
    with pytest.raises(UserError, match="no `mixed` says how"):
        dataclasses.replace(made, mixed=None)


def test_what_can_not_train_or_be_scored_is_said_when_the_experiment_is_built(tiny_inputs):
    made = tiny_inputs.experiment(variant="nokd")
    head = dataclasses.replace(made.models["student"], pooler=True, classifier=("a", "b"))
    for changes, match in (
        (
            {"trains": (("student/layers/.*", True),)},
            r"`trains`: no rule matches the parameter 'student/\S+'; .*; end with",
        ),
        ({"optimizers": {}}, "student train without an optimizer"),
        ({"models": {"student": head}, "terms": {"task": TaskLoss()}}, "'task' is of a task, the data are of a corpus"),
        ({"data": dataclasses.replace(made.data, cache="folder")}, "a cache needs static masks"),
    ):
        with pytest.raises(UserError, match=match):
            dataclasses.replace(made, **changes)


@pytest.mark.parametrize("name", ["student/mlm", "loss", "mixed"])
def test_a_term_s_name_is_one_word_that_is_free(tiny_inputs, name):
    made = tiny_inputs.experiment(variant="nokd")
    with pytest.raises(UserError, match=f"can't be named '{name}'"):
        dataclasses.replace(made, terms={name: made.terms["student_mlm"]})


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper's job with the given width: BERT_BASE by its config alone, and 4,928 pieces."""
    folder = tmp_path_factory.mktemp("paper")
    base = BertConfig(vocab=30_522, hidden=768, layers=12, heads=12, ffn=3072)
    (folder / "config.json").write_text(json.dumps(hf.hf_names.config_json(base, None, "float32")))
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *(f"w{number}" for number in range(4928 - 5))]) + "\n")
    config = knobs.load("extreme")
    return lambda **changes: (
        config(corpus="-", vocabulary=str(folder / "vocab.txt"), teacher=str(folder), **changes).models
    )


# width, positions, parameters with pooler and next-sentence head, exported, printed in table 1 of 1909.11687
PAPER = [
    (48, 128, 591_970, 589_520, 1_775_910),
    (96, 512, 1_888_642, 1_879_136, 5_665_926),
    (192, 128, 6_389_698, 6_352_256, 19_169_094),
]


@pytest.mark.parametrize(("hidden", "positions", "whole", "exported", "printed"), PAPER)
def test_students_of_the_paper_have_its_parameters(paper, hidden, positions, whole, exported, printed):
    student = paper(hidden=hidden, positions=positions)["student"]
    assert bert.parameter_count(student) == exported
    assert bert.parameter_count(dataclasses.replace(student, pooler=True, nsp=True)) == whole
    assert printed == 3 * whole


def test_the_defaults_are_the_job_of_the_paper(paper):
    models = paper()
    teacher = dataclasses.replace(models["teacher"], pooler=True, nsp=True)
    assert bert.parameter_count(teacher) == 110_106_428
    assert (models["student"].hidden, models["student"].layers, models["student"].heads) == (48, 12, 12)
    assert models["student"].positions == 128
    defaults = {knob.name: knob.default for knob in knobs.of(knobs.load("extreme"))}
    expected = {"batch": 4096, "steps": 250_000, "length": 128, "predictions": 20, "masking": 0.15, "mix": 0.5}
    expected |= {"optimizer": "lamb", "learning_rate": 0.00125, "teacher": "google-bert/bert-base-uncased"}
    assert expected.items() <= defaults.items()


def plus(tiny_inputs, **changes):
    """`extreme_plus` with all of its terms."""
    values = tiny_inputs.values(**{"variant": "dual", "steps": 3, "soft": 1.0, "states": 0.5, "scores": 1.0} | changes)
    return dataclasses.replace(knobs.load("extreme_plus")(**values), run=Run(**RUN | ONE))


def test_a_model_may_read_two_views(tiny_inputs, workdir, tmp_path):
    last = finish(plus(tiny_inputs, after=1), workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    both = [line["student_mlm"] + line["teacher_mlm"] for line in lines]
    for line, plain in zip(lines, both, strict=True):
        share = 1.0 if line["step"] == 3 else 0.0
        more = line["soft"] + 0.5 * line["states"] + line["scores"]
        assert line["loss"] == pytest.approx(plain + share * more, rel=1e-5), "the ramp is at its end in the third step"
    assert all(last[f"kernel_gradient/{name}"] > 0 for name in ("soft", "states", "scores"))
    names = {name for name in last if name.startswith("gradient_norm/")}
    assert names == {f"gradient_norm/{role}" for role in ("student", "teacher", "bridge")}
    check_loads(workdir, tmp_path / "model")


def test_a_weight_of_parameters_may_change_too(tiny_inputs, workdir):
    made = tiny_inputs.experiment(variant="up", steps=3, run=ONE)
    ramp = dataclasses.replace(made.terms["projection"], weight=Ramp(0.0, 2.0, 0, 2))
    finish(dataclasses.replace(made, terms={**made.terms, "projection": ramp}), workdir)
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        expected = line["student_mlm"] + line["teacher_mlm"] + (line["step"] - 1) * line["projection"]
        assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_all_terms_go_together(tiny_inputs, workdir):
    """Every term there is on a corpus, over the student's own pieces and beside mixed training with projections."""
    made = plus(tiny_inputs, variant="up", hidden=12, heads=2)
    more = {"cosine": CosineStates("aligned"), "patience": Patience("aligned", layers="last")}
    last = finish(dataclasses.replace(made, terms={**made.terms, **more}), workdir)
    weights = {name: term.weight for name, term in made.terms.items()} | {"cosine": 1.0, "patience": 1.0}
    assert set(weights) == {
        "student_mlm",
        "teacher_mlm",
        "projection",
        "soft",
        "states",
        "scores",
        "cosine",
        "patience",
    }
    assert last["loss"] == pytest.approx(sum(weight * last[name] for name, weight in weights.items()), rel=1e-5)
    assert all(last[f"kernel_gradient/{name}"] > 0 for name in weights if name != "teacher_mlm")


def test_what_is_beyond_the_paper_is_left_out_by_its_weight(tiny_inputs):
    plain = tiny_inputs.experiment(variant="up", steps=3)
    assert plus(tiny_inputs, variant="up", soft=0.0, states=0.0, scores=0.0).terms == plain.terms
    assert plus(tiny_inputs, masked_only=True).terms["soft"].masked_only
    alone = plus(tiny_inputs, variant="nokd")
    assert (alone.name, set(alone.terms), set(alone.data.views)) == ("extreme_plus/nokd", {"student_mlm"}, {"student"})
    for after in (-1, 2, 3):
        with pytest.raises(UserError, match=rf"after={after}: .* the run has steps 0 to 2"):
            plus(tiny_inputs, after=after)
    with pytest.raises(UserError, match="mix=0: the teacher never learns"):
        plus(tiny_inputs, mix=0.0)
    with pytest.raises(UserError, match="AttentionScores needs equal heads"):
        plus(tiny_inputs, heads=4)


def twice_read(tiny_inputs, **changes):
    """The same, with another view."""
    made = plus(tiny_inputs)
    view = dataclasses.replace(made.data.views["aligned"], **changes)
    return dataclasses.replace(made, data=dataclasses.replace(made.data, views={**made.data.views, "aligned": view}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"masks_of": None}, "'soft' compares 'aligned' with 'student' position by position"),
        ({"probability": 0.5}, "same cut"),
        ({"mixed_with": None}, "'soft' must have the same `mixed`"),
    ],
    ids=str,
)
def test_views_of_other_pieces_are_not_compared(tiny_inputs, changes, match):
    with pytest.raises(UserError, match=match):
        twice_read(tiny_inputs, **changes)


def test_terms_and_views_that_nothing_gives_are_refused(tiny_inputs):
    made = plus(tiny_inputs)
    with pytest.raises(UserError, match="no model reads the view 'aligned'"):
        dataclasses.replace(made, reads={})
    lone = dataclasses.replace(made.data.views["aligned"], masks_of="nobody")
    with pytest.raises(UserError, match="has the masks of 'nobody', but the views are"):
        data = dataclasses.replace(made.data, views={**made.data.views, "aligned": lone})
        dataclasses.replace(made, terms={"mlm": made.terms["student_mlm"]}, data=data)
    with pytest.raises(UserError, match="names the model 'other'"):
        dataclasses.replace(made, terms={"soft": SoftTargets("other")})
    fused = dataclasses.replace(made.models["teacher"], attention="fused", attention_dropout=0.0)
    with pytest.raises(UserError, match="asks for the attention scores of 'aligned'"):
        dataclasses.replace(made, models={**made.models, "teacher": fused})


def test_a_view_that_is_only_followed_has_no_dropout(tiny_inputs):
    """The teacher trains by its mixed text; what it shows of the student's pieces is the same at every step."""
    made = knobs.load("extreme_plus")(**tiny_inputs.values(variant="dual", dropout=0.5, learning_rate=0.0))
    assert {view: made.learns(view) for view in made.reading()} == {"student": True, "teacher": True, "aligned": False}
    alone = dataclasses.replace(made, terms={"soft": made.terms["soft"]})
    inputs = open_inputs(made.data)
    batch = inputs.batches(made.data, 0)(0)
    still = dataclasses.replace(made.models["student"], dropout=0.0, attention_dropout=0.0)
    losses = {}
    for name, experiment in {
        "the teacher has dropout": dataclasses.replace(alone, models={**made.models, "student": still}),
        "the student has": alone,
    }.items():
        update, state = step.make_train_step(experiment), step.init_state(experiment)
        losses[name] = []
        for _ in range(2):
            state, metrics = update(state, batch)
            losses[name].append(float(metrics["soft"][0]))
    one, other = losses["the teacher has dropout"]
    assert one == other
    one, other = losses["the student has"]
    assert one != other


def test_views_of_other_pieces_are_compared_by_word(tiny_inputs, workdir):
    """Teacher and student each read their own cut; the words that are masked are the same."""
    made = tiny_inputs.experiment(variant="dual", run=ONE, steps=2, whole_words=True)
    terms = {"hidden": HiddenStates(layers="top", align="mean"), "attention": AttentionScores(align="first")}
    with pytest.raises(UserError, match="'shared' must have the same `mixed`"):
        dataclasses.replace(made, terms={"shared": SharedTargets()})
    experiment = dataclasses.replace(made, terms={**made.terms, **terms})
    last = finish(experiment, workdir)
    assert last["hidden"] > 0 and last["attention"] > 0 and last["kernel_gradient/hidden"] > 0
    masking = dataclasses.replace(made.data.masking, whole_words=False)
    with pytest.raises(UserError, match="compares views word by word"):
        dataclasses.replace(experiment, data=dataclasses.replace(made.data, masking=masking))


def test_a_frozen_teacher_of_another_vocabulary_gives_targets_over_shared_pieces(tiny_inputs, workdir):
    joint = tiny_inputs.experiment(variant="dual", run=ONE, steps=2, whole_words=True)
    experiment = dataclasses.replace(
        joint,
        mixed=None,
        data=dataclasses.replace(joint.data, views={"student": View("student"), "teacher": View("teacher")}),
        terms={"student_mlm": joint.terms["student_mlm"], "shared": SharedTargets()},
        optimizers={"student": joint.optimizers["student"]},
        trains=(("teacher/.*", False), (".*", True)),
    )
    last = finish(experiment, workdir)
    assert last["shared"] > 0 and 0 < last["shared/share"] < 1 and last["kernel_gradient/shared"] > 0
    assert last["loss"] == pytest.approx(last["student_mlm"] + last["shared"], rel=1e-5)
