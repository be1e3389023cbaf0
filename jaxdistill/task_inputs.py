"""A task's rows under the vocabularies in play: what a run on a task reads and is scored on."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from jaxdistill.data.draws import draw, key, uniform
from jaxdistill.data.vocab import Vocabulary, digests, read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.experiment import TaskData
from jaxdistill.tasks.augmented import read_augmented
from jaxdistill.tasks.read import TASKS, read_split, splits_of
from jaxdistill.tasks.rows import Rows, TaskBatches, cut_rows
from jaxdistill.tasks.task import Examples, Questions, Task

ASIDE = 0.1
"""Share of the training examples that is set aside to score on, where a task has no dev split."""


@dataclasses.dataclass(frozen=True, eq=False)
class TaskInputs:
    """One split of a task, made ready for some vocabularies."""

    examples: Examples | Questions
    vocabularies: Mapping[str, Vocabulary]
    rows: Mapping[str, Rows]

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    @property
    def task(self) -> Task:
        """The task."""
        return self.examples.task

    @property
    def digest(self) -> str:
        """The examples' hash."""
        return self.examples.digest

    def hashes(self) -> dict[str, str]:
        """Of what is read, by a name that the user knows."""
        return {"examples": self.digest} | digests(self.vocabularies)

    def batches(self, data: TaskData, seed: int) -> TaskBatches:
        """The batches of an experiment."""
        return TaskBatches(self.rows, self.vocabularies, data.views, data.batch, data.length, seed)

    def describe(self, data: TaskData) -> list[str]:
        """Lines that say what is read."""
        rows = {name: self.rows[view.vocabulary] for name, view in data.views.items()}
        return [
            f"  {role} reads {len(self.examples):,} examples of {self.task.name} in {len(own):,} rows, "
            f"{own.lengths.mean():.0f} pieces on average, {np.mean(own.lengths == data.length):.1%} of them full"
            for role, own in rows.items()
        ]


def read_task_inputs(data: TaskData, split: str = "train") -> TaskInputs:
    """Reads a split of a task and cuts it with every vocabulary.

    Raises:
      UserError: it can't be read, or its labels are missing where they are needed.
    """
    data.check()
    vocabularies = {name: read_vocabulary(path) for name, path in data.vocabularies.items()}
    examples = read_examples(data.task, split, data.source, data.columns, data.dev)
    if data.augmented and split == "train":
        pieces = vocabularies["teacher"].digest if "teacher" in vocabularies else ""
        examples = _augmented(_stamp(data.augmented), data.augmented, examples.task, pieces, examples.digest)
    if data.examples and split == "train":
        examples = sample(examples, data.examples)
    if split == "train" and (examples.answers if isinstance(examples, Questions) else examples.labels) is None:
        raise UserError(f"the training examples of {data.task} have no labels")
    rows = {
        name: _rows(examples, vocabulary, data.length, data.stride, data.max_question)
        for name, vocabulary in vocabularies.items()
    }
    counts = {name: len(own) for name, own in rows.items()}
    if len(set(counts.values())) > 1:
        raise UserError(
            f"questions of {data.task} make {counts} windows under these vocabularies: only models of one vocabulary "
            "can follow each other there"
        )
    return TaskInputs(examples, vocabularies, rows)


def read_examples(task: str, split: str, source: str = "", columns: str = "", dev: str = "") -> Examples | Questions:
    """A split of a task as `read_split` reads it; where there is no dev split, some of the training examples are it.

    Raises:
      UserError: see `read_split`.
    """
    if dev and task in TASKS:
        raise UserError(f"a dev file is for files of your own: {task} has its own splits")
    has_dev = "dev" in splits_of(task) if task in TASKS else bool(dev)
    if split in ("train", "dev") and not has_dev:
        return _parts(_stamp(task, source), task, source, columns)[split]
    return _examples(_stamp(task, source, dev), task, split, source, columns, dev)


def _stamp(*names: str) -> tuple[tuple[str, int, int], ...]:
    """What changes when files, or those in a folder and its folders, are written again: their times and sizes."""
    found = []
    for path in map(pathlib.Path, filter(None, names)):
        inside = sorted((*path.glob("*"), *path.glob("*/*"))) if path.is_dir() else [path]
        about = [(file, file.stat()) for file in inside if file.is_file()]
        found += [(str(file), stat.st_mtime_ns, stat.st_size) for file, stat in about]
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _parts(stamp: object, task: str, source: str, columns: str) -> dict[str, Examples | Questions]:
    """The training examples of a task without a dev split: a tenth of them, always the same, are set aside as one."""
    whole = read_split(task, "train", source, columns)
    aside = uniform(draw(key(0, "dev"), np.arange(len(whole)))) < ASIDE
    parts = {"train": whole.take(np.flatnonzero(~aside)), "dev": whole.take(np.flatnonzero(aside))}
    if not all(map(len, parts.values())):
        raise UserError(f"{task} has {len(whole)} examples, too few to set some aside to score on: give a dev file")
    return {split: dataclasses.replace(part, split=split) for split, part in parts.items()}


@functools.lru_cache(maxsize=4)
def _examples(stamp: object, *asked: str) -> Examples | Questions:
    return read_split(*asked)


@functools.lru_cache(maxsize=1)
def _augmented(stamp: object, folder: str, task: Task, vocabulary: str, source: str) -> Examples:
    return read_augmented(folder, task, vocabulary=vocabulary, source=source)


@functools.lru_cache(maxsize=1)
def sample(examples: Examples | Questions, count: int) -> Examples | Questions:
    """At most so many of the examples, always the same, in their order: drawn, for a file may be sorted by class."""
    drawn = np.argsort(uniform(draw(key(0, "examples"), np.arange(len(examples)))), kind="stable")
    return examples.take(np.sort(drawn[:count]))


@functools.lru_cache(maxsize=4)
def _rows(examples: Examples | Questions, vocabulary: Vocabulary, *how: int) -> Rows:
    return cut_rows(vocabulary, examples, *how)


def updates(data: TaskData, epochs: float) -> int:
    """The steps that so many epochs take, at least 1.

    Raises:
      UserError: the epochs make no sense, or see `read_task_inputs`.
    """
    if not 0 < epochs < float("inf"):
        raise UserError(f"epochs={epochs}: it must be above 0")
    return max(1, round(epochs * -(-len(read_task_inputs(data)) // data.batch)))
