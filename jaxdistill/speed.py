"""How long models take for full rows, measured in turns."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdistill import bert
from jaxdistill.bert import BertConfig

BATCH = 32
"""Rows at a time when throughput is measured."""


def reading(config: BertConfig, params: Mapping[str, Any], length: int, rows: int) -> Callable[[], Any]:
    """A call that runs a model on so many full rows.

    Of a masked LM it scores all pieces at one place of each row; with the head of a task it gives what that says;
    without a head it is the encoder alone.
    """
    params = jax.device_put(params)
    ids, places = np.ones((rows, length), np.int32), np.zeros((rows, 1), np.int32)
    return lambda: jax.block_until_ready(_read(config, params, ids, ids > 0, places))


@functools.partial(jax.jit, static_argnums=0)
def _read(config, params, ids, mask, places):
    if config.mlm:
        return bert.predict(config, params, ids, mask, places)
    if config.classifier or config.spans:
        return bert.judge(config, params, ids, mask, 0 * ids)["spans" if config.spans else "classes"]
    return bert.encode(config, params, ids, mask)


def turns(
    calls: Mapping[str, Callable[[], Any]], least: int, most: int | None = None, seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds that each call takes in every round; a machine that slows down slows all of them. They are warm.

    Args:
      calls: by name; each is made once before the first round, to compile.
      least: rounds.
      most: rounds, if they fit in the time; no more than the least when None.
      seconds: for each call, for all rounds.
    """
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    for number in range(least if most is None else most):
        if number >= least and time.perf_counter() > end:
            break
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - began)
    return found
