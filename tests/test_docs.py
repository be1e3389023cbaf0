"""What the documentation shows, run as it stands."""

import json
import pathlib
import re
import shlex
import sys

import pytest

from jaxdistill import chips, cli, cli_plan, cli_runs, knobs, member
from jaxdistill.run import Run
from jaxdistill.sweep import read_grid

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def own_loss(tmp_path, monkeypatch):
    """The config of `own_loss.md`, saved where the page says, and the page's test."""
    config, test = blocks("own_loss.md", "python")
    (tmp_path / "confidence.py").write_text(config, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield test
    sys.modules.pop("confidence", None)


def test_your_own_loss_has_its_test(own_loss):
    exec(compile(own_loss, "own_loss.md", "exec"), {})


def test_your_own_loss_trains_by_the_command_that_is_shown(own_loss, tiny_inputs, tmp_path, capsys):
    (command,) = blocks("own_loss.md", "bash")
    said = {"CORPUS": tiny_inputs.corpus, "vocab.txt": tiny_inputs.vocabulary, "FOLDER": tiny_inputs.teacher}
    program, *arguments = [str(said.get(word, word)) for word in shlex.split(command)]
    given = tiny_inputs.arguments("RUN", {"devices": 1, "log_every": 1}, variant="nokd", steps=2)
    assert program == "jaxdistill" and cli.main([*arguments, *given[3:]]) == 0
    line = json.loads((tmp_path / "RUN" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["loss"] == pytest.approx(line["student_mlm"] + 0.05 * line["confidence"], rel=1e-5)
    assert -5 < line["confidence"] < -3, "at the start nearly the entropy of 60 equal chances"
    capsys.readouterr()
    assert cli.main(["train", "confidence.py", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--penalty NUMBER" in text and "--hidden INT" in text and "\nConfidence\n" in text


def commands():
    for page in ("tasks.md", "methods.md", "planning.md", "pods.md"):
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield pytest.param(line, id=line[11:60])
    page = (DOCS / "pods.md").read_text(encoding="utf-8")
    for line in sorted(
        set(re.findall(r"tpu_scripts/(?:train|resume|render)\.sh (?:\w+\.yaml )?(extreme [^|>\n]*)", page))
    ):
        yield pytest.param(f"jaxdistill train {line} --workdir RUN", id=f"pods {line[-40:]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_that_are_shown_exist(line):
    program, command, *arguments = shlex.split(line.partition(" < ")[0].partition("#")[0])
    assert program == "jaxdistill"
    places = {"train": cli_runs._where, "finetune": cli_runs._sweep_where}
    if command == "plan":
        own, asked = cli_plan._own(arguments)
        hardware = knobs.parse(cli_plan._where, own)["hardware"]
        assert not hardware or chips.find_hardware(hardware)
        supposed = [f"--{name}=somewhere" for name in ("corpus", "vocabulary")]
        assert not asked or knobs.parse(knobs.join(knobs.load(asked[0]), Run), [*supposed, *asked[1:]])
        return
    if command not in places:
        cli._parser().parse_args([command, *arguments])
        return
    own, grid = cli_runs._without_grid(member.asked(arguments[1:], {})[1])
    read_grid(grid)
    knobs.parse(knobs.join(knobs.load(arguments[0]), places[command], Run), own)
