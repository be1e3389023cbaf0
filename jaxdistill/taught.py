"""What a teacher that does not train says of a task's examples, computed once before training.

The examples are the same in every epoch, and such a teacher reads without dropout, so its head's scores and its [CLS]
states are kept in memory. Hidden states and attention scores of all positions are too many, and are computed anew.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdistill import memory
from jaxdistill.errors import UserError
from jaxdistill.evaluate_task import judge_rows
from jaxdistill.experiment import Experiment
from jaxdistill.initial import FromHuggingFace
from jaxdistill.task_inputs import TaskInputs

Read = Callable[[np.ndarray, int], dict[str, np.ndarray]]


def taught(
    experiment: Experiment, inputs: TaskInputs, params: Mapping[str, Any], sharding: jax.sharding.NamedSharding
) -> dict[str, Read]:
    """For each view that `Experiment.known` names, a function of row numbers and a length to what is known of them.

    Args:
      experiment: what runs.
      inputs: what it reads.
      params: the parameters of its models.
      sharding: where the rows lie while they are computed.

    Raises:
      UserError: there is no memory for it.
    """
    found, length = {}, experiment.data.length
    for view, want in experiment.reading().items():
        if experiment.known(view):
            name, role = experiment.data.views[view].vocabulary, experiment.reader(view)
            config, rows, start = experiment.models[role], inputs.rows[name], experiment.start[role]
            numbers = length * 2 if config.spans else len(config.classifier)
            size = len(rows) * (4 * numbers + 4 * config.layers * config.hidden * ("first" in want))
            if size > memory.available_bytes() // 2:
                raise UserError(
                    f"what {role!r} says of {len(rows):,} rows takes {size / 2**30:.1f} GiB, too much to keep here: "
                    "compute it at every step, with --no-once"
                )
            whole = isinstance(start, FromHuggingFace) and start.whole
            key = (start, start.contents(), None if whole else experiment.seed, config, rows, length, want)
            if key not in _KEPT:
                _KEPT.clear()
                batch = -(-32 // sharding.mesh.size) * sharding.mesh.size
                how = {"batch": batch, "sharding": sharding, "want": want, "label": role}
                _KEPT[key] = judge_rows(config, params[role], rows, inputs.vocabularies[name], length, **how)
            found[view] = functools.partial(_read, _KEPT[key])
    return found


_KEPT: dict[Any, dict[str, np.ndarray]] = {}
"""What was computed last: the runs of a sweep share it."""


def _read(kept: Mapping[str, np.ndarray], rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """What is known of some rows; of an empty row, number -1, something that no loss looks at."""
    return {name: value[rows, :length] if name == "spans" else value[rows] for name, value in kept.items()}
