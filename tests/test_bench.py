"""Size and speed of every kind of model, with times of our own, against files on disk and arithmetic by hand."""

import dataclasses
import json
import shutil

import pytest
from hf_folders import OURS, WEIGHTS, change_config, change_weights, drop, random_params, shard

from jaxdistill import bench, cli, hf
from jaxdistill.errors import UserError
from jaxdistill.export import export, read_run
from jaxdistill.train import train

NONE = dataclasses.replace(OURS, mlm=False)
FOLDERS = {
    "masked": (OURS, "masked words"),
    "classes": (dataclasses.replace(NONE, layers=2, pooler=True, classifier=("no", "yes")), "2 classes"),
    "score": (
        dataclasses.replace(NONE, layers=1, types=0, eps=1e-12, pooler=True, pooling="relu", classifier=("score",)),
        "a score",
    ),
    "spans": (dataclasses.replace(NONE, spans=True), "spans"),
    "encoder": (NONE, "none"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    for name, (config, _) in FOLDERS.items():
        hf.write_hf(folder / name, config, random_params(config), None)
    return folder


@pytest.fixture(scope="module")
def run(tiny_inputs, tmp_path_factory):
    """A finished run on a corpus."""
    folder = tmp_path_factory.mktemp("bench") / "run"
    changes = {"variant": "nokd", "steps": 2, "held_out": str(tiny_inputs.held_out)}
    train(tiny_inputs.experiment(**changes, run={"devices": 1}), folder, notify=lambda line: None)
    return folder


@pytest.fixture
def timed(monkeypatch):
    """In the place of a clock: milliseconds of a row in each round, a tenth of which a row of a batch takes."""

    def use(times):
        asked = []
        monkeypatch.setattr(bench, "reading", lambda config, params, length, rows: asked.append((length, rows)) or rows)
        monkeypatch.setattr(
            bench,
            "turns",
            lambda calls, rounds: {
                name: [1e-3 * each * (1 if rows == 1 else rows / 10) for each in times[name]]
                for name, rows in calls.items()
            },
        )
        return asked

    return use


@pytest.fixture
def task_run(run, tmp_path):
    """A copy of the run that says it was of a task, and what it scored there."""

    def make(name, task, corpus, **scores):
        copy = shutil.copytree(run, tmp_path / name)
        for file, change in (
            ("experiment.json", lambda content: content["config"]["data"].update(task=task)),
            ("scores.json", lambda content: content.update(corpus=corpus, scores={"student": scores})),
        ):
            content = json.loads((copy / file).read_text())
            change(content)
            (copy / file).write_text(json.dumps(content))
        return str(copy)

    return make


def test_every_kind_of_model_is_read_with_its_own_head(folders, timed):
    asked = timed({name: [1.0] for name in FOLDERS})
    found = bench.bench([str(folders / name) for name in FOLDERS], rows=4)
    assert {name: model.head for name, model in found.models.items()} == {
        name: head for name, (_, head) in FOLDERS.items()
    }
    for name, (config, _) in FOLDERS.items():
        sizes = [leaf.size for leaf in _leaves(random_params(config))]
        assert found.models[name].parameters == sum(sizes)
        assert found.models[name].megabytes == (folders / name / WEIGHTS).stat().st_size / 1e6
    assert (found.reference, found.length, found.measure) == ("masked", 20, "")
    assert asked == [(20, 1)] * 5 + [(20, 4)] * 5, "20 positions are fewer than 128"


def _leaves(tree):
    return [leaf for part in tree.values() for leaf in (_leaves(part) if isinstance(part, dict) else [part])]


def test_figures_are_medians_quartiles_and_ratios_to_the_largest(folders, timed):
    times = {"masked": [8.0, 6.0, 7.0, 20.0, 4.0], "classes": [2.0, 1.0, 3.0, 5.0, 4.0]}
    timed(times)
    for order in (["masked", "classes"], ["classes", "masked"]):
        found = bench.bench([str(folders / name) for name in order], rows=10)
        small, large = found.models["classes"], found.models["masked"]
        assert found.reference == "masked" and (large.smaller, large.faster, large.faster_batches) == (1, 1, 1)
        assert dataclasses.astuple(small.latency) == pytest.approx((3.0, 2.0, 4.0))
        assert dataclasses.astuple(large.latency) == pytest.approx((7.0, 6.0, 8.0))
        assert dataclasses.astuple(small.throughput) == pytest.approx([1e4 / each for each in (3, 4, 2)])
        assert small.smaller == large.parameters / small.parameters > 1
        assert (small.faster, small.faster_batches) == pytest.approx((7 / 3, 7 / 3))


def test_shards_and_a_file_in_half_precision_count_as_they_lie(folders, timed, tmp_path):
    timed({"shards": [1.0], "half": [1.0]})
    shutil.copytree(folders / "masked", tmp_path / "shards")
    hf.write_hf(tmp_path / "half", OURS, random_params(OURS), None, dtype="float16")
    shard(tmp_path / "shards")
    found = bench.bench([str(tmp_path / "shards"), str(tmp_path / "half")]).models
    whole = sum(path.stat().st_size for path in (tmp_path / "shards").glob("model-*"))
    assert found["shards"].megabytes == whole / 1e6
    assert 0.4 < found["half"].megabytes / found["shards"].megabytes < 0.6
    assert found["shards"].parameters == found["half"].parameters


def test_a_run_counts_as_float32_and_has_its_score(run, folders, timed):
    timed({"run": [1.0], "encoder": [1.0]})
    found = bench.bench([str(run), str(folders / "encoder")], scored=True)
    parameters = sum(leaf.size for leaf in _leaves(read_run(run).params))
    saved = json.loads((run / "scores.json").read_text())["scores"]["student"]
    made = found.models["run"]
    assert (made.parameters, made.megabytes) == (parameters, 4 * parameters / 1e6)
    assert (made.score, found.models["encoder"].score) == (saved["word_accuracy"], None)
    assert found.measure == "held-out words right"


def test_only_scores_of_the_same_examples_stand_side_by_side(run, task_run, timed):
    one = task_run("one", "sst2", "a" * 64, accuracy=0.9, other=0.1)
    two = task_run("two", "sst2", "a" * 64, accuracy=0.8, other=0.2)
    three = task_run("three", "rte", "b" * 64, accuracy=0.7)
    timed({name: [1.0] for name in ("one", "two", "three", "run")})
    found = bench.bench([one, two, three, str(run)])
    assert found.measure == "sst2, dev: accuracy"
    assert {name: model.score for name, model in found.models.items()} == {
        "one": 0.9,
        "two": 0.8,
        "three": None,
        "run": None,
    }


def test_an_exported_folder_has_the_score_of_its_run(task_run, folders, timed, tmp_path):
    exports = []
    for name, digest, score in (("one", "a" * 64, 0.9), ("two", "a" * 64, 0.8), ("three", "b" * 64, 0.7)):
        export(task_run(name, "sst2", digest, accuracy=score, other=0.1), tmp_path / "out" / name)
        exports.append(str(tmp_path / "out" / name))
    (folder := shutil.copytree(folders / "classes", tmp_path / "theirs")).joinpath("README.md").write_text("---\n: [\n")
    timed({name: [1.0] for name in ("one", "two", "three", "theirs")})
    found = bench.bench([*exports, str(folder)], scored=True)
    assert found.measure == "sst2, dev: accuracy"
    assert [model.score for model in found.models.values()] == [0.9, 0.8, None, None]


def test_the_command(run, folders, tmp_path, capsys):
    sources = [str(run), str(folders / "classes"), str(folders / "masked")]
    options = ["--length", "8", "--rows", "4", "--rounds", "2"]
    files = ["--json", str(tmp_path / "bench.json"), "--picture", str(tmp_path / "bench.svg")]
    assert cli.main(["bench", *sources, *options, *files]) == 0
    text = capsys.readouterr().out
    header, *rows = text.splitlines()
    saved = json.loads((tmp_path / "bench.json").read_text())
    assert (saved["length"], saved["rows"], saved["rounds"], saved["reference"]) == (8, 4, 2, "masked")
    assert header.split()[:3] == ["model", "head", "score"]
    for row, (name, model) in zip(rows, saved["models"].items(), strict=False):
        assert row.startswith(name) and f"{model['parameters']:,}" in row and f"{model['smaller']:.3g}x" in row
        assert model["latency"]["low"] <= model["latency"]["median"] <= model["latency"]["high"]
        assert model["latency"]["low"] > 0 and model["throughput"]["low"] > 0
    assert rows[1].split()[3] == "-" and "Smaller and faster: than masked." in " ".join(text.split())
    drawn = (tmp_path / "bench.svg").read_text()
    assert "<!-- run -->" in drawn and "<!-- classes -->" not in drawn and "held-out words right" in drawn


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["{folders}/spans", "--length", "21"], "spans has 20 positions: choose a --length of at most that"),
        (["{folders}/spans", "{folders}/spans"], "is given twice"),
        (["{folders}"], "is neither a run"),
        (["{folders}/spans", "--picture", "{new}/a.svg"], "no model has a score to draw"),
        (["{folders}/spans", "--picture", "{new}/a.pdf"], "ends with .png or .svg"),
        (["{folders}/spans", "--picture", ""], "ends with .png or .svg"),
        (["{folders}/spans", "--json", "{folders}"], "is a folder: name a file in it"),
    ],
    ids=["long", "twice", "nothing", "no score", "kind", "empty", "json"],
)
def test_what_can_not_be_measured_is_refused_before_anything_is(
    folders, tmp_path, capsys, monkeypatch, arguments, match
):
    monkeypatch.setattr(bench, "reading", None)
    given = [argument.format(folders=folders, new=tmp_path / "new") for argument in arguments]
    assert cli.main(["bench", *given]) == 2
    assert match in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_fine_tuned_folder_without_its_head_is_not_taken_for_an_encoder(folders, tmp_path):
    broken = shutil.copytree(folders / "classes", tmp_path / "broken")
    change_weights(broken, drop("classifier.weight"))
    with pytest.raises(UserError, match=r"classifier\.weight"):
        bench.bench([str(broken)])
    change_config(broken, id2label={"0": "no", "2": "yes"})
    with pytest.raises(UserError, match="must name every class from 0 on"):
        bench.bench([str(broken)])
