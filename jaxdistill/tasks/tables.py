"""Examples in the columns of tables, a user's own among them."""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import clean, read_fields
from jaxdistill.tasks.task import Examples, Task, own_task

MANY = 20
"""So many classes are never taken for scores."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what.

    Attributes:
      first: the text, or the first of two.
      second: the second text; "" where there is none.
      label: the class or the score.
      id: what names a row; "" where rows are numbered, from 0.
      kind: what the label is, `classes` or `score`.
    """

    first: str = "sentence"
    second: str = ""
    label: str = "label"
    id: str = ""
    kind: str = "classes"


def parse_columns(text: str) -> Columns:
    """Reads what a user says of the columns: "first=question,second=answer,label=good,id=number,kind=score".

    Raises:
      UserError: it is not written so.
    """
    columns, given = Columns(), set()
    names = [field.name for field in fields(Columns)]
    for part in filter(None, text.split(",")):
        name, _, column = (word.strip() for word in part.partition("="))
        if name not in names or not column:
            raise UserError(f"columns: {part!r} is not NAME=COLUMN with one of {', '.join(names)} as NAME")
        if name in given:
            raise UserError(f"columns: {name} is given twice")
        given.add(name)
        columns = replace(columns, **{name: column})
    used = [column for column in (columns.first, columns.second, columns.label, columns.id) if column]
    if len(set(used)) < len(used):
        raise UserError(f"columns: {', '.join(used)} name one column twice: each holds one thing")
    if columns.kind not in ("classes", "score"):
        raise UserError(f"columns: kind={columns.kind} is neither kind=classes nor kind=score")
    return columns


def table_task(path: pathlib.Path, columns: Columns) -> Task:
    """The task of a user's own training file: the classes are its labels, in numerical or else alphabetical order.

    Raises:
      UserError: the file can't be read, a row has no label, or all have the same.
    """
    if columns.kind == "score":
        return own_task(str(path), (), bool(columns.second))
    found = [_label(row, columns.label, f"{path}, line {number}") for number, row in read_fields(path)]
    labels = sorted(set(found))
    if not labels:
        raise UserError(f"{path} holds no examples: it needs a line for each, after one with the columns' names")
    if len(labels) > max(MANY, len(found) / 2):
        raise UserError(
            f"{path}: {columns.label!r} has {len(labels):,} values in {len(found):,} rows: a score to be foretold is "
            "asked for with columns kind=score; if these are classes, join the rare ones"
        )
    if len(labels) < 2:
        raise UserError(f"{path}: {columns.label!r} is {' '.join(labels)!r} in all rows: a task needs two classes")
    with contextlib.suppress(ValueError):
        labels.sort(key=float)
    return own_task(str(path), labels, bool(columns.second))


def read_table(path: pathlib.Path, task: Task, split: str, columns: Columns) -> Examples:
    """The examples of a user's own file.

    Raises:
      UserError: as of `read_fields` and `examples_of`.
    """
    return examples_of(task, split, read_fields(path), columns, f"{path}, line")


def examples_of(
    task: Task,
    split: str,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    columns: Columns,
    where: str,
    numbers: Mapping[str, int] | None = None,
) -> Examples:
    """The examples that rows hold.

    Args:
      task: their task, of classes or of scores.
      split: which part of it; a test split need not have labels.
      rows: numbered rows.
      columns: which column holds what.
      where: what the numbers count, for messages: "FILE, line".
      numbers: the class that each label means, as written in the rows; by default the classes' own names.

    Raises:
      UserError: there are no rows, a column is missing, a text is no text, a label is unknown, a score is no number.
    """
    if numbers is None:
        numbers = {name: number for number, name in enumerate(task.labels)}
    ids, first, second, labels = [], [], [], []
    labelled = True
    for number, row in rows:
        place = f"{where} {number}"
        if not ids and split.startswith("test"):
            labelled = columns.label in row
        ids.append(str(_value(row, columns.id, place)) if columns.id else str(len(ids)))
        first.append(_text(row, columns.first, place))
        if columns.second:
            second.append(_text(row, columns.second, place))
        if labelled:
            label = _label(row, columns.label, place)
            labels.append(_score(label, place) if task.kind == "score" else _class(label, numbers, place))
    if not ids:
        raise UserError(f"{where.rpartition(',')[0]} holds no examples")
    return Examples(
        task=task,
        split=split,
        ids=tuple(ids),
        first=tuple(first),
        second=tuple(second) if columns.second else None,
        labels=np.array(labels, np.float32 if task.kind == "score" else np.int32) if labelled else None,
    )


def _value(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise UserError(
            f"{place} has no column {column!r}, only {', '.join(map(repr, row))}: is the header missing,"
            " is it another task's file, or does the file need columns (first=..., label=...)?"
        )
    return row[column]


def _text(row: Mapping[str, Any], column: str, place: str) -> str:
    text = _value(row, column, place)
    if not isinstance(text, str):
        raise UserError(f"{place}: {column!r} is {json.dumps(text)}, not text: mend or drop the row")
    return clean(text)


def _label(row: Mapping[str, Any], column: str, place: str) -> str:
    label = _value(row, column, place)
    label = label.strip() if isinstance(label, str) else "" if label is None else json.dumps(label)
    if not label:
        raise UserError(f"{place} has no label in {column!r}: mend or drop the row")
    return label


def _class(label: str, numbers: Mapping[str, int], place: str) -> int:
    if label not in numbers:
        raise UserError(f"{place} has the unknown label {label!r}, none of {', '.join(numbers)}")
    return numbers[label]


def _score(label: str, place: str) -> float:
    try:
        score = float(label)
    except ValueError:
        score = math.nan
    if not abs(score) <= float(np.finfo(np.float32).max):
        raise UserError(f"{place} has the label {label!r}, which is not a number of 32 bits: mend or drop the row")
    return score
