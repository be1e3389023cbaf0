"""The commands of tasks, in this process: predictions against `transformers`, scores, submissions, bad input."""

import dataclasses
import gzip
import io
import json
import re
import shutil
import sys
import zipfile

import jax
import numpy as np
import pytest
import torch
import transformers
from toy_models import random_params
from toy_tasks import asked, squad_file, write_glue

from jaxdistill import cli, evaluate_task, knobs, predict
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import SPECIALS, Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.hf import write_hf
from jaxdistill.initial import FromHuggingFace
from jaxdistill.run import Run
from jaxdistill.task_head import with_head
from jaxdistill.task_inputs import read_examples, sample
from jaxdistill.tasks.augmented import EXAMPLES
from jaxdistill.tasks.lines import unlabelled
from jaxdistill.tasks.read import find_task
from jaxdistill.tasks.rows import cut_rows
from jaxdistill.train import train

WORDS = ("the", "old", "house", "river", "red", "slow", "boat", "who", "sat", "mat", "##s", "is", ".", "?", "a", "b")
VOCABULARY = Vocabulary((*SPECIALS, *WORDS))
SHAPE = BertConfig(vocab=24, hidden=12, layers=2, heads=2, ffn=16, positions=24)
TEXTS = [
    "the old house is red .",
    "slow boats",
    "River\u2028boat, the mat?",
    "the red house " * 9,
    "a",
    "{b}",
    "mats is b",
]
PAIRS = [
    ("the old house", "a red mat."),
    ("slow", "the river " * 20),
    ("who\ufffd", "a b"),
    ("{a}", "b"),
    ("boats", "is"),
]
CONTEXT = "The old boat sat. A red house is the mat"
SEEDS = {"sst2": 6, "mrpc": 9, "mnli": 9}  # by which a model tells its texts apart
LABELS = {"sst2": ("positive", "negative")}  # in the head the other way round than in the task
SST2 = "sentence\tlabel\n" + "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(TEXTS[3:] + TEXTS[:2]))


def written(folder, name: str):
    """A model of random numbers with the head of a task."""
    config = with_head(SHAPE, find_task(name))
    config = dataclasses.replace(config, classifier=LABELS.get(name, config.classifier))
    write_hf(folder, config, random_params(config, SEEDS.get(name, 0)), VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    names = ("sst2", "mrpc", "stsb", "mnli", "squad", "squad2")
    write_hf(folder / "bert", SHAPE, random_params(SHAPE), VOCABULARY)
    return {name: written(folder / name, name) for name in names} | {"bert": folder / "bert"}


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    tests = "".join(f"{10 + number}\t{text}\n" for number, text in enumerate(TEXTS))
    columns = "index\ta\tb\tc\td\te\tf\tg\tsentence1\tsentence2\n"
    pairs = [f"{number}\t" + "x\t" * 7 + f"{one}\t{other}\n" for number, (one, other) in enumerate(PAIRS)]
    for name, split, text in (
        ("sst2", "train", SST2),
        ("sst2", "dev", SST2),
        ("sst2", "test", f"index\tsentence\n{tests}"),
        ("mnli", "test", columns + "".join(pairs)),
        ("mnli", "test_mismatched", columns + "".join(pairs[::-1])),
    ):
        write_glue(folder, name, split, text)
    texts = "".join(f"{number}\t{one}\t{other}\n" for number, (one, other) in enumerate(PAIRS[::-1]))
    (folder / "diagnostic").mkdir()
    (folder / "diagnostic" / "diagnostic.tsv").write_bytes(f"index\tsentence1\tsentence2\n{texts}".encode())
    return folder


@pytest.fixture(scope="module")
def run(glue, models, tmp_path_factory):
    """A finished run that knows its task."""
    made = knobs.load("finetune")(str(models["bert"]), "sst2", str(glue), batch=4, length=16, epochs=1.0)
    workdir = tmp_path_factory.mktemp("runs") / "run"
    with pytest.warns(UserWarning, match="fresh ones start at random"):
        train(dataclasses.replace(made, run=Run(devices=1, tensorboard=False)), workdir, notify=lambda line: None)
    return workdir


@pytest.fixture
def said(capsys, monkeypatch):
    """What a command prints, given some lines, when it succeeds."""

    def say(*arguments, lines: list[str] | bytes = ()) -> str:
        sent = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return say


@pytest.fixture
def refused(capsys, monkeypatch):
    """Runs a command that must fail with a message; what it had printed before."""

    def check(*arguments, match: str, lines: bytes = b"") -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 2
        found = capsys.readouterr()
        assert "Traceback" not in found.err and re.search(match, found.err), found.err
        return found.out

    return check


def objects(text: str) -> list[dict]:
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def oracle(folder, texts, kind="SequenceClassification"):
    """What `transformers` computes of texts or pairs, one at a time: its model, the encodings and the outputs."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder).eval()
    given = [(text,) if isinstance(text, str) else text for text in texts]
    encoded = [tokenizer(*text, truncation=True, return_tensors="pt", return_offsets_mapping=True) for text in given]
    with torch.no_grad():
        read = [model(**{name: row[name] for name in tokenizer.model_input_names}) for row in encoded]
    return model, encoded, read


def labels_of(folder, texts) -> list[dict[str, float]]:
    model, _, read = oracle(folder, texts)
    chances = [found.logits.softmax(-1)[0].tolist() for found in read]
    return [{model.config.id2label[number]: chance for number, chance in enumerate(row)} for row in chances]


def agree(found: list[dict], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for row, chances in zip(found, expected, strict=True):
        assert row["probabilities"] == pytest.approx(chances, rel=1e-4)
        assert row["label"] == max(chances, key=chances.get)


# Predictions.


def test_classes_of_lines_are_those_of_transformers(said, models):
    found = objects(said("predict", models["sst2"], "--task", "sst2", "--batch", 4, lines=TEXTS))
    agree(found, labels_of(models["sst2"], TEXTS))
    assert list(found[0]["probabilities"]) == ["negative", "positive"]
    assert len({row["label"] for row in found}) == 2, "the texts are told apart"


def test_without_a_task_the_head_says_what_is_predicted(said, refused, models):
    """Of classes, a score or spans; the first line tells whether the texts are single ones."""
    for name, lines in (
        ("sst2", TEXTS),
        ("mrpc", ["\t".join(pair) for pair in PAIRS]),
        ("stsb", [json.dumps({"first": one, "second": two}) for one, two in PAIRS]),
        ("squad2", [f"who sat?\t{CONTEXT}"]),
    ):
        alone, told = (
            objects(said("predict", models[name], *task, "--batch", 4, lines=lines)) for task in ((), ("--task", name))
        )
        assert alone == told
    refused(
        "predict", models["sst2"], lines=b"a\nb\tc\n", match="line 2 has a tab, but what stands before it is of one"
    )
    assert said("predict", models["sst2"]) == ""


def test_one_text_may_be_json_which_can_hold_any_character(said, models):
    text = "slow\nboats\tis"
    found = objects(said("predict", models["sst2"], "--task", "sst2", lines=[json.dumps({"text": text}), "{text}"]))
    agree(found, labels_of(models["sst2"], [text, "{text}"]))


def test_classes_in_capitals_are_the_task_s(said, models, glue, tmp_path):
    folder = shutil.copytree(models["sst2"], tmp_path / "shouted")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {number: name.upper() for number, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    asked = ("--task", "sst2", "--batch", 4)
    assert said("predict", folder, *asked, lines=TEXTS) == said("predict", models["sst2"], *asked, lines=TEXTS)
    shown = [said("evaluate", place, *asked, "--source", glue) for place in (folder, models["sst2"])]
    assert re.findall(r"\d+\.\d+%?", shown[0]) == re.findall(r"\d+\.\d+%?", shown[1]) != []
    made = knobs.load("pkd")(teacher=str(folder), task="sst2", source=str(glue), length=24, layers="none")
    assert made.models["teacher"].classifier == ("negative", "positive")
    kernels = [
        FromHuggingFace(str(place), whole=True)(made.models["teacher"], jax.random.key(0))["classifier"]["kernel"]
        for place in (folder, models["sst2"])
    ]
    assert np.array_equal(*kernels)


def test_pairs_have_a_tab_between_them_or_are_json(said, models):
    pairs = [*PAIRS, ("two\nlines\t", "b")]
    lines = ["\t".join(pair) for pair in PAIRS]
    lines[2] = json.dumps({"id": 7, "first": "who\ud800", "second": "a b"})
    lines.append(json.dumps({"second": "b", "first": "two\nlines\t"}))
    found = objects(said("predict", models["mrpc"], "--task", "mrpc", "--batch", 4, lines=lines))
    agree(found, labels_of(models["mrpc"], pairs))
    scores = objects(said("predict", models["stsb"], "--task", "stsb", "--batch", 4, lines=lines))
    expected = [read.logits.item() for read in oracle(models["stsb"], pairs)[2]]
    assert [row["score"] for row in scores] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("task", ["squad", "squad2"])
def test_an_answer_is_the_best_span_of_the_context(said, models, task):
    questions = ["who sat?", "the river", "a"]
    lines = [f"{questions[0]}\t{CONTEXT}", *(json.dumps({"question": q, "context": CONTEXT}) for q in questions[1:])]
    found = objects(said("predict", models[task], "--task", task, "--batch", 4, lines=lines))
    _, encoded, read = oracle(models[task], [(question, CONTEXT) for question in questions], "QuestionAnswering")
    for row, row_encoded, logits in zip(found, encoded, read, strict=True):
        starts, ends = logits.start_logits[0].numpy(), logits.end_logits[0].numpy()
        inside = [place for place, part in enumerate(row_encoded.sequence_ids(0)) if part == 1]
        spans = [(starts[first] + ends[last], first, last) for first in inside for last in inside if first <= last]
        best, first, last = max(spans)
        offsets = row_encoded["offset_mapping"][0]
        answer = CONTEXT[offsets[first][0] : offsets[last][1]]
        if task == "squad":
            assert row == {"answer": answer}
        else:
            no_answer = starts[0] + ends[0] - best
            assert row["no_answer"] == pytest.approx(no_answer, rel=1e-3, abs=1e-4)
            assert row["best"] == answer and row["answer"] == ("" if no_answer > 0 else answer)


def test_lines_of_a_file_and_of_a_split_are_predicted_alike_block_by_block(said, models, glue, tmp_path, monkeypatch):
    asked = ("predict", models["sst2"], "--task", "sst2", "--batch", 4)
    sent = b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode()
    expected = [row["probabilities"] for row in objects(said(*asked, lines=sent))]
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    monkeypatch.setattr(predict, "BLOCK", 3)
    agree(objects(said(*asked, "--input", tmp_path / "lines.txt.gz")), expected)
    found = objects(said(*asked, "--split", "test", "--source", glue))
    assert [row["id"] for row in found] == [str(10 + number) for number in range(len(TEXTS))]
    agree(found, expected)
    assert said(*asked) == ""


def test_json_is_read_by_its_keys_and_a_brace_is_a_brace(said, models):
    asked = ("predict", models["sst2"], "--task", "sst2", "--batch", 4)
    plain = "\n".join(["the old boat", "{the old} boat", "{}{"])
    mixed = "\n".join(['  {"id": 3, "text": "the old boat"}', "{the old} boat", "{}{"])
    assert said(*asked, lines=mixed.encode()) == said(*asked, lines=plain.encode()) != ""


def test_lines_are_read_as_they_are_predicted(refused, models, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 2)
    lines = "\n".join([*TEXTS[:4], "", "a"]).encode()
    asked = ("predict", models["sst2"], "--task", "sst2", "--batch", 4)
    assert len(objects(refused(*asked, lines=lines, match="standard input, line 5 is empty"))) == 4


@pytest.mark.parametrize(
    ("task", "line", "match"),
    [
        ("sst2", b"  ", "line 2 is empty"),
        ("sst2", b"a\tb", "line 2 has a tab, but sst2 is of one text"),
        ("sst2", b"caf\xe9", "line 2 is not UTF-8"),
        ("mrpc", b"a b", "line 2 has no tabs: mrpc is of first and second"),
        ("mrpc", b"a\tb\tc", "line 2 has 2 tabs"),
        ("mrpc", b"a\t ", "line 2 has an empty second"),
        ("mrpc", b'{"first": "a"', "line 2 begins as JSON does"),
        ("mrpc", b'{"a":' * 100_000, "line 2 begins as JSON does"),
        ("sst2", b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "line 2 begins as JSON does"),
        ("sst2", b'  {"text": 5}', "line 2 has no text 'text'"),
        ("sst2", b'{"id": 3, "sentence": "a"}', "line 2 has no text 'text'"),
        ("mrpc", b'{"first": "a", "second": 3}', "line 2 has no text 'second'"),
        ("squad", b'{"first": "a", "second": "b"}', "line 2 has no text 'question'"),
        ("squad", b'{"question": "", "context": "b"}', "line 2 has an empty question"),
    ],
)
def test_a_bad_line_is_named(refused, models, task, line, match):
    good = b"a\n" if task == "sst2" else b"a\tb\n"
    assert refused("predict", models[task], "--task", task, lines=good + line, match=match) == ""


def test_a_model_that_says_nan_predicts_nothing():
    task = find_task("sst2")
    config = with_head(SHAPE, task)
    params = jax.tree.map(lambda x: x * np.float32("nan"), random_params(config))
    rows = cut_rows(VOCABULARY, unlabelled(task, [("a",)]), 16)
    with pytest.raises(UserError, match="what the model says is not finite: its training has diverged"):
        evaluate_task.judge(config, params, rows, VOCABULARY, 16, batch=4)


# Submissions.


def test_a_submission_holds_every_task_that_a_model_is_named_for(said, models, glue, tmp_path):
    named = [f"{name}={models[name]}" for name in ("sst2", "mnli")]
    options = ("--split", "test", "--source", glue, "--out", tmp_path / "out.zip", "--batch", 4)
    text = said("predict", *named, *options)
    assert "SST-2, MNLI-m, MNLI-mm, AX; GLUE's server scores nothing without CoLA, MRPC" in text
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        found = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    best = [max(row, key=row.get) for row in labels_of(models["mnli"], PAIRS)]
    right = {
        "SST-2.tsv": [int(max(row, key=row.get) == "positive") for row in labels_of(models["sst2"], TEXTS)],
        "MNLI-m.tsv": best,
        "MNLI-mm.tsv": best[::-1],
        "AX.tsv": best[::-1],
    }
    assert found.keys() == right.keys()
    assert found["SST-2.tsv"] == [
        "index\tprediction",
        *(f"{10 + n}\t{int(x)}" for n, x in enumerate(right["SST-2.tsv"])),
    ]
    assert found["MNLI-m.tsv"] == ["index\tprediction", *(f"{n}\t{name}" for n, name in enumerate(best))]
    for name in ("MNLI-mm.tsv", "AX.tsv"):
        assert [line.split("\t")[1] for line in found[name][1:]] == best[::-1]
    (tmp_path / "MNLI").symlink_to(glue / "MNLI")
    options = ("--split", "test", "--source", tmp_path, "--out", tmp_path / "out.zip")
    with pytest.warns(UserWarning, match=r"AX is left out: .* has no diagnostic.tsv or AX.tsv"):
        assert "MNLI-m, MNLI-mm; GLUE" in said("predict", named[1], *options)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["sst2=sst2", "--out", "o.zip"], "--out is for GLUE's server"),
        (["sst2=sst2", "--split", "test", "--input", "x", "--out", "o.zip"], "and no --input"),
        (["sst2=sst2", "--split", "dev", "--out", "o.zip"], "sst2 dev is no test set of GLUE's server"),
        (["squad=squad", "--split", "test", "--out", "o.zip"], "squad test is no test set"),
        (["sst2=sst2", "sst2=sst2", "--split", "test", "--out", "o.zip"], "SST-2 is predicted twice"),
        (["sst2=sst2", "mnli=mnli"], "several models are for a submission"),
        (["sst2=sst2", "--split", "dev", "--input", "x"], "give one of them"),
        (["sst2=sst2", "--input", "x"], "x does not exist"),
        (["sst2", "--split", "test"], "sst2 does not tell whose test split: name the --task"),
        (["sst2", "--split", "test", "--out", "o.zip"], "sst2 does not tell its task: write TASK=sst2, or give --task"),
        (["sst2=sst2", "--split", "test", "--out", "o.tsv"], "--out o.tsv: GLUE's server takes a .zip"),
        (["sst2", "--task", "sst2", "--length", "25"], "sst2 has 24 positions: choose a --length"),
    ],
)
def test_what_predict_refuses(refused, models, glue, monkeypatch, arguments, match):
    monkeypatch.chdir(models["sst2"].parent)
    refused("predict", *arguments, "--source", glue, "--batch", 4, match=match)
    assert not (models["sst2"].parent / "o.zip").exists()


# Scores.


def test_a_run_scored_again_has_the_scores_that_it_ended_with(said, run, glue, tmp_path):
    ended = json.loads((run / "scores.json").read_text())["scores"]["model"]
    text = said("evaluate", run, "--json", tmp_path / "scores.json")
    assert text.splitlines()[0] == "sst2 dev, 6 examples" and f"{ended['accuracy']:.4f}" in text
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found == {str(run): {"task": "sst2", "split": "dev", "examples": 6, "scores": ended}}
    rows = objects(said("predict", run, "--split", "dev"))
    right = [line.split("\t")[1] for line in SST2.splitlines()[1:]]
    same = [row["label"] == ("negative", "positive")[int(label)] for row, label in zip(rows, right, strict=True)]
    assert np.mean(same) == pytest.approx(ended["accuracy"])


def test_runs_and_folders_are_scored_on_a_task(said, models, glue, run):
    texts, labels = zip(*(line.split("\t") for line in SST2.splitlines()[1:]), strict=True)
    best = [max(row, key=row.get) for row in labels_of(models["sst2"], texts)]
    right = np.mean([name == ("negative", "positive")[int(label)] for name, label in zip(best, labels, strict=True)])
    lines = said("evaluate", run, models["sst2"], "--task", "sst2", "--source", glue, "--batch", 4).splitlines()
    assert lines[0] == "sst2 dev, 6 examples" and lines[1].split() == ["model", "accuracy"]
    assert lines[3].split() == [str(models["sst2"]), f"{right:.4f}"] and lines[2].startswith(str(run))


def test_answers_are_scored(said, models, tmp_path):
    answers = [("The old boat", 0)]
    (tmp_path / "dev-v1.1.json").write_text(squad_file(asked("q", "who sat?", answers), context=CONTEXT))
    text = said("evaluate", models["squad"], "--task", "squad", "--source", tmp_path, "--batch", 4)
    assert text.splitlines()[0] == "squad dev, 1 examples" and {"f1", "exact"} <= set(text.splitlines()[1].split())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["bert", "--corpus", "C", "--task", "sst2"], "give one of them"),
        (["bert"], "bert is no run of a task: give --corpus HELD_OUT, or --task"),
        (["bert", "--corpus", "C", "--split", "dev"], "--split is for scores of a task"),
        (["sst2", "--task", "sst2", "--seed", "1"], "--seed is for scores on a corpus"),
        (["bert", "--task", "sst2"], "is of BertForMaskedLM: a fine-tuned one"),
        (["squad", "--task", "sst2"], "squad has no head for sst2, a task of classes"),
        (["sst2", "--task", "squad"], "sst2 has no head for squad, a task of spans"),
        (["sst2", "--task", "mrpc"], "tells positive, negative apart, but mrpc is of not_equivalent, equivalent"),
        (["sst2", "--task", "sst2", "--split", "test"], "the test split of sst2 has no labels"),
        (["sst2", "--task", "sst2", "--split", "valid"], "sst2 has no split 'valid'"),
        (["sst2", "--task", "sst3"], "sst3 is no task, and no file in "),
    ],
)
def test_what_evaluate_refuses(refused, models, glue, monkeypatch, arguments, match):
    monkeypatch.chdir(models["sst2"].parent)
    more = ["--source", glue] if "--corpus" not in arguments else []
    refused("evaluate", *arguments, *more, match=match)


def test_a_run_or_a_sweep_given_for_a_model_is_told_what_to_do(refused, run, models, glue, tmp_path):
    asked = ("--task", "sst2", "--source", glue, "--workdir", tmp_path / "out")
    refused("train", "pkd", "--teacher", run, *asked, match="is a run, no model yet: `jaxdistill export")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "seed-0").symlink_to(run)
    refused("predict", tmp_path / "sweep", match="holds the runs of a sweep: name one of them, such as .*seed-0")
    for folder in (tmp_path / "sweep", tmp_path):
        refused("evaluate", folder, match="holds the runs of a sweep: name one of them, such as .*sweep/seed-0")


def test_a_run_is_scored_on_its_own_task_unless_told(refused, run, models):
    refused("evaluate", run, "--split", "test_mismatched", match="sst2 has no split 'test_mismatched'")
    refused("evaluate", run, "--task", "mrpc", match="tells negative, positive apart, but mrpc is of")
    refused("evaluate", run, "--source", models["bert"], match="has no dev.tsv")
    refused("evaluate", run, "--role", "teacher", match="has no 'teacher'; its models are model")


# Augmentation.


def test_augment_writes_copies_of_the_training_examples(said, refused, models, glue, tmp_path, capsys):
    options = ("--task", "sst2", "--source", glue, "--model", models["bert"], "--copies", 2, "--out", tmp_path / "more")
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in ("augment", *options)])
    assert "one of the arguments --glove --no-glove is required" in capsys.readouterr().err
    assert "examples of 3; next:" in said("augment", *options, "--no-glove", "--examples", 3)
    rows = [json.loads(line) for line in (tmp_path / "more" / EXAMPLES).read_text().splitlines()]
    first = [(row["first"], row["label"]) for row in rows if "." not in row["id"]]
    labels = ("negative", "positive")
    chosen = sample(read_examples("sst2", "train", str(glue)), 3)
    assert first == [(text, labels[number]) for text, number in zip(chosen.first, chosen.labels, strict=True)]
    assert len(rows) > 3
    refused("augment", *options, "--no-glove", match="more exists already")
    other = [models["sst2"] if word == models["bert"] else word for word in options]
    refused("augment", *other, "--no-glove", match="has no mlm head: take a masked-language model, as it was before")
    asked = ("--teacher", models["sst2"], "--task", "sst2", "--source", glue, "--augmented", tmp_path / "more")
    match = "--examples would count augmented copies: leave it out here, and say it to `augment`"
    refused("train", "pkd", *asked, "--examples", 3, "--workdir", tmp_path / "run", match=match)


def test_what_is_set_aside_to_score_on_is_not_augmented(said, models, tmp_path):
    lines = [f"the old boat {'slow ' * number}\t{number % 2}" for number in range(20)]
    (tmp_path / "own.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    aside = set(read_examples(str(tmp_path / "own.tsv"), "dev").ids)
    options = ("--model", models["bert"], "--copies", 1, "--no-glove", "--out", tmp_path / "more")
    said("augment", "--task", tmp_path / "own.tsv", *options)
    rows = [json.loads(line) for line in (tmp_path / "more" / EXAMPLES).read_text().splitlines()]
    kept = {row["id"].partition(".")[0] for row in rows}
    assert aside and kept == set(map(str, range(20))) - aside


def test_the_help_says_how(capsys):
    for command, words in (
        ("evaluate", ("--corpus", "--task", "--split", "a fine-tuned run knows its task")),
        ("predict", ("--input", '{"question": "...", "context": "..."}', "sst2=FOLDER --split test")),
        ("augment", ("--no-glove", "--copies", "goes on where it was stopped")),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        text = capsys.readouterr().out
        assert stopped.value.code == 0 and all(word in text for word in words), text
