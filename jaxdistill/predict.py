"""What a fine-tuned model says of texts: class and probabilities, score, or answer; and for GLUE's server."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxdistill.errors import UserError
from jaxdistill.evaluate_task import judge
from jaxdistill.evaluate_task import predict as numbers_of
from jaxdistill.task_inputs import read_examples
from jaxdistill.task_model import TaskModel
from jaxdistill.tasks.glue import DIAGNOSTIC
from jaxdistill.tasks.lines import read_texts, settle, unlabelled
from jaxdistill.tasks.rows import cut_rows
from jaxdistill.tasks.spans import select
from jaxdistill.tasks.submission import part_of, write_submission
from jaxdistill.tasks.task import Examples, Questions

BLOCK = 1024
"""Examples that are in memory at a time."""


def predict_lines(
    model: TaskModel, lines: Iterable[tuple[int, str]], where: str, *, batch: int = 32
) -> Iterator[dict[str, Any]]:
    """Predictions of numbered lines as `read_texts` reads them, one for each, in their order, as they come.

    Raises:
      UserError: a line is not as it should be; what was before its block has been predicted.
    """
    lines = iter(lines)
    first = list(itertools.islice(lines, 1))
    task = settle(model.task, first[0][1] if first else "")
    model = dataclasses.replace(model, task=task)
    texts = read_texts(itertools.chain(first, lines), task, where)
    while block := list(itertools.islice(texts, BLOCK)):
        yield from predict(model, unlabelled(model.task, block), batch=batch)


def predict_split(model: TaskModel, examples: Examples | Questions, *, batch: int = 32) -> Iterator[dict[str, Any]]:
    """Predictions of a split, each with its `id`."""
    for start in range(0, len(examples), BLOCK):
        block = examples.take(np.arange(start, min(start + BLOCK, len(examples))))
        for name, found in zip(block.ids, predict(model, block, batch=batch), strict=True):
            yield {"id": name} | found


def predict(model: TaskModel, examples: Examples | Questions, *, batch: int = 32) -> list[dict[str, Any]]:
    """Predictions of some examples of the model's task, as JSON values.

    Returns:
      For each example `label` and `probabilities` by class; or `score`; or `answer`. Where there may be no answer, as
      in SQuAD 2.0, also the `best` that the context has to offer and `no_answer`, how much rather there is none: above
      0, `answer` is "".
    """
    rows, said = _judge(model, examples, batch, False)
    if isinstance(examples, Questions):
        answers, no_answer = select(rows.windows, examples, said[:, :, 0], said[:, :, 1])
        if model.task.name == "squad":
            return [{"answer": answers[name]} for name in examples.ids]
        return [
            {
                "answer": "" if no_answer[name] > 0 else answers[name],
                "best": answers[name],
                "no_answer": _short(no_answer[name]),
            }
            for name in examples.ids
        ]
    found = numbers_of(model.config, said, model.task)
    if model.task.kind == "score":
        return [{"score": _short(score)} for score in found]
    shifted = np.exp(said.astype(np.float64) - said.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    columns = {name: model.config.classifier.index(name) for name in model.task.labels}
    return [
        {
            "label": model.task.labels[number],
            "probabilities": {name: _short(row[column]) for name, column in columns.items()},
        }
        for number, row in zip(found, shares, strict=True)
    ]


def parts_of(task: str, split: str) -> dict[str, str]:
    """What GLUE's server calls a test split, and which one that is; a model of MNLI answers three.

    Raises:
      UserError: the server has no such test set.
    """
    splits = ("test", "test_mismatched", DIAGNOSTIC) if (task, split) == ("mnli", "test") else (split,)
    return {part_of(task, name): name for name in splits}


def submit(models: Iterable[TaskModel], split: str, out: str, *, batch: int = 32) -> list[str]:
    """Writes the predictions of test splits as GLUE's server takes them, into one zip file.

    Args:
      models: of different tasks.
      split: `test`; with MNLI's go its mismatched one and, where it can be read, the diagnostic set.
      out: the zip file.
      batch: rows at a time.

    Returns:
      The names of the parts.

    Raises:
      UserError: a task is not one of the server's, occurs twice, or its split can't be read.
    """
    found = {}
    for model in models:
        data = model.data
        for part, name in parts_of(data.task, split).items():
            if part in found:
                raise UserError(f"{part} is predicted twice: name one model for each task")
            try:
                examples = read_examples(data.task, name, data.source)
            except UserError as error:
                if name != DIAGNOSTIC:
                    raise
                warnings.warn(f"{part} is left out: {error}", stacklevel=2)
                continue
            _, said = _judge(model, examples, batch, True)
            found[part] = model.task, examples.ids, numbers_of(model.config, said, model.task)
    write_submission(out, found)
    return list(found)


def _judge(model: TaskModel, examples: Examples | Questions, batch: int, progress: bool):
    """The rows that some examples make, and what the model's head says of them."""
    data = model.data
    rows = cut_rows(model.vocabulary, examples, data.length, data.stride, data.max_question)
    said = judge(model.config, model.params, rows, model.vocabulary, data.length, batch=batch, progress=progress)
    return rows, said


def _short(number: float) -> float:
    """A number to six places that count."""
    return float(f"{number:.6g}")
