"""What a teacher that does not train says of a task's examples, computed once before training.

The examples are the same in every epoch, and such a teacher reads without dropout, so what it says is kept in memory:
its head's scores and [CLS] states as float32, states and attention scores of all positions as float16.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdistill import distributed, memory
from jaxdistill.errors import UserError
from jaxdistill.evaluate_task import read_rows
from jaxdistill.experiment import Experiment
from jaxdistill.initial import FromHuggingFace
from jaxdistill.task_inputs import TaskInputs

Read = Callable[[np.ndarray, int], dict[str, np.ndarray]]
Kept = Mapping[str, list[np.ndarray]]

_POSITIONS = {"spans": (0,), "last": (0,), "embeddings": (0,), "hidden": (1,), "scores": (2, 3)}
"""Axes of a row's positions."""
_ROUNDED = _POSITIONS.keys() - {"spans"}
"""What is kept as float16."""


def settle(experiment: Experiment, inputs: TaskInputs, before: Any = None) -> Experiment:
    """The experiment with `run.once` settled: `all` where half of the memory that is free has room for it.

    Args:
      experiment: what runs.
      inputs: what it reads.
      before: how it was settled when the run began, which is kept to.
    """
    if experiment.run.once != "auto":
        return experiment
    if before in ("all", "heads"):
        return experiment.with_run(once=before)
    whole = experiment.with_run(once="all")
    fits = sum(size for _, size in sizes(whole, inputs)) <= _room()
    return whole if all(distributed.gather(fits)) else experiment.with_run(once="heads")


def _room() -> int:
    """Bytes that may be kept, those included that already are and would give way."""
    return (memory.available_bytes() + sum(row.nbytes for row in jax.tree.leaves(list(_KEPT.values())))) // 2


def sizes(experiment: Experiment, inputs: TaskInputs) -> Iterator[tuple[str, int]]:
    """The views of which what is said is kept, and how many bytes that takes."""
    for view, want in experiment.reading().items():
        if experiment.known(view):
            config = experiment.models[experiment.reader(view)]
            rows = inputs.rows[experiment.data.views[view].vocabulary]
            real = rows.lengths.astype(float)
            states, layers = 2 * real.sum() * config.hidden, config.layers
            taken = {
                "first": 4 * len(rows) * layers * config.hidden,
                "last": states,
                "embeddings": states,
                "hidden": states * layers,
                "scores": 2 * np.square(real).sum() * layers * config.heads,
            }
            head = 4 * (2 * real.sum() if config.spans else len(rows) * len(config.classifier))
            yield view, int(head + sum(taken[name] for name in want))


def taught(
    experiment: Experiment,
    inputs: TaskInputs,
    params: Mapping[str, Any],
    sharding: jax.sharding.NamedSharding,
    notify: Callable[[str], None],
) -> dict[str, Read]:
    """For each view that `Experiment.known` names, a function of row numbers and a length to what is known of them.

    Args:
      experiment: what runs.
      inputs: what it reads.
      params: the parameters of its models.
      sharding: where the rows lie while they are computed.
      notify: is told how long that took.

    Raises:
      UserError: there is no memory for it; a number is too large for float16.
      Diverged: what the teacher says is not finite.
    """
    found, length = {}, experiment.data.length
    for view, size in sizes(experiment, inputs):
        name, role, want = experiment.data.views[view].vocabulary, experiment.reader(view), experiment.reading()[view]
        config, rows, start = experiment.models[role], inputs.rows[name], experiment.start[role]
        if size > _room():
            raise UserError(
                f"what {role!r} says of {len(rows):,} rows takes {size / 2**30:.1f} GiB, too much to keep here: "
                f"compute it at every step, with --once {'none' if want <= {'first'} else 'heads'}"
            )
        whole = isinstance(start, FromHuggingFace) and start.whole
        key = (start, start.contents(), None if whole else experiment.seed, config, rows, length, want)
        if key not in _KEPT:
            began = time.perf_counter()
            _KEPT.clear()
            batch = -(-32 // sharding.mesh.size) * sharding.mesh.size
            how = {"batch": batch, "sharding": sharding, "want": want, "label": role}
            said = read_rows(config, params[role], rows, inputs.vocabularies[name], length, **how)
            _KEPT[key] = _keep(said, rows.lengths)
            notify(f"computed what {view} says of {len(rows):,} rows in {time.perf_counter() - began:.1f} s")
        found[view] = functools.partial(_read, _KEPT[key])
    return found


_KEPT: dict[Any, Kept] = {}
"""What was computed last: the runs of a sweep share it."""


def _keep(said: Iterator[tuple[np.ndarray, dict[str, np.ndarray]]], lengths: np.ndarray) -> Kept:
    """What is said of each row, by name, without its padding."""
    kept: dict[str, list[Any]] = {}
    for taken, found in said:
        for name, values in found.items():
            own = kept.setdefault(name, [None] * len(lengths))
            for row, value in zip(taken, values, strict=True):
                for axis in _POSITIONS.get(name, ()):
                    value = np.take(value, np.arange(lengths[row]), axis)
                with np.errstate(over="ignore"):
                    own[row] = np.array(value, np.float16 if name in _ROUNDED else np.float32)
                if not np.isfinite(own[row]).all():
                    raise UserError(f"the teacher's {name} are too large to be kept as float16: use --once heads")
    return kept


def _read(kept: Kept, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """What is known of some rows, as arrays with the rows first; zeros of an empty row, number -1, and of padding."""
    found = {}
    for name, values in kept.items():
        shape = list(values[0].shape)
        for axis in _POSITIONS.get(name, ()):
            shape[axis] = length
        found[name] = np.zeros((len(rows), *shape), values[0].dtype)
        for place, row in enumerate(rows):
            if row >= 0:
                found[name][(place, *map(slice, values[row].shape))] = values[row]
    return found
