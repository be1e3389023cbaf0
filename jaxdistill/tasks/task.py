"""What a task is, and its examples: texts with classes or scores, or questions about a text."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Task:
    """A task to fine-tune a model for.

    Attributes:
      name: such as `sst2`; the stem of the file for a user's own.
      kind: `classes` and `score` are of a text or of two, `spans` are answers in a text.
      labels: names of the classes in the order of their numbers; none unless `kind` is `classes`.
      metrics: what is reported; the first is the headline, by which the best is chosen.
      pair: there are two texts; for `spans`, question and context.
    """

    name: str
    kind: Literal["classes", "score", "spans"]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    pair: bool = False


def own_task(path: str, labels: Sequence[str], pair: bool) -> Task:
    """The task of a user's own file, named after it: of its classes, or of a score where it has none."""
    name = pathlib.PurePath(path).name.removesuffix(".gz").rpartition(".")[0]
    if labels:
        return Task(name, "classes", tuple(labels), ("accuracy", "macro_f1"), pair)
    return Task(name, "score", (), ("pearson", "spearman"), pair)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Texts, or pairs of texts, of a `classes` or `score` task.

    Attributes:
      task: the task.
      split: `train`, `dev`, `test`, or another one of the task's.
      ids: the file's own numbers where it has them, else "0", "1", ...
      first: the texts.
      second: the second texts of pairs.
      labels: int32 numbers of classes, or float32 scores; None where the split has none.
    """

    task: Task
    split: str
    ids: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all of it."""
        labels = None if self.labels is None else self.labels.tolist()
        return _digest([dataclasses.asdict(self.task), self.split, self.ids, self.first, self.second, labels])

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of the examples, in the order of `rows`."""
        return dataclasses.replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            first=tuple(self.first[row] for row in rows),
            second=None if self.second is None else tuple(self.second[row] for row in rows),
            labels=None if self.labels is None else self.labels[rows],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Questions about texts, of a `spans` task.

    Attributes:
      task: the task.
      split: `train` or `dev`.
      ids: the file's own.
      questions: what is asked.
      contexts: the text that each is about.
      answers: the right answers to each, none to one that its context does not answer; None where none are given.
      starts: the character of the context at which each of them starts.
    """

    task: Task
    split: str
    ids: tuple[str, ...]
    questions: tuple[str, ...]
    contexts: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...] | None
    starts: tuple[tuple[int, ...], ...] | None

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all of it."""
        return _digest([getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "task"])

    def take(self, rows: np.ndarray) -> "Questions":
        """Some of the questions, in the order of `rows`."""
        lists = {
            field.name: tuple(values[row] for row in rows)
            for field in dataclasses.fields(self)
            if isinstance(values := getattr(self, field.name), tuple)
        }
        return dataclasses.replace(self, **lists)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
