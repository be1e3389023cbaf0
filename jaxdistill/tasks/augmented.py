"""TinyBERT's augmented examples (arXiv 1909.10351): copies of texts with words replaced, and the folder they are in."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill import files
from jaxdistill.data import draws
from jaxdistill.errors import UserError
from jaxdistill.tasks.task import Examples, Task

NAME = "augmented.json"
EXAMPLES = "examples.jsonl"
COPIES = {"cola": 30, "mrpc": 30, "stsb": 30, "rte": 30, "sst2": 20, "qnli": 20, "mnli": 10, "qqp": 10}
"""Copies of each text by task, as the released code has them; 20 for every other."""


def draw_copies(
    words: Sequence[str], choices: Mapping[int, Sequence[str]], count: int, p: float, key: int, example: int
) -> list[str]:
    """Copies of a text in which each of some words is replaced with a chance, joined by spaces.

    One that reads as the text itself or as a copy before it is left out, so there may be fewer than `count`.

    Args:
      words: of the text.
      choices: by the number of a word, what may stand in its place, each as likely.
      count: how often to draw.
      p: the chance that a word is replaced.
      key: of the draws.
      example: number of the example, of which, of the copy and of the word each draw is a hash.
    """
    places = np.array([place for place, found in choices.items() if found], np.int64)
    bits = draws.draw(draws.draw(draws.draw(key, np.array([example])), np.arange(count))[:, None], places[None])
    replaced = draws.uniform(bits) < p
    sizes = np.array([len(choices[place]) for place in places], np.int64)
    chosen = draws.below(draws.draw(bits, np.ones(1, np.int64)), sizes[None])
    found = {" ".join(words): None}
    for row in range(count):
        copy = list(words)
        for column in np.flatnonzero(replaced[row]):
            copy[places[column]] = choices[places[column]][chosen[row, column]]
        found.setdefault(" ".join(copy))
    return list(found)[1:]


def write_augmented(folder: pathlib.Path, rows: Iterator[Mapping[str, Any]], task: Task, facts: Mapping) -> int:
    """Writes augmented examples into an existing folder.

    Args:
      folder: where.
      rows: `id`, `first`, `second` for pairs, and `label`: a class by its name, or a score.
      task: their task.
      facts: what they were made from and how: `source`, `vocabulary`, `weights`, `glove`, `settings`.

    Returns:
      How many there are.
    """
    count = 0
    with files.atomic(folder / EXAMPLES) as path, open(path, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            count += 1
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    described = {"task": dataclasses.asdict(task), **facts, "rows": count}
    files.write_json(folder / NAME, described | {"sha256": files.sha256(folder / EXAMPLES)})
    return count


def read_augmented(folder: str | os.PathLike, task: Task, *, vocabulary: str = "", source: str = "") -> Examples:
    """The training examples in a folder that `jaxdistill augment` wrote.

    Args:
      folder: the folder.
      task: what they must be of; labels are matched by name.
      vocabulary: digest of the vocabulary whose pieces must stand in for words; "" takes any.
      source: digest of the examples that they must be copies of; "" takes any.

    Raises:
      UserError: it holds no augmented examples, they are damaged, or of another task, vocabulary or source.
    """
    folder = pathlib.Path(folder)
    if not (folder / NAME).is_file():
        raise UserError(f"{folder} holds no augmented examples: make them with `jaxdistill augment`")
    facts = files.read_json(folder / NAME)
    try:
        made = Task(**facts["task"] | {name: tuple(facts["task"][name]) for name in ("labels", "metrics")})
        facts["vocabulary"], facts["source"], facts["sha256"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / NAME} is damaged ({error}): make the folder again with `jaxdistill augment`"
        ) from None
    if (made.name, made.kind, made.pair, sorted(made.labels)) != (task.name, task.kind, task.pair, sorted(task.labels)):
        raise UserError(
            f"{folder} was augmented for {_says(made)}, not for {_says(task)}: augment the examples of this task"
        )
    if vocabulary and facts["vocabulary"] != vocabulary:
        raise UserError(
            f"{folder} was augmented by a model with another vocabulary than the teacher's, whose pieces may be no "
            "words to the teacher: augment with a masked-language model that has the teacher's vocabulary"
        )
    if source and facts["source"] != source:
        raise UserError(f"{folder} was augmented from other examples of {task.name}: augment those that are read here")
    path = folder / EXAMPLES
    if not path.is_file() or files.sha256(path) != facts["sha256"]:
        raise UserError(f"{path} is missing or damaged: make the folder again with `jaxdistill augment`")
    with open(path, encoding="utf-8", newline="\n") as file:
        ids, first, second, labels = zip(*(_row(json.loads(line), task) for line in file), strict=True)
    kind = np.int32 if task.kind == "classes" else np.float32
    return Examples(task, "train", ids, first, second if task.pair else None, np.array(labels, kind))


def _row(row: Mapping[str, Any], task: Task) -> tuple[str, str, str | None, int | float]:
    label = task.labels.index(row["label"]) if task.kind == "classes" else row["label"]
    return row["id"], row["first"], row.get("second"), label


def _says(task: Task) -> str:
    return f"{task.name!r} ({'pairs, ' if task.pair else ''}{', '.join(task.labels) or task.kind})"
