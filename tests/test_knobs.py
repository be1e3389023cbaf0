import json
import re
import textwrap
from typing import Annotated, Literal

import pytest

from jaxdistill import knobs
from jaxdistill.errors import UserError


def config(
    corpus: Annotated[str, "the prepared corpus", "What it reads"],
    teacher: Annotated[str | None, "a model folder, or none"] = None,
    hidden: Annotated[Literal[48, 96, 192], "width of the student", "The student"] = 48,
    layers: Annotated[int | None, "encoder layers; none copies the teacher's"] = None,
    whole_words: Annotated[bool, "mask whole words"] = False,
    variant: Annotated[Literal["nokd", "dual", "down", "up"], "which losses", "Training"] = "up",
    rate: Annotated[float, "peak learning rate"] = 1.25e-3,
):
    """Trains a small student."""
    return locals()


DEFAULTS = {
    "corpus": "C",
    "teacher": None,
    "hidden": 48,
    "layers": None,
    "whole_words": False,
    "variant": "up",
    "rate": 1.25e-3,
}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("", {}),
        ("--hidden 96 --variant dual", {"hidden": 96, "variant": "dual"}),
        ("--hidden=96 --rate=1e-4", {"hidden": 96, "rate": 1e-4}),
        ("--whole-words", {"whole_words": True}),
        ("--whole_words --layers 3", {"whole_words": True, "layers": 3}),
        ("--whole-words --no-whole-words", {}),
        ("--whole-words=yes", {"whole_words": True}),
        ("--layers 6 --layers none", {}),
        ("--teacher=a=b", {"teacher": "a=b"}),
        ("--rate -1", {"rate": -1.0}),
    ],
)
def test_arguments_are_typed(arguments, changed):
    values = knobs.parse(config, ["--corpus", "C", *arguments.split()])
    assert values == DEFAULTS | changed
    assert {name: type(value) for name, value in values.items()} == {
        name: type((DEFAULTS | changed)[name]) for name in DEFAULTS
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--hiden 48", "no knob --hiden: did you mean --hidden?"),
        ("--no-whole-word", "did you mean --no-whole-words?"),
        ("--no-hidden", "no knob --no-hidden"),
        ("--hidden 47", "--hidden '47' is not 48|96|192: width of the student"),
        ("--layers 2.5", "--layers '2.5' is not INT|none: encoder layers"),
        ("--rate fast", "--rate 'fast' is not NUMBER: peak learning rate"),
        ("--rate nan", "is not NUMBER"),
        ("--variant UP", "is not nokd|dual|down|up: which losses"),
        ("--whole-words=maybe", "is not true|false"),
        ("--no-whole-words=true", "--no-whole-words takes no value"),
        ("--whole-words yes", "unexpected argument 'yes'"),
        ("--hidden", "--hidden needs a value, 48|96|192: width of the student"),
        ("--hidden --rate 1", "--hidden needs a value"),
        ("--zzzzzz 1", "no knob --zzzzzz: there are"),
    ],
)
def test_wrong_arguments_name_the_knob_and_what_it_takes(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        knobs.parse(config, ["--corpus", "C", *arguments.split()])


def test_a_required_knob_is_asked_for():
    with pytest.raises(UserError, match=r"missing: --corpus TEXT \(the prepared corpus\)"):
        knobs.parse(config, [])


def test_help_lists_every_knob_with_default_and_meaning():
    text = knobs.help(config)
    squeezed = " ".join(text.split())
    assert squeezed.startswith("Trains a small student.")
    for knob in knobs.of(config):
        default = {"corpus": "required", "teacher": "default none", "rate": "default 0.00125"}
        assert knob.help in squeezed
        if knob.name in default:
            assert f"{knob.help} [{default[knob.name]}]" in squeezed
    assert "--hidden 48|96|192" in text and "--[no-]whole-words" in text
    headings = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert headings == ["Trains a small student.", "What it reads", "The student", "Training"]
    assert max(map(len, text.splitlines())) <= 110


def test_signatures_that_are_no_config_are_refused():
    def bare(hidden=3): ...
    def silent(hidden: int = 3): ...
    def strange(hidden: Annotated[dict, "a dict"]): ...
    def many(**rest: Annotated[int, "the rest"]): ...

    for function, message in [(bare, "hidden"), (silent, "Annotated"), (strange, "no type of a knob"), (many, "rest")]:
        with pytest.raises(UserError, match=message):
            knobs.of(function)


def test_a_config_is_loaded_by_path(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        textwrap.dedent(
            """
            from __future__ import annotations
            from typing import Annotated
            def config(depth: Annotated[int, "how deep"] = 2):
                return depth * 2
            """
        )
    )
    function = knobs.load(str(path))
    assert function(**knobs.parse(function, ["--depth", "4"])) == 8


def test_a_config_that_does_not_load_says_why(tmp_path):
    for name, source, message in [
        ("syntax.py", "def config(:", "does not import: SyntaxError"),
        ("missing.py", "import no_such_module_at_all", "does not import: ModuleNotFoundError: .*no_such_module_at_all"),
        ("empty.py", "", "has no function `config`"),
        ("number.py", "config = 3", "has no function `config`"),
    ]:
        (tmp_path / name).write_text(source)
        with pytest.raises(UserError, match=message):
            knobs.load(str(tmp_path / name))
    with pytest.raises(UserError, match="no config file"):
        knobs.load(str(tmp_path / "absent.py"))


def test_a_config_that_fails_names_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "early.py").write_text("import json\n\nrate = 1 / 0\n")
    with pytest.raises(UserError) as caught:
        knobs.load("early.py")
    assert str(caught.value) == "early.py does not import: ZeroDivisionError: division by zero\n  line 3: rate = 1 / 0"
    text = """
import json
from typing import Annotated
from jaxdistill.errors import UserError

def config(text: Annotated[str, "JSON"] = "{"):
    "Reads JSON."
    if not text:
        raise UserError("no text")
    assert text != "0"
    return json.loads(text)
"""
    (tmp_path / "late.py").write_text(text)
    config = knobs.load("late.py")
    assert [knob.name for knob in knobs.of(config)] == ["text"] and knobs.help(config).startswith("Reads JSON.")
    assert config(text="[1]") == [1]
    with pytest.raises(UserError) as caught:
        config()
    assert re.fullmatch(r"late\.py failed: JSONDecodeError: Expecting .*\n  line 11: return json.*", str(caught.value))
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    with pytest.raises(UserError, match=r'^late\.py failed: AssertionError\n  line 10: assert text != "0"$'):
        config(text="0")
    with pytest.raises(UserError, match=r"^no text$"):
        config(text="")


def test_installed_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    (installed / "extreme.py").write_text("def config():\n    return 'installed'")
    monkeypatch.setattr(knobs, "folder", lambda: installed)
    monkeypatch.chdir(tmp_path)
    assert knobs.load("extreme")() == "installed"
    assert knobs.load("configs/extreme.py")() == "installed"
    assert knobs.load("./configs/extreme.py")() == "installed"
    with pytest.raises(UserError, match=r"no config .extrem.: did you mean extreme\?"):
        knobs.load("extrem")
    with pytest.raises(UserError, match=r"no config file elsewhere/extreme\.py; by name there are: extreme"):
        knobs.load("elsewhere/extreme.py")
    with pytest.raises(UserError, match="no config '__init__'"):
        knobs.load("__init__")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "extreme.py").write_text("def config():\n    return 'mine'")
    assert knobs.load("configs/extreme.py")() == "mine"
    assert knobs.load("extreme")() == "installed"


def test_the_folder_of_configs_is_the_package_s():
    assert (knobs.folder() / "__init__.py").is_file()


def test_a_config_out_of_another_one(tmp_path):
    base = """
from typing import Annotated

def config(hidden: Annotated[int, "width", "Model"], steps: Annotated[int, "updates"] = 10):
    "The base."
    return {"hidden": hidden, "steps": steps}
"""
    own = f"""
from typing import Annotated
from jaxdistill import knobs

@knobs.extending({str(tmp_path / "base.py")!r})
def config(made, penalty: Annotated[float, "weight", "Mine"] = 0.5, twice: Annotated[bool, "double it"] = False):
    "My own."
    return made | {{"penalty": penalty * (2 if twice else 1)}}
"""
    (tmp_path / "base.py").write_text(base)
    (tmp_path / "own.py").write_text(own)
    config = knobs.load(str(tmp_path / "own.py"))
    assert [knob.name for knob in knobs.of(config)] == ["hidden", "steps", "penalty", "twice"]
    values = knobs.parse(config, ["--hidden", "48", "--twice"])
    assert config(**values) == {"hidden": 48, "steps": 10, "penalty": 1.0}
    assert config(hidden=4) == {"hidden": 4, "steps": 10, "penalty": 0.5}
    assert knobs.help(config).startswith("My own.\n\nModel\n  --hidden INT")
    with pytest.raises(UserError, match="missing: --hidden INT"):
        knobs.parse(config, [])
