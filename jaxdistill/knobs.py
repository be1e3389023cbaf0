"""The knobs of a config: command-line options read from a function's signature.

A config is a function `config(name: Annotated[type, "meaning"] = default, ...) -> Experiment`. Each argument is a knob:
its type, default and meaning are written once; `--help`, parsing and error messages come from them. A second string,
`Annotated[type, "meaning", "Heading"]`, opens a group in the help that lasts until the next heading.
"""

import dataclasses
import difflib
import functools
import importlib.util
import inspect
import math
import pathlib
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from jaxdistill.errors import UserError

REQUIRED = inspect.Parameter.empty
_WORDS = {int: "INT", float: "NUMBER", str: "TEXT"}
_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_INDENT = 32
_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Knob:
    """One argument of a config.

    Attributes:
      name: the argument's name; the option is the name with dashes.
      type: `int`, `float`, `str`, `bool`, a `Literal`, or one of them `| None`.
      default: its default, or `REQUIRED`.
      help: its meaning.
      heading: the heading it opens in the help, or "".
    """

    name: str
    type: Any
    default: Any
    help: str
    heading: str = ""

    @property
    def option(self) -> str:
        """The option as typed: `--whole-words`."""
        return "--" + self.name.replace("_", "-")

    @property
    def switch(self) -> bool:
        """Whether the option takes no value: `--whole-words` or `--no-whole-words`."""
        return bool in (self.type, *_members(self.type))


def of(function: Callable) -> list[Knob]:
    """The knobs of a config, in the order of its signature.

    Raises:
      UserError: an argument has no annotation, no meaning, or a type that the command line cannot give.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UserError(f"the config's argument {parameter} is no knob: give every knob a name")
        kind, *notes = typing.get_args(hints.get(name)) if hasattr(hints.get(name), "__metadata__") else (None,)
        if not notes or not all(isinstance(note, str) for note in notes):
            raise UserError(f'the config\'s argument {name} needs Annotated[type, "meaning"]')
        try:
            shape(kind)
        except TypeError as error:
            raise UserError(f"the config's argument {name}: {error}") from None
        found.append(Knob(name, kind, parameter.default, *notes[:2]))
    return found


def parse(function: Callable, arguments: Sequence[str]) -> dict[str, Any]:
    """Turns `--hidden 48 --variant=up --no-whole-words` into the config's arguments, defaults filled in.

    Args:
      function: the config.
      arguments: what the command line says after the config. Underscores in a name count as dashes; when an option is
        given twice, the last one holds.

    Raises:
      UserError: an option that the config does not have, a value of the wrong type, or a required knob left out.
    """
    knobs = of(function)
    options = {knob.option: (knob, True) for knob in knobs}
    negated = {"--no-" + knob.option[2:]: (knob, False) for knob in knobs if knob.switch}
    options = negated | options
    values = {knob.name: knob.default for knob in knobs if knob.default is not REQUIRED}
    rest = list(arguments)
    while rest:
        head, equals, value = rest.pop(0).partition("=")
        option = "--" + spelled(head)
        if not head.startswith("--"):
            raise UserError(f"unexpected argument {head!r}: knobs are written --name value")
        if option not in options:
            raise UserError(f"there is no knob {head}{_nearest(option, options)}")
        knob, positive = options[option]
        if not positive and equals:
            raise UserError(f"{option} takes no value: write {knob.option}={value} or {option}")
        if knob.switch and not equals:
            values[knob.name] = positive
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{option} needs a value, {shape(knob.type)}: {knob.help}")
            value = rest.pop(0)
        try:
            values[knob.name] = _read(knob.type, value)
        except ValueError:
            raise UserError(f"{option} {value!r} is not {shape(knob.type)}: {knob.help}") from None
    missing = [knob for knob in knobs if knob.name not in values]
    if missing:
        raise UserError("missing: " + "; ".join(f"{knob.option} {shape(knob.type)} ({knob.help})" for knob in missing))
    return values


def spelled(option: str) -> str:
    """A knob's name as options spell it: `--learning_rate`, `lr=2e-5` and `learning-rate` are `learning-rate`."""
    name = option.partition("=")[0].removeprefix("--").replace("_", "-")
    return {"lr": "learning-rate"}.get(name, name)


def join(*functions: Callable) -> Callable[..., list[dict[str, Any]]]:
    """A function with the knobs of all of them, whose names differ; called, it returns the arguments of each.

    Its docstring is that of the first.
    """
    signatures = [inspect.signature(function).parameters for function in functions]

    def joined(**values):
        return [{name: values[name] for name in parameters} for parameters in signatures]

    return _with_knobs(joined, [own for parameters in signatures for own in parameters.values()], *functions)


def extending(base: str) -> Callable[[Callable], Callable]:
    """Makes a config out of another one: `@extending("extreme")` above `def config(made, mine: Annotated[...] = 1)`.

    The decorated function gets what the other config made and gives back what is to run; its further arguments are
    knobs beside those of the other config, whose names they must not repeat.

    Args:
      base: the other config, as `load` finds it.
    """

    def decorate(change: Callable) -> Callable:
        first, (_, *own) = load(base), inspect.signature(change).parameters.values()
        theirs = inspect.signature(first).parameters

        def config(**values):
            made = first(**{name: value for name, value in values.items() if name in theirs})
            return change(made, **{name: value for name, value in values.items() if name not in theirs})

        return _with_knobs(config, [*theirs.values(), *own], change, first)

    return decorate


def _with_knobs(function: Callable, knobs: Sequence[inspect.Parameter], *described: Callable) -> Callable:
    """Gives a function arguments that others describe, and the docstring of the first of those."""
    function.__signature__ = inspect.Signature([knob.replace(kind=knob.KEYWORD_ONLY) for knob in knobs])
    hints = {}
    for other in described:
        hints |= typing.get_type_hints(other, include_extras=True)
    function.__annotations__ = {knob.name: hints[knob.name] for knob in knobs if knob.name in hints}
    function.__doc__ = inspect.getdoc(described[0])
    return function


def help(function: Callable) -> str:
    """Every knob of a config with its type, default and meaning, below the config's docstring."""
    lines = [inspect.getdoc(function)] if function.__doc__ else []
    knobs = of(function)
    if knobs and not knobs[0].heading:
        lines += ["", "Knobs"]
    for knob in knobs:
        if knob.heading:
            lines += ["", knob.heading]
        left = f"  --[no-]{knob.option[2:]}" if knob.switch else f"  {knob.option} {shape(knob.type)}"
        note = "required" if knob.default is REQUIRED else f"default {_show(knob.default)}"
        right = textwrap.wrap(f"{knob.help} [{note}]", _WIDTH - _INDENT, break_on_hyphens=False)
        if len(left) < _INDENT - 1:
            left += " " * (_INDENT - len(left)) + right.pop(0)
        lines += [left, *(" " * _INDENT + line for line in right)]
    return "\n".join(lines).strip("\n")


def load(config: str) -> Callable:
    """Loads a config by path (`my/own.py`, its function `config`) or by name (`extreme`).

    `configs/extreme.py` means the installed config of that name wherever no such file exists. What a file of the user's
    own raises when it is called becomes a UserError that names its line, with the original as its cause.

    Raises:
      UserError: there is no such config, it does not import, or it has no function `config`.
    """
    path = pathlib.Path(config)
    installed = {file.stem: file for file in sorted(folder().glob("*.py")) if file.stem != "__init__"}
    if path.suffix != ".py" and path.parent == pathlib.Path("."):
        name = config.replace("-", "_")
        if name not in installed:
            raise UserError(f"there is no config {config!r}{_nearest(name, installed)}; a file is named with its .py")
        path = installed[name]
    elif not path.is_file():
        if path.parent != pathlib.Path("configs") or path.stem not in installed:
            raise UserError(f"there is no config file {config}; by name there are: {', '.join(installed)}")
        path = installed[path.stem]
    spec = importlib.util.spec_from_file_location(f"jaxdistill_config_{path.stem}", path)
    if spec is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} does not import: {_told(error)}{_line(error, spec.origin)}") from error
    if not inspect.isfunction(getattr(module, "config", None)):
        raise UserError(f"{path} has no function `config`: define config(name: Annotated[type, 'meaning'] = default)")
    return module.config if path in installed.values() else _telling(module.config, path, spec.origin)


def _telling(function: Callable, path: pathlib.Path, file: str) -> Callable:
    """A config that tells of an exception by the last line of its file that raised or passed it."""

    @functools.wraps(function)
    def config(*arguments, **values):
        try:
            return function(*arguments, **values)
        except Exception as error:
            line = _line(error, file)
            if isinstance(error, UserError) or not line:
                raise
            raise UserError(f"{path} failed: {_told(error)}{line}") from error

    return config


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _line(error: Exception, file: str) -> str:
    """The last line of a file on an exception's way, as a line to add to a message; "" when it is on none."""
    passed = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"\n  line {passed[-1].lineno}: {passed[-1].line}" if passed else ""


def folder() -> pathlib.Path:
    """Where the installed configs are."""
    spec = importlib.util.find_spec("jaxdistill.configs")
    if spec is not None and spec.submodule_search_locations:
        return pathlib.Path(next(iter(spec.submodule_search_locations)))
    return pathlib.Path(__file__).parent.parent / "configs"  # A checkout that is on the path without being installed.


def names() -> list[str]:
    """The installed configs, in order."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def shape(kind: Any) -> str:
    """How a type's values are written: `INT`, `48|96|192`, `TEXT|none`.

    Raises:
      TypeError: the command line cannot give this type.
    """
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(_show, typing.get_args(kind)))
    members = _members(kind)
    if len(members) == 2 and types.NoneType in members:
        return f"{shape(_some(members))}|none"
    if kind is bool:
        return "true|false"
    if kind not in _WORDS:
        raise TypeError(f"{kind} is no type of a knob: int, float, str, bool, Literal, or one of them | None")
    return _WORDS[kind]


def _read(kind: Any, text: str) -> Any:
    """The value that `text` writes; ValueError when it writes none of this type."""
    members = _members(kind)
    if members:
        return None if text.lower() == "none" else _read(_some(members), text)
    if typing.get_origin(kind) is typing.Literal:
        choices = {_show(choice): choice for choice in typing.get_args(kind)}
        return _look_up(choices, text)
    if kind is bool:
        return _look_up(_SWITCH, text.lower())
    value = kind(text)
    if kind is float and not math.isfinite(value):
        raise ValueError
    return value


def _look_up(choices: dict[str, Any], text: str) -> Any:
    if text not in choices:
        raise ValueError
    return choices[text]


def _members(kind: Any) -> tuple:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def _some(members: tuple) -> Any:
    return next(member for member in members if member is not types.NoneType)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) or '""'


def _nearest(name: str, names) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f": did you mean {close[0]}?" if close else f": there are {', '.join(names)}"
