"""Runs and folders side by side: scores, sizes, speeds and costs against what the runs' own files say."""

import dataclasses
import itertools
import json
import re
import shutil
import sys

import jax
import pytest
from matplotlib.text import Text

from jaxdistill import cli, compare, hf, picture
from jaxdistill import step as steps
from jaxdistill.errors import UserError
from jaxdistill.export import read_run
from jaxdistill.measure import measure
from jaxdistill.report import comparison_table, write_comparison
from jaxdistill.train import train

STEPS, POSITIONS = 4, 8 * 16


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(compare, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def runs(tiny_inputs, tmp_path_factory):
    """Two finished runs, whose checkpoints of steps 2 and 4 are kept, and their experiments."""
    folder, made = tmp_path_factory.mktemp("compare"), {}
    for variant in ("nokd", "dual"):
        changes = {"variant": variant, "steps": STEPS, "held_out": str(tiny_inputs.held_out)}
        made[variant] = tiny_inputs.experiment(**changes, run={"devices": 1, "log_every": 1})
        train(made[variant], folder / variant, notify=lambda line: None)
    return folder, made


@pytest.fixture
def altered(runs, tmp_path):
    """Copies a run under a new name, and changes values in one of its JSON files."""

    def alter(variant, name, file=None, change=None):
        copy = shutil.copytree(runs[0] / variant, tmp_path / name)
        if file:
            content = json.loads((copy / file).read_text())
            change(content)
            (copy / file).write_text(json.dumps(content))
        return copy

    return alter


def of(*sources, **options):
    return compare.compare([str(source) for source in sources], **options)


def cells(table: str) -> list[list[str]]:
    """The header and rows of a table, without its notes."""
    lines = itertools.takewhile(lambda line: "  " in line, table.splitlines())
    return [re.split(r"\s{2,}", line) for line in lines]


@pytest.fixture(scope="module")
def both(runs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "SECONDS", 0.0)
        return of(runs[0] / "nokd", runs[0] / "dual")


def test_finished_runs_show_what_they_ended_with(runs, both):
    for variant, model in both.models.items():
        saved = json.loads((runs[0] / variant / "scores.json").read_text())["scores"]["student"]
        assert dataclasses.asdict(model.scores) == saved
        assert (model.role, model.source, dict(model.notes)) == ("student", str(runs[0] / variant), {})
    assert list(both.models) == ["nokd", "dual"] and both.length == 16


def test_size_speed_and_cost(runs, both):
    for variant, model in both.models.items():
        assert model.parameters == sum(leaf.size for leaf in jax.tree.leaves(read_run(runs[0] / variant).params))
        assert 0 < model.latency < compare.BATCH / model.throughput * 2
        lines = [json.loads(line) for line in (runs[0] / variant / "metrics.jsonl").read_text().splitlines()]
        paces = [line["positions_per_second"] for line in lines if line["step"] > 1]
        assert len(paces) == STEPS - 1 and "positions_per_second" not in lines[0]
        seconds = sum(POSITIONS / pace for pace in paces) * STEPS / (STEPS - 1)
        flops = STEPS * steps.flops_per_step(runs[1][variant])
        assert model.cost == compare.Cost(STEPS, STEPS, STEPS * POSITIONS, pytest.approx(seconds), flops, "8 x cpu")
    assert both.models["dual"].cost.flops > 2 * both.models["nokd"].cost.flops


def test_a_folder_beside_runs_is_scored_with_them_now(runs, tiny_inputs):
    sources = [runs[0] / "dual", tiny_inputs.teacher]
    found, expected = of(*sources).models, measure(sources, tiny_inputs.held_out)
    assert found["dual"].scores == expected[f"{sources[0]} student"]
    assert found["teacher"].scores == expected[str(tiny_inputs.teacher)]
    assert (found["teacher"].cost, found["teacher"].role) == (None, None)
    assert "does not say what its training took" in found["teacher"].notes["seconds"]
    with_corpus = of(*sources, corpus=str(tiny_inputs.held_out))
    assert {name: model.scores for name, model in with_corpus.models.items()} == {
        name: model.scores for name, model in found.items()
    }


def test_a_run_that_is_not_finished_says_so_and_is_scored_now(runs, altered):
    unfinished = altered("dual", "half")
    shutil.rmtree(unfinished / "checkpoints" / "4")
    model = of(runs[0] / "nokd", unfinished).models["half"]
    assert model.notes == {"step": "not finished: after step 2 of 4"}
    assert (model.cost.step, model.cost.positions) == (2, 2 * POSITIONS)
    pace = json.loads((unfinished / "metrics.jsonl").read_text().splitlines()[1])["positions_per_second"]
    assert model.cost.seconds == pytest.approx(2 * POSITIONS / pace), "the first step compiled: as fast as the second"
    saved = json.loads((runs[0] / "dual" / "scores.json").read_text())["scores"]["student"]
    assert dataclasses.asdict(model.scores) != saved, "those are of step 4"


def test_runs_of_different_texts_are_not_compared_without_a_corpus(runs, altered, tiny_inputs, tmp_path):
    other = altered("dual", "other", "scores.json", lambda saved: saved.update(corpus="0" * 64))
    manifest = json.loads((other / "experiment.json").read_text())
    manifest["config"]["data"]["held_out"] = str(tmp_path)
    (other / "experiment.json").write_text(json.dumps(manifest))
    found = of(runs[0] / "nokd", other)
    assert found.models["nokd"].scores is not None and found.models["other"].scores is None
    assert "--corpus" in found.models["other"].notes["scores"] and "the others were scored on other" in found.scored
    _, _, row = cells(comparison_table(found))
    assert row[:6] == ["other", "- [1]", "-", "-", "-", "-"]
    assert all(model.scores for model in of(runs[0] / "nokd", other, corpus=str(tiny_inputs.held_out)).models.values())


@pytest.mark.parametrize("change", [{"length": 15}, {"masking": {"rate": 0.2}}], ids=str)
def test_runs_that_were_scored_otherwise_are_scored_again(runs, altered, monkeypatch, change):
    def merge(content):
        data = content["config"]["data"]
        data |= {name: data[name] | value if isinstance(value, dict) else value for name, value in change.items()}

    asked = []
    monkeypatch.setattr(compare, "score", lambda models, held_out: asked.append(held_out) or {})
    of(runs[0] / "nokd", altered("dual", "other", "experiment.json", merge))
    assert len(asked) == 1 and asked[0].windows.length == 16, "as the first run was"


def test_folders_alone_have_no_text_to_be_scored_on(tiny_inputs, tmp_path):
    folder = shutil.copytree(tiny_inputs.teacher, tmp_path / "copy")
    found = of(tiny_inputs.teacher, folder)
    assert not any(model.scores for model in found.models.values()) and "no text" in found.scored
    assert write_comparison(found, tmp_path / "out") == ("compare.json", "compare.md")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.json", "compare.md"]


def test_what_a_run_did_not_note_is_missing_and_not_guessed(runs, altered):
    old = altered("nokd", "old", "experiment.json", lambda content: content.pop("flops_per_step"))
    (old / "metrics.jsonl").unlink()
    found = of(old)
    assert (found.models["old"].cost.flops, found.models["old"].cost.seconds) == (None, None)
    table = comparison_table(found)
    assert cells(table)[1][-3:] == ["- [1]", str(STEPS * POSITIONS), "- [2]"]
    assert re.search(r"^\[1\] .*metrics.jsonl does not time", table, re.M) and re.search(r"^\[2\] .*again", table, re.M)


def test_the_time_of_steps_is_that_of_a_loop_over_them():
    lines = [
        {"step": 3, "positions_per_second": 50.0},
        {"step": 5, "positions_per_second": 20.0},
        {"step": 6},  # resumed here: it compiled
        {"step": 10, "positions_per_second": 10.0},
        {"step": 99, "positions_per_second": 1.0},
    ]
    each = [100 / 50] * 3 + [100 / 20] * 2 + [100 / 10] * 4
    assert compare.training_seconds(lines, 10, 100) == pytest.approx(sum(each) / 9 * 10)
    assert compare.training_seconds(lines, 5, 100) == pytest.approx(sum(each[:5]))
    assert compare.training_seconds(lines, 11, 100) is None, "the lines end at step 10"
    assert compare.training_seconds(lines[2:3], 6, 100) is None
    assert compare.training_seconds([], 4, 100) is None


CLOSE = {"nokd": 0.30, "up": 0.305, "dual": 0.302, "a-long-name-of-a-model": 0.31, "bert": 0.6}


@pytest.fixture(scope="module")
def figure():
    costs = {
        "parameters": {name: 6e5 if name != "bert" else 1e8 for name in CLOSE},
        "training": {"nokd": 1e15, "up": 3e15, "dual": 3.1e15, "a-long-name-of-a-model": 3.05e15},
    }
    drawn = picture.draw(CLOSE, "words right", costs, ["up"])
    drawn.draw_without_rendering()
    return drawn


def test_every_marker_has_its_name_and_no_name_hides_another(figure):
    left, right = figure.axes
    assert {text.get_text() for text in left.texts} == set(CLOSE)
    assert {text.get_text() for text in right.texts} == set(CLOSE) - {"bert"}
    assert "(not known: bert)" in right.get_xlabel() and left.get_xscale() == right.get_xscale() == "log"
    for axis in figure.axes:
        panel = axis.get_window_extent()
        # An annotation's own extent includes the line to its marker.
        boxes = {text.get_text(): Text.get_window_extent(text) for text in axis.texts}
        for one, other in itertools.combinations(boxes.values(), 2):
            assert not one.padded(-1.5).overlaps(other.padded(-1.5))
        for box in boxes.values():
            assert panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
        for text in axis.texts:
            assert text.xy[1] == CLOSE[text.get_text()]


def test_markers_stand_where_the_figures_say(figure):
    for axis in figure.axes:
        for marker, text in zip(axis.collections, axis.texts, strict=True):
            assert marker.get_offsets().shape == (1, 2) and len(text.get_text()) > 1
    filled = {marker.get_offsets()[0][1]: len(marker.get_facecolor()) for marker in figure.axes[0].collections}
    assert filled == {share: int(name != "up") for name, share in CLOSE.items()}


def test_equal_pictures_are_equal_files(figure, tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        picture.save(figure, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (tmp_path / "a.svg").read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_command(runs, tiny_inputs, tmp_path, capsys):
    sources = [str(runs[0] / "nokd"), str(runs[0] / "dual"), str(tiny_inputs.teacher)]
    assert cli.main(["compare", *sources, "--corpus", str(tiny_inputs.held_out), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    header, *rows = cells(text)
    assert header[:2] == ["model", "pieces right"] and header[-3:] == ["training s", "positions", "FLOP"]
    saved = json.loads((tmp_path / "out" / "compare.json").read_text())["models"]
    assert [row[0] for row in rows] == list(saved) == ["nokd", "dual", "teacher"]
    for row, model in zip(rows, saved.values(), strict=True):
        assert len(row) == len(header) and row[3] == f"{model['scores']['word_accuracy']:.2%}"
        assert row[6] == f"{model['parameters']:,}" and float(row[7]) == pytest.approx(
            4e-6 * model["parameters"], rel=0.01
        )
    assert rows[2][-3:] == ["- [1]", "-", "-"]
    assert "those on pieces only models of one vocabulary: nokd, dual." in text
    page = (tmp_path / "out" / "compare.md").read_text().splitlines()
    assert [cell.strip() for cell in page[3].strip("|").split("|")] == rows[1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"compare.{end}" for end in ("json", "md", "png", "svg")
    }
    drawn = (tmp_path / "out" / "compare.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in saved)


def test_names_are_as_short_as_they_can_be(tiny_inputs, tmp_path):
    places = [tmp_path / "a" / "model", tmp_path / "b" / "model", tmp_path / "b" / "other"]
    for place in places:
        shutil.copytree(tiny_inputs.teacher, place)
    assert list(of(*places).models) == ["a/model", "b/model", "b/other"]
    assert list(of(places[0], places[2]).models) == ["model", "other"]


def test_what_can_not_be_compared_is_refused_before_anything_is_read(runs, tiny_inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "_read", None)
    (tmp_path / "link").symlink_to(runs[0] / "nokd")
    for sources, match in (
        ([tiny_inputs.corpus], "corpus is neither a run .* nor a model folder"),
        ([runs[0] / "nokd", tmp_path / "link"], "link is given twice"),
        (["a/b", "a/b"], "a/b is given twice"),
    ):
        with pytest.raises(UserError, match=match):
            of(*sources)
    with pytest.raises(UserError, match="there is no corpus at nowhere"):
        of(runs[0] / "nokd", corpus="nowhere")
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["compare", str(runs[0] / "nokd"), "--out", str(tmp_path / "file")]) == 2
    assert "file is a file" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["compare", str(runs[0] / "nokd"), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'jaxdistill[plot]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_of_a_task_is_sent_to_bench(altered):
    def to_a_task(content):
        content["config"]["data"]["task"] = "sst2"

    with pytest.raises(UserError, match=r"is a run of a task, .* `jaxdistill bench` measures it"):
        of(altered("nokd", "task", "experiment.json", to_a_task))


def test_a_model_without_a_head_has_all_but_scores(runs, altered):
    def cut_off(content):
        content["config"]["models"]["student"]["mlm"] = False

    found = of(runs[0] / "nokd", altered("dual", "headless", "experiment.json", cut_off)).models
    assert found["nokd"].scores and found["headless"].scores is None and found["headless"].latency > 0
    assert found["headless"].notes == {
        "scores": "no masked-LM head, so nothing to score",
        "latency": "speed of the encoder alone",
    }
    head = jax.tree.leaves(read_run(runs[0] / "dual").params["mlm"])
    assert found["nokd"].parameters - found["headless"].parameters == sum(leaf.size for leaf in head)


def test_a_run_without_a_checkpoint_and_a_folder_without_a_head(runs, altered, tiny_inputs, tmp_path):
    new = altered("nokd", "new")
    shutil.rmtree(new / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        of(runs[0] / "dual", new)
    read = hf.read_hf(tiny_inputs.teacher)
    headless = dataclasses.replace(read.config, mlm=False)
    params = {name: part for name, part in read.params.items() if name != "mlm"}
    hf.write_hf(tmp_path / "headless", headless, params, read.vocabulary)
    with pytest.raises(UserError, match="headless has no mlm head"):
        of(tmp_path / "headless")
