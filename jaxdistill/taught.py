"""What a teacher that does not train says of a task's examples, computed once before training.

The examples are the same in every epoch, and such a teacher reads without dropout: its head's scores and its [CLS]
states are small enough to keep. Hidden states and attention scores of all positions are not, and are computed anew.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jaxdistill import bert
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.experiment import Experiment
from jaxdistill.task_inputs import TaskInputs
from jaxdistill.tasks.rows import Rows, padded_length

Read = Callable[[np.ndarray, int], dict[str, np.ndarray]]

_BATCH = 32


def taught(experiment: Experiment, inputs: TaskInputs, params: Mapping[str, Any]) -> dict[str, Read]:
    """For each view that `Experiment.known` names, a function of row numbers and a length to what is known of them.

    Args:
      experiment: what runs; nothing is computed when it has one epoch or less.
      inputs: what it reads.
      params: the parameters of its models.
    """
    if experiment.steps * experiment.data.batch <= len(inputs):
        return {}
    found = {}
    for view, want in experiment.reading().items():
        if experiment.known(view):
            role, name = experiment.reader(view), experiment.data.views[view].vocabulary
            start = experiment.start[role]
            key = (start, start.contents(), experiment.models[role], inputs.digest, experiment.data.length, want)
            if key not in _KEPT:
                _KEPT.clear()
                _KEPT[key] = _compute(
                    experiment.models[role],
                    params[role],
                    inputs.rows[name],
                    inputs.vocabularies[name],
                    experiment.data.length,
                    want,
                )
            found[view] = functools.partial(_read, _KEPT[key])
    return found


_KEPT: dict[Any, dict[str, np.ndarray]] = {}
"""What was computed last: the runs of a sweep share it."""


@functools.partial(jax.jit, static_argnums=(0, 5))
def _run(config, params, ids, mask, types, want):
    outputs = bert.Bert(config).apply({"params": params}, ids, mask, types=types, want=want)
    kept = {"classes": outputs.classes, "spans": outputs.spans, "first": outputs.first}
    return {name: value for name, value in kept.items() if value is not None}


def _compute(
    config: BertConfig, params: Any, rows: Rows, vocabulary: Vocabulary, length: int, want: frozenset[str]
) -> dict[str, np.ndarray]:
    """Arrays [rows, ...]: `classes` [classes], `spans` [length, 2], and `first` [layers, hidden] as float16."""
    found: dict[str, np.ndarray] = {}
    order = np.argsort(rows.lengths, kind="stable")
    for start in tqdm.tqdm(range(0, len(rows), _BATCH), "teacher", unit="batch", disable=None, leave=False):
        taken = order[start : start + _BATCH]
        chosen = np.concatenate([taken, np.full(_BATCH - len(taken), -1)])
        view = rows.lay_out(chosen, padded_length(int(rows.lengths[taken].max()), length), vocabulary.pad)
        said = _run(config, params, view["ids"], view["mask"], view["types"], want)
        for name, value in said.items():
            value = np.swapaxes(value, 0, 1) if name == "first" else np.asarray(value)
            if name not in found:
                shape = (length, 2) if name == "spans" else value.shape[1:]
                found[name] = np.zeros((len(rows), *shape), np.float16 if name == "first" else np.float32)
            if name == "spans":
                found[name][taken, : value.shape[1]] = value[: len(taken)]
            else:
                found[name][taken] = value[: len(taken)]
    return found


def _read(kept: Mapping[str, np.ndarray], rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """What is known of some rows; of an empty row, number -1, something that no loss looks at."""
    return {name: value[rows, :length] if name == "spans" else value[rows] for name, value in kept.items()}
