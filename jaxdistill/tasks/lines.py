"""Lines of text to predict something of: a text each, or two."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import clean
from jaxdistill.tasks.task import Examples, Questions, Task


def decode_lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    """The lines of a stream of UTF-8, from 1, without their ends and a byte-order mark.

    Raises:
      UserError: a line is not UTF-8.
    """
    for number, line in enumerate(file, 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}, line {number} is not UTF-8 text: {error.reason}; convert it to UTF-8") from None


def read_texts(lines: Iterable[tuple[int, str]], task: Task, where: str) -> Iterator[tuple[str, ...]]:
    """The texts of each line, as many as an example of the task has.

    Of two, there is a tab between them, or the line is JSON: `first` and `second`, for spans `question` and `context`.
    One text may be JSON too: {"text": "..."}; but a text that only begins with a brace is a text. Further keys are left
    alone.

    Args:
      lines: numbered lines.
      task: what is to be predicted.
      where: what they are read from, for messages.

    Raises:
      UserError: a line is empty, lacks a text, or has one too many.
    """
    names = ("question", "context") if task.kind == "spans" else ("first", "second") if task.pair else ("text",)
    for number, line in lines:
        place = f"{where}, line {number}"
        row = _json(line, task.pair, place)
        texts = tuple(line.split("\t")) if row is None else _of_json(row, names, place)
        if len(texts) > 1 and not task.pair:
            of = task.name or "what stands before it"
            raise UserError(f"{place} has a tab, but {of} is of one text a line: write a space instead")
        if not line.strip():
            raise UserError(f"{place} is empty: there must be a text in every line")
        if len(texts) != len(names):
            wanted = json.dumps(dict.fromkeys(names, "..."))
            raise UserError(
                f"{place} has {len(texts) - 1 or 'no'} tabs: {task.name or 'the task'} is of {' and '.join(names)}, "
                f"with one tab between them, or as JSON: {wanted}"
            )
        for name, text in zip(names, texts, strict=True):
            if not text.strip():
                raise UserError(f"{place} has an empty {name}")
        yield texts


def unlabelled(task: Task, texts: Sequence[tuple[str, ...]]) -> Examples | Questions:
    """Texts as examples of a task, whose labels or answers are not known."""
    ids, columns = tuple(map(str, range(len(texts)))), tuple(zip(*texts, strict=True))
    if task.kind == "spans":
        return Questions(task, "given", ids, *columns, answers=None, starts=None)
    return Examples(task, "given", ids, columns[0], columns[1] if task.pair else None, labels=None)


def settle(task: Task, line: str) -> Task:
    """A task without a name, of which the model's head alone tells, with one text or two as its first line has."""
    if task.name or task.kind == "spans":
        return task
    return dataclasses.replace(task, pair="\t" in line or (line.lstrip().startswith("{") and '"second"' in line))


def _json(line: str, pair: bool, place: str) -> dict[str, Any] | None:
    """The object that a line is, None for plain text. JSON that a program wrote has no tab of its own.

    Raises:
      UserError: the line begins as an object does where only an object can, but is none.
    """
    if not line.lstrip().startswith("{") or "\t" in line:
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        if pair or re.match(r'\s*\{\s*"text"\s*:', line):
            raise UserError(f"{place} begins as JSON does, but is not JSON: {error}") from None
        return None


def _of_json(row: dict[str, Any], names: Sequence[str], place: str) -> tuple[str, ...]:
    for name in names:
        if not isinstance(row.get(name), str):
            raise UserError(f"{place} has no text {name!r}: it must have {' and '.join(map(repr, names))}")
    return tuple(clean(row[name]) for name in names)
