"""Scores of a fine-tuned model on a split of its task, and its predictions."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jaxdistill import bert, distributed
from jaxdistill.bert import BertConfig
from jaxdistill.data.loader import own_rows, to_global
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import Diverged, UserError
from jaxdistill.task_head import check_head
from jaxdistill.task_inputs import TaskInputs
from jaxdistill.tasks.answers import score_answers
from jaxdistill.tasks.rows import Rows, padded_length
from jaxdistill.tasks.scores import score as score_labels
from jaxdistill.tasks.spans import select
from jaxdistill.tasks.task import Examples, Task

_judge = jax.jit(bert.judge, static_argnums=(0, 5))


def read_rows(
    config: BertConfig,
    params: Mapping[str, Any],
    rows: Rows,
    vocabulary: Vocabulary,
    length: int,
    *,
    batch: int = 32,
    sharding: jax.sharding.NamedSharding | None = None,
    progress: bool = True,
    want: frozenset[str] = frozenset(),
    label: str = "scoring",
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """What a model says of rows; those of like length are read together.

    Args:
      config: the model's shape.
      params: its parameters.
      rows: cut with its vocabulary.
      vocabulary: that.
      length: pieces in a row at most.
      batch: rows at a time.
      sharding: where they lie; the default device when None.
      progress: show a bar.
      want: what else than the head's scores, see `bert.judge`.
      label: of the bar.

    Yields:
      Numbers of rows, and what `bert.judge` says of these.

    Raises:
      Diverged: what it says is not finite.
    """
    order = np.argsort(rows.lengths, kind="stable")
    starts = range(0, len(rows), batch)
    for start in tqdm.tqdm(starts, label, unit="batch", disable=None if progress else True, leave=False):
        taken = order[start : start + batch]
        chosen = np.concatenate([taken, np.full(batch - len(taken), -1)])
        view = rows.lay_out(chosen, padded_length(int(rows.lengths[taken].max()), length), vocabulary.pad)
        view = {name: view[name] for name in ("ids", "mask", "types")}
        view = to_global(own_rows(view), sharding) if sharding else view
        said = _judge(config, params, view["ids"], view["mask"], view["types"], want)
        said = {name: distributed.to_host(value)[: len(taken)] for name, value in said.items()}
        if not all(np.isfinite(value).all() for value in said.values()):
            raise Diverged("what the model says is not finite: its training has diverged; use a smaller learning rate")
        yield taken, said


def judge(
    config: BertConfig, params: Mapping[str, Any], rows: Rows, vocabulary: Vocabulary, length: int, **how: Any
) -> np.ndarray:
    """What a model's head says of rows, in their order: float32 [rows, classes], or of spans [rows, length, 2].

    `how` and errors are those of `read_rows`.
    """
    found = np.zeros((len(rows), *((length, 2) if config.spans else (len(config.classifier),))), np.float32)
    for taken, said in read_rows(config, params, rows, vocabulary, length, **how):
        value = said["spans" if config.spans else "classes"]
        found[taken, : value.shape[1]] = value
    return found


def predict(config: BertConfig, said: np.ndarray, task: Task) -> np.ndarray:
    """From what a head says to numbers of the task's classes, int32 [rows], or scores, float32 [rows]."""
    if task.kind == "score":
        return said[:, 0]
    order = [config.classifier.index(name) for name in task.labels]
    return np.argmax(said[:, order], axis=-1).astype(np.int32)


def score(
    config: BertConfig,
    params: Mapping[str, Any],
    inputs: TaskInputs,
    vocabulary: str,
    length: int,
    *,
    batch: int = 32,
    sharding: jax.sharding.NamedSharding | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """The task's metrics of a model on a split that has labels, the headline first.

    Args:
      config: the model's shape.
      params: its parameters.
      inputs: the split.
      vocabulary: which of its vocabularies is the model's.
      length: pieces in a row at most.
      batch: rows at a time.
      sharding: where they lie; the default device when None.
      progress: show a bar.

    Raises:
      UserError: the split has no labels, or the model another head.
    """
    examples = inputs.examples
    check_head(config, inputs.task, "the model")
    if (examples.labels if isinstance(examples, Examples) else examples.answers) is None:
        raise UserError(f"the {examples.split} split of {inputs.task.name} has no labels: it can't be scored")
    rows, how = inputs.rows[vocabulary], {"batch": batch, "sharding": sharding, "progress": progress}
    said = judge(config, params, rows, inputs.vocabularies[vocabulary], length, **how)
    if isinstance(examples, Examples):
        return score_labels(inputs.task, examples.labels, predict(config, said, inputs.task))
    answers, no_answer = select(rows.windows, examples, said[:, :, 0], said[:, :, 1])
    scores = score_answers(examples, answers, no_answer if inputs.task.name == "squad2" else None)
    return {name: scores[name] for name in dict.fromkeys((*inputs.task.metrics, *scores)) if name in scores}
