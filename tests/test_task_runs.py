"""Runs on tasks from end to end: fine-tuning, distillation on a task, sweeps, and what `transformers` says of them."""

import dataclasses
import json
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import torch
import transformers

from jaxdistill import bert, cache, cli, evaluate_task, hf, knobs, sharding, task_head, taught, tree
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.dry_run import dry_run
from jaxdistill.errors import UserError
from jaxdistill.export import export, read_run
from jaxdistill.manifest import read_manifest
from jaxdistill.run import Run
from jaxdistill.sweep import read_grid
from jaxdistill.task_inputs import read_examples, read_task_inputs, sample, updates
from jaxdistill.tasks.read import read_split
from jaxdistill.terms import Patience
from jaxdistill.train import train

RUN = Run(devices=1, tensorboard=False, log_every=1, save_every=4)
SHORT = {"batch": 8, "length": 24, "learning_rate": 1e-2}


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """A table whose classes are told by one word, one of scores, and questions, with training and dev files."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = np.random.default_rng(0)
    for split, count in (("train", 40), ("dev", 24)):
        rows, scores, asked = ["text\tkind"], ["a\tb\tscore"], []
        for number in range(count):
            word = ("river", "bridge")[number % 2]
            text = " ".join(["the old sailor crosses the", word, *["at noon"] * int(draw.integers(0, 4))])
            rows.append(f"{text}\t{word}s")
            scores.append(f"{text}\tthe river\t{float(word == 'river')}")
            answer = {"text": f"the {word}", "answer_start": text.index(f"the {word}")}
            qa = {"id": str(number), "question": "what is crossed?", "answers": [answer]}
            asked.append({"context": text, "qas": [qa]})
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (folder / f"score-{split}.tsv").write_text("\n".join(scores) + "\n")
        squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": asked}]}
        (folder / f"{split}-v1.1.json").write_text(json.dumps(squad))
    return folder


def asked(tasks, kind="classes"):
    if kind == "spans":
        return {"task": "squad", "source": str(tasks)}
    prefix, columns = {
        "classes": ("", "first=text,label=kind"),
        "score": ("score-", "first=a,second=b,label=score,kind=score"),
    }[kind]
    files = {"task": str(tasks / f"{prefix}train.tsv"), "dev": str(tasks / f"{prefix}dev.tsv")}
    return files | {"columns": columns}


def make(config, **values):
    return dataclasses.replace(knobs.load(config)(**values), run=RUN)


def finish(experiment, workdir):
    result = train(experiment, workdir, notify=lambda line: None)
    assert result.finished
    return result


@pytest.fixture(scope="session")
def teacher(tasks, tiny_inputs, tmp_path_factory):
    """A model fine-tuned for the classes, exported."""
    folder = tmp_path_factory.mktemp("teacher")
    experiment = make("finetune", model=str(tiny_inputs.teacher), epochs=15.0, **asked(tasks), **SHORT)
    with pytest.warns(UserWarning, match="no weights for pooler and classifier"):
        result = finish(experiment, folder / "run")
    assert result.scores["model"]["accuracy"] == 1.0, "one word tells the classes apart"
    export(folder / "run", folder / "model", notify=lambda line: None)
    return folder / "model"


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    path, counts = tmp_path / "own.tsv", []
    for rows in (30, 50):
        path.write_text("sentence\tlabel\n" + "".join(f"the {x}\t{x % 2}\n" for x in range(rows)))
        counts.append(sum(len(read_examples(str(path), split)) for split in ("train", "dev")))
    assert counts == [30, 50]


@pytest.mark.parametrize("kind", ["classes", "score", "spans"])
@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_a_fine_tuned_model_says_the_same_in_transformers(kind, tasks, tiny_inputs, tmp_path):
    experiment = make("finetune", model=str(tiny_inputs.teacher), epochs=1.0, **asked(tasks, kind), **SHORT)
    scores = finish(experiment, tmp_path / "run").scores["model"]
    export(tmp_path / "run", tmp_path / "model", notify=lambda line: None)
    found = read_run(tmp_path / "run")
    inputs = read_task_inputs(experiment.data, "dev")
    rows = inputs.rows["model"]
    said = evaluate_task.judge(found.config, found.params, rows, found.vocabulary, 24, progress=False)
    auto = "AutoModelForQuestionAnswering" if kind == "spans" else "AutoModelForSequenceClassification"
    model = getattr(transformers, auto).from_pretrained(tmp_path / "model").eval()
    for row in (0, 1, len(rows) - 1):
        given = {"input_ids": torch.tensor(rows.ids[row])[None], "token_type_ids": torch.tensor(rows.types[row])[None]}
        with torch.no_grad():
            theirs = model(**given)
        if kind == "spans":
            np.testing.assert_allclose(said[row, : len(rows.ids[row]), 1], theirs.end_logits[0], atol=1e-5)
        else:
            np.testing.assert_allclose(said[row], theirs.logits[0], atol=1e-5)
    if kind == "classes":
        assert model.config.id2label == {0: "bridges", 1: "rivers"}
        right = np.mean([inputs.examples.labels[i] == said[i].argmax() for i in range(len(rows))])
        assert scores["accuracy"] == pytest.approx(right)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{next(iter(scores.values())):.4g}" in card and "fill-mask" not in card


def test_a_dry_run_counts_epochs_whose_last_batch_is_not_full(tasks, teacher, tmp_path):
    odd = make("finetune", model=str(teacher), epochs=2.0, **asked(tasks) | SHORT | {"batch": 32})
    assert odd.steps == 4 and dry_run(odd, tmp_path / "dry")[-1].endswith("positions, 2.00 epochs"), "40 rows"


def test_a_run_goes_on_from_an_earlier_checkpoint_to_the_same_bits(tasks, teacher, tmp_path):
    experiment = make("finetune", model=str(teacher), epochs=2.0, **asked(tasks), **SHORT)
    whole = finish(experiment, tmp_path / "run")
    params = tree.flatten(read_run(tmp_path / "run").params)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(experiment.steps))
    (tmp_path / "run" / "scores.json").unlink()
    again = finish(experiment, tmp_path / "run")
    same = tree.flatten(read_run(tmp_path / "run").params)
    assert all(np.array_equal(params[name], same[name]) for name in params) and again.scores == whole.scores


@pytest.mark.parametrize("kind", ["classes", "score", "spans"])
@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_patient_distillation_of_every_kind(kind, tasks, tiny_inputs, tmp_path):
    fine_tuned = make("finetune", model=str(tiny_inputs.teacher), epochs=1.0, **asked(tasks, kind), **SHORT)
    finish(fine_tuned, tmp_path / "teacher")
    export(tmp_path / "teacher", tmp_path / "model", notify=lambda line: None)
    common = {"teacher": str(tmp_path / "model"), "epochs": 1.0, **asked(tasks, kind), **SHORT}
    own = {"student": str(tiny_inputs.teacher)}
    experiment = make("pkd", layers="last", **own, **common)
    assert isinstance(experiment.terms["patience"], Patience)
    lines = finish(experiment, tmp_path / "run") and (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {"task", "soft", "patience"} <= set(json.loads(lines[-1]))
    before = hf.read_hf(tmp_path / "model", **hf.heads_of(experiment.models["teacher"])).params
    before, after = map(tree.flatten, (before, read_run(tmp_path / "run", "teacher").params))
    assert all(np.array_equal(before[name], after[name]) for name in before), "the teacher is frozen"


@pytest.mark.parametrize("kind", ["classes", "spans"])
@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_a_teacher_computed_once_teaches_the_same(kind, tasks, tiny_inputs, tmp_path):
    fine_tuned = make("finetune", model=str(tiny_inputs.teacher), epochs=1.0, **asked(tasks, kind), **SHORT)
    finish(fine_tuned, tmp_path / "teacher")
    export(tmp_path / "teacher", tmp_path / "model", notify=lambda line: None)
    common = {"teacher": str(tmp_path / "model"), "student": str(tiny_inputs.teacher), "epochs": 2.0}
    experiment = make("pkd", layers="last", **common, **asked(tasks, kind), **SHORT)
    assert experiment.running().keys() == {"student"}
    check_taught_alike(experiment, "none", {"student", "teacher"}, tmp_path)


def check_taught_alike(experiment, once, running, folder):
    """The same losses as with another `--once`, where these models run at every step."""
    anew = experiment.with_run(once=once)
    assert anew.running().keys() == running
    finish(experiment, folder / "once")
    finish(anew, folder / "anew")
    one, other = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("once", "anew")
    )
    for ours, theirs in zip(one, other, strict=True):
        for name in experiment.terms:
            assert ours[name] == pytest.approx(theirs[name], rel=5e-3, abs=1e-4), name


def test_states_of_all_positions_computed_once_teach_the_same(tasks, teacher, tiny_inputs, tmp_path):
    given = {"teacher": str(teacher), "student": str(tiny_inputs.teacher), "epochs": 2.0, **asked(tasks), **SHORT}
    experiment = make("tinybert_task", stage=1, **given)
    check_taught_alike(experiment, "heads", {"student", "teacher"}, tmp_path)
    settled = [read_manifest(tmp_path / name)["config"]["run"]["once"] for name in ("once", "anew")]
    assert settled == ["all", "heads"] and experiment.with_run(once="all").running().keys() == {"student"}
    assert make("tinybert_task", stage=2, **given).running().keys() == {"student"}


def test_states_are_kept_where_there_is_room(tasks, teacher, tiny_inputs, tmp_path, monkeypatch):
    given = {"teacher": str(teacher), "student": str(tiny_inputs.teacher), "epochs": 1.0, **asked(tasks), **SHORT}
    experiment = make("tinybert_task", stage=1, **given)
    inputs = read_task_inputs(experiment.data)
    whole = experiment.with_run(once="all")
    config, lengths = experiment.models["teacher"], inputs.rows["teacher"].lengths
    numbers = lengths * config.hidden * (config.layers + 1) + lengths**2 * config.layers * config.heads
    assert dict(taught.sizes(whole, inputs)) == {"teacher": 2 * numbers.sum()}
    for room, settled in ((4 * numbers.sum(), "all"), (4 * numbers.sum() - 2, "heads")):
        monkeypatch.setattr("jaxdistill.memory.available_bytes", lambda room=room: int(room))
        monkeypatch.setattr("jaxdistill.taught._KEPT", {})
        assert taught.settle(experiment, inputs).run.once == settled
        assert taught.settle(experiment, inputs, "all") == taught.settle(whole, inputs) == whole, "goes on as it began"
    monkeypatch.setattr("jaxdistill.memory.device_bytes", lambda device: 2**30)
    with pytest.raises(UserError, match="too much to keep here: compute it at every step, with --once heads"):
        finish(whole, tmp_path / "run")


@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_a_signal_is_heard_while_the_teacher_is_asked(tasks, teacher, tiny_inputs, tmp_path, monkeypatch):
    given = {"teacher": str(teacher), "student": str(tiny_inputs.teacher), "epochs": 1.0, **asked(tasks), **SHORT}
    experiment = make("tinybert_task", stage=2, **given)
    numbers, real, said = (signal.SIGTERM, signal.SIGINT), taught.taught, []
    before, there = [signal.getsignal(number) for number in numbers], []

    def asking(*args):
        there.append([signal.getsignal(number) for number in numbers])
        return real(*args)

    monkeypatch.setattr("jaxdistill.train.taught", asking)
    assert train(experiment, tmp_path / "run", notify=said.append).finished and there == [before]
    assert any(re.match(r"computed what teacher says of 40 rows in \d", line) for line in said)


def test_states_that_float16_does_not_hold_are_refused():
    scores = np.full((1, 1, 1, 4, 4), 7e4, np.float32)
    with pytest.raises(UserError, match="the teacher's scores are too large to be kept as float16: use --once heads"):
        taught._keep(iter([(np.array([0]), {"scores": scores})]), np.array([3]))


@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_tinybert_s_two_stages(tasks, teacher, tiny_inputs, tmp_path):
    common = {"teacher": str(teacher), "epochs": 1.0, **asked(tasks), **SHORT}
    one = make("tinybert_task", student=str(tiny_inputs.teacher), stage=1, **common)
    assert set(one.terms) == {"embeddings", "hidden", "attention"} and not one.models["student"].classifier
    finish(one, tmp_path / "one")
    export(tmp_path / "one", tmp_path / "student", notify=lambda line: None)
    two = make("tinybert_task", student=str(tmp_path / "student"), stage=2, **common)
    scores = finish(two, tmp_path / "two").scores
    assert set(two.terms) == {"soft"} and set(scores) == {"student", "teacher"} and scores["teacher"]["accuracy"] == 1.0
    with pytest.raises(UserError, match="no loss left"):
        make("tinybert_task", student=str(tiny_inputs.teacher), stage=1, embd=0.0, hidn=0.0, attn=0.0, **common)


def test_the_student_starts_from_the_first_layers_of_the_pre_trained_model(tasks, teacher, tiny_inputs):
    common = {"teacher": str(teacher), "length": 24, **asked(tasks)}
    experiment = make("pkd", base=str(tiny_inputs.teacher), layers="none", **common)
    assert experiment.models["student"].layers == 1 and set(experiment.terms) == {"task", "soft"}
    assert experiment.start["student"].layers == (0,) and experiment.start["student"].source == str(tiny_inputs.teacher)
    with pytest.raises(UserError, match="give one of them"):
        make("pkd", base=str(teacher), student=str(teacher), **common)


@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_a_sweep_names_the_best_and_goes_on_where_it_was_stopped(tasks, tiny_inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxdistill.resolve.matmul_rate", lambda device, dtype: 1.0)
    given = asked(tasks) | {"batch": "8", "length": "24", "epochs": "15", "model": str(tiny_inputs.teacher)}
    options = [f"--{name}={value}" for name, value in given.items()]
    command = ["finetune", "finetune", *options, f"--workdir={tmp_path / 'runs'}", "--seeds=2", "--devices=1"]
    command += ["--grid", "learning-rate=1e-6,1e-2"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "TFLOP a step of full rows" in printed and "takes at least" not in printed, "rows are mostly shorter"
    results = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert [outcome["setting"] for outcome in results] == [{"learning-rate": "1e-6"}, {"learning-rate": "1e-2"}]
    assert [len(outcome["scores"]["accuracy"]) for outcome in results] == [2, 2]
    means = [np.mean(outcome["scores"]["accuracy"]) for outcome in results]
    assert means[1] > means[0] and "best by accuracy" in printed and "learning-rate=1e-2/seed-0" in printed
    assert cli.main(command) == 0 and "steps" not in capsys.readouterr().err


def test_without_a_dev_split_a_tenth_is_set_aside(tasks, teacher):
    given = asked(tasks) | {"dev": ""}
    data = make("finetune", model=str(teacher), batch=4, length=24, epochs=1.0, **given).data
    parts = [read_task_inputs(data, split).examples for split in ("train", "dev")]
    assert sum(map(len, parts)) == 40 and 0 < len(parts[1]) < 12 and parts[0].split == "train"
    assert updates(data, 2.0) == 2 * -(-len(parts[0]) // 4)


def test_fewer_examples_are_of_all_classes_and_always_the_same(tasks, teacher, tmp_path):
    """Files may be sorted by class, as IMDb's are."""
    rows = "".join(f"row {number}\t{'good' if number < 50 else 'bad'}\n" for number in range(100))
    (tmp_path / "sorted.tsv").write_text("sentence\tlabel\n" + rows)
    data = make("finetune", model=str(teacher), task=str(tmp_path / "sorted.tsv"), examples=30, length=24).data
    found = read_task_inputs(data).examples
    assert len(found) == 30 and 5 < np.sum(found.labels == 0) < 25
    assert list(found.ids) == sorted(found.ids, key=int) == list(sample(read_examples(data.task, "train"), 30).ids)
    assert set(found.ids) > set(sample(read_examples(data.task, "train"), 20).ids)
    assert len(sample(found, 1000)) == 30


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["alpha"], "write each knob once"),
        (["alpha=1,1"], "write each knob once"),
        (["alpha=1", "alpha=2"], "write each knob once"),
        (["seed=1,2"], "seeds are --seeds"),
        (["lr=1,2", "learning_rate=1"], "write each knob once"),
        (["task=sst2,mrpc"], "scores of other examples do not compare"),
    ],
)
def test_a_bad_grid_is_refused(words, match):
    with pytest.raises(UserError, match=match):
        read_grid(words)


def test_a_required_knob_may_be_in_the_grid(tasks, tiny_inputs, tmp_path, capsys):
    given = [f"--{name}={value}" for name, value in (asked(tasks) | {"length": 24}).items()]
    grid = ["--grid", f"model={tiny_inputs.teacher}", "lr=1e-3,1e-2"]
    assert cli.main(["finetune", "finetune", *given, f"--workdir={tmp_path / 'runs'}", "--seeds=0", *grid]) == 2
    assert "--seeds 0: give at least 1" in capsys.readouterr().err


def test_what_does_not_fit_the_task_is_refused(tasks, teacher, tiny_inputs):
    with pytest.raises(UserError, match="tells bridges, rivers apart, but sst2 is of negative, positive"):
        make("pkd", teacher=str(teacher), task="sst2", source=str(tasks))
    with pytest.raises(UserError, match="has no head for squad, a task of spans"):
        make("pkd", teacher=str(teacher), **asked(tasks, "spans"))
    with pytest.raises(UserError, match="a fine-tuned one ends with"):
        make("pkd", teacher=str(tiny_inputs.teacher), **asked(tasks))
    with pytest.raises(UserError, match="rows of length 64, but 'model' has 24 positions"):
        make("finetune", model=str(tiny_inputs.teacher), length=64, **asked(tasks))
    with pytest.raises(UserError, match="has no pooler"):
        make("finetune", model=str(tiny_inputs.teacher), pooling="relu", **asked(tasks, "spans"))
    stages = {"teacher": str(teacher), "student": str(tiny_inputs.teacher), **asked(tasks)}
    with pytest.raises(UserError, match="temperature is a knob of stage 2"):
        make("tinybert_task", stage=1, temperature=2.0, **stages)
    with pytest.raises(UserError, match="attn is a knob of stage 1"):
        make("tinybert_task", stage=2, attn=0.0, **stages)
    with pytest.raises(UserError, match="epochs=0"):
        make("finetune", model=str(tiny_inputs.teacher), epochs=0.0, length=24, **asked(tasks))


@pytest.mark.filterwarnings("ignore:.*has no weights for")
def test_a_setting_that_diverges_is_noted_and_the_others_go_on(tasks, tiny_inputs, tmp_path, capsys):
    given = asked(tasks) | {"batch": "8", "length": "24", "epochs": "1", "model": str(tiny_inputs.teacher)}
    options = [f"--{name}={value}" for name, value in given.items()]
    command = ["finetune", "finetune", *options, f"--workdir={tmp_path / 'runs'}", "--devices=1", "--log-every=1"]
    assert cli.main([*command, "--grid", "learning-rate=1e35,1e-3"]) == 0
    printed = capsys.readouterr().out
    assert "1 diverged" in printed and "best by accuracy: " in printed and "learning-rate=1e-3/seed-0" in printed
    results = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert [outcome["diverged"] for outcome in results] == [1, 0] and results[0]["scores"] == {}
    for more, match in (
        (["--seed", "3"], "--seed: seeds are"),
        (["--grid", "epochs=1,2"], "--epochs: seeds are"),
        (["--grid"], "--grid needs knobs with their values"),
        (["--grid=lr"], "write each knob once"),
        (["--accept=all", "--grid=lr=1e-3"], "--accept all: there are"),
    ):
        assert cli.main([*command, *more]) == 2
        assert match in capsys.readouterr().err


def test_what_a_teacher_says_is_kept_for_these_very_rows(tasks, tiny_inputs, tmp_path):
    """Windows of another stride are other rows, though examples and length are the same."""
    shape = task_head.with_head(hf.read_config(tiny_inputs.teacher), read_split("squad", "train", str(tasks)).task)
    params = bert.init(shape, jax.random.key(0))
    vocabulary = hf.read_hf(tiny_inputs.teacher).vocabulary
    hf.write_hf(tmp_path / "model", shape, params, vocabulary)
    given = {"teacher": str(tmp_path / "model"), "student": str(tmp_path / "model"), "task": "squad"}
    found = []
    for stride in (2, 3):
        made = make("pkd", source=str(tasks), length=20, stride=stride, batch=8, **given)
        inputs = read_task_inputs(made.data)
        place = sharding.batch_sharding(sharding.make_mesh(1, 1))
        read = taught.taught(made, inputs, {"teacher": params}, place, print)["teacher"]
        said = read(np.arange(len(inputs)), 20)
        found.append((len(inputs), said["spans"].shape[0], said["first"].shape[1:]))
    assert found[0][0] != found[1][0] and [rows for rows, *_ in found] == [rows for _, rows, _ in found]
    assert found[0][2] == (shape.layers, shape.hidden)


def test_the_headline_of_squad_is_f1(tasks, teacher, tiny_inputs, tmp_path):
    made = make("finetune", model=str(tiny_inputs.teacher), epochs=0.2, **asked(tasks, "spans"), **SHORT)
    with pytest.warns(UserWarning, match="no weights for spans"):
        assert list(finish(made, tmp_path / "run").scores["model"]) == ["f1", "exact"]


def test_models_of_other_pieces_and_caches_are_refused(tasks, teacher, tiny_inputs, tmp_path):
    config = dataclasses.replace(hf.read_config(tiny_inputs.teacher), vocab=60)
    small = read_vocabulary(tiny_inputs.vocabulary)
    hf.write_hf(tmp_path / "small", config, bert.init(config, jax.random.key(0)), small)
    given = {"teacher": str(teacher), "student": str(tmp_path / "small"), "length": 24, **asked(tasks)}
    for method in ({"config": "pkd"}, {"config": "tinybert_task", "stage": 2}):
        with pytest.raises(UserError, match="cut text differently"):
            make(**method, **given)
    with pytest.raises(UserError, match="a cache is of a corpus"):
        cache.static(make("finetune", model=str(teacher), length=24, **asked(tasks)), 0)
    with pytest.raises(UserError, match="a dev file is for files of your own"):
        make("finetune", model=str(teacher), length=24, task="imdb", source=str(tasks), dev="x.tsv")
    with pytest.raises(UserError, match="batch=0"):
        make("finetune", model=str(teacher), length=24, batch=0, **asked(tasks))
