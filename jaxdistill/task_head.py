"""The head that a task needs on a BERT."""

import dataclasses

from jaxdistill.bert_config import SCORE, BertConfig, match
from jaxdistill.errors import UserError
from jaxdistill.tasks.task import Task, own_task


def with_head(shape: BertConfig, task: Task, pooling: str = "") -> BertConfig:
    """The shape with a task's head in the place of all others.

    Args:
      shape: of the encoder.
      task: what the head is for.
      pooling: as `BertConfig.pooling`; "" is that of the class of `transformers` that the model is exported as.
    """
    if task.kind == "spans":
        return dataclasses.replace(shape, mlm=False, nsp=False, pooler=False, classifier=(), spans=True)
    distil = not shape.types and shape.eps == 1e-12
    return dataclasses.replace(
        shape,
        mlm=False,
        nsp=False,
        pooler=True,
        pooling=pooling or ("relu" if distil else "tanh"),
        classifier=task.labels or (SCORE,),
        spans=False,
    )


def respell(config: BertConfig, task: Task) -> BertConfig:
    """A fitting model's shape with its classes spelled as the task does, in the model's order."""
    if not task.labels:
        return config
    return dataclasses.replace(
        config, classifier=tuple(task.labels[at] for at in match(task.labels, config.classifier))
    )


def check_head(config: BertConfig, task: Task, where: str) -> None:
    """Raises UserError when a model has another head than a task needs, or other classes."""
    if config.spans != (task.kind == "spans") or not (config.spans or config.classifier):
        raise UserError(f"{where} has no head for {task.name}, a task of {task.kind}: fine-tune it for that")
    if not config.spans and match(config.classifier, task.labels or (SCORE,)) is None:
        raise UserError(
            f"{where} tells {', '.join(config.classifier)} apart, but {task.name} is of "
            f"{', '.join(task.labels) or 'a score'}: name like classes alike, in id2label of its config.json"
        )


def head_task(config: BertConfig, path: str = "", pair: bool = False) -> Task:
    """The task that a head alone tells of: its classes, a score or spans; not whose examples.

    Args:
      config: the model's shape.
      path: the user's own training file, which need not be there; "" where none is known.
      pair: it is of two texts; spans always are.
    """
    if config.spans:
        return Task("", "spans", (), ("f1", "exact"), pair=True)
    return own_task(path, () if config.classifier == (SCORE,) else config.classifier, pair)


def check_pooling(pooling: str, task: Task) -> None:
    """Raises UserError when a pooling is asked for a head that has no pooler."""
    if pooling and task.kind == "spans":
        raise UserError(f"pooling={pooling}: the head for {task.name} reads every position and has no pooler")
