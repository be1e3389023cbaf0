"""The whole way at toy size: every stage, again, and with other options."""

import json
import re
import shlex

import pytest

from jaxdistill import cli
from jaxdistill import quickstart as q
from jaxdistill.errors import UserError
from jaxdistill.hf import read_hf


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(q, "TEACHER", q.TEACHER | {"hidden": 8, "layers": 2, "heads": 2, "positions": 64})
        patch.setattr(q, "STUDENT", q.STUDENT | {"hidden": 12, "heads": 2, "positions": 64})
        patch.setattr(q, "TEACHER_PIECES", 160)
        patch.setattr(q, "STUDENT_PIECES", 100)
        patch.setattr(q, "LENGTH", 32)
        patch.setattr(q, "PREDICTIONS", 5)
        patch.setattr(q, "BATCH", 8)
        patch.setattr(q, "STEPS", {"teacher": 4, "student": 3})
        yield


@pytest.fixture(scope="module")
def finished(small, tiny_corpus, tmp_path_factory):
    root = tmp_path_factory.mktemp("quickstart") / "here"
    lines = []
    scores = q.quickstart(root, text=[str(tiny_corpus)], notify=lines.append)
    return root, scores, lines


def test_it_scores_every_model_on_the_same_words(finished):
    root, scores, lines = finished
    assert list(scores) == ["teacher", "teacher after mixed training", "student alone", "student distilled"]
    assert len({score.words for score in scores.values()}) == 1
    assert scores["student alone"].pieces == scores["student distilled"].pieces
    saved = json.loads((root / "results.json").read_text())
    assert saved["student distilled"]["word_accuracy"] == scores["student distilled"].word_accuracy
    table = (root / "results.txt").read_text()
    assert "times smaller" in table and "[MASK]" not in table
    assert any("all done in" in line for line in lines)


def test_it_leaves_a_folder_that_reads_back(finished):
    root, _, _ = finished
    found = read_hf(root / "model", fresh_heads=False)
    assert (found.config.layers, found.config.hidden, found.config.vocab) == (2, 12, found.vocabulary.size)
    assert found.vocabulary.size < 100  # all that the tiny text can fill


def test_the_card_has_the_table_and_a_command_that_prints_it_again(finished, tmp_path):
    root, scores, _ = finished
    card = (root / "model" / "README.md").read_text()
    assert "## Measured" in card and "| student distilled |" in card and f"quickstart --workdir {root} --text" in card
    _, *arguments = shlex.split(re.search(r"Measured by\n\n```\n(.*)\n```", card)[1])
    assert cli.main([*arguments, "--json", str(tmp_path / "again.json")]) == 0
    again = list(json.loads((tmp_path / "again.json").read_text()).values())
    order = ("teacher", "student distilled", "teacher after mixed training", "student alone")
    for name, found in zip(order, again, strict=True):
        assert found == pytest.approx(vars(scores[name]), rel=1e-5), name


def test_run_again_it_shows_its_table_and_does_nothing(finished, tiny_corpus, monkeypatch):
    root, scores, _ = finished
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.name != "quickstart.json"}
    for name in ("train", "score", "export", "prepare", "read_model"):
        monkeypatch.setattr(q, name, None)
    lines = []
    assert q.quickstart(root, text=[str(tiny_corpus)], notify=lines.append) == scores
    assert lines[0] == (root / "results.txt").read_text() and "nothing was done" in lines[1]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_killed_before_its_table_it_trains_nothing_and_scores_again(finished, tiny_corpus, tmp_path):
    root, scores, _ = finished
    checkpoints = {path: path.stat().st_mtime_ns for path in root.glob("run-*/checkpoints/*/seal.json")}
    saved = (root / "results.json").rename(tmp_path / "results.json")
    lines = []
    assert q.quickstart(root, text=[str(tiny_corpus)], notify=lines.append) == scores
    assert {path: path.stat().st_mtime_ns for path in root.glob("run-*/checkpoints/*/seal.json")} == checkpoints
    assert not any("compiled" in line for line in lines)
    assert (root / "results.json").read_bytes() == saved.read_bytes()


def test_a_failure_after_the_text_was_split_can_be_run_again(small, tiny_corpus, tmp_path, monkeypatch):
    def fail(*arguments):
        raise UserError("no space is left on the disk")

    for name in ("prepare", "_vocabulary"):  # The second one comes later.
        with monkeypatch.context() as patch, pytest.raises(UserError, match="no space"):
            patch.setattr(q, name, fail)
            q.quickstart(tmp_path / "here", text=[str(tiny_corpus)], notify=lambda line: None)


def test_other_options_are_refused(finished, tiny_corpus):
    root, _, _ = finished
    with pytest.raises(UserError, match=r"scale was 1\.0, is now 2\.0.*another --workdir"):
        q.quickstart(root, text=[str(tiny_corpus)], scale=2.0)


def test_a_folder_with_something_else_is_refused(small, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no quickstart"):
        q.quickstart(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_too_little_text_says_so(small, tmp_path):
    text = tmp_path / "one.txt"
    text.write_text("Only one line.\n")
    with pytest.raises(UserError, match="too few to hold some out"):
        q.quickstart(tmp_path / "here", text=[str(text)])
    assert not any((tmp_path / "here").iterdir()), "other text may be tried here"
