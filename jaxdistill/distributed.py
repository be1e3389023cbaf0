"""Several processes as one program: joining them, what they agree on, and where values of all of them lie."""

import collections
import ctypes
import itertools
import json
import os
import signal
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdistill.errors import UserError

HEARTBEAT = 30
"""Seconds after which the runtime takes a silent process for dead; jax's default is 100."""
_START, _END = 60, 300


def follow(parent: int) -> None:
    """Has the kernel kill this process when its parent dies; only Linux does."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def join(address: str, bind: str | None, processes: int, process: int, preemptible: bool) -> None:
    """Makes this process one of several; nothing may have used a device before.

    Args:
      address: where process 0 serves the others.
      bind: the address on which it listens; all of its host's when None.
      processes: how many there are.
      process: which one this is.
      preemptible: SIGTERM to one is a notice to all (see `preempted`); otherwise it ends the process.

    Raises:
      UserError: they do not come together, or have different numbers of devices.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", preemptible)
    try:
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=_START,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=_END,
            coordinator_bind_address=bind,
        )
    except RuntimeError as error:
        raise UserError(f"the processes could not join at {address}: {str(error).splitlines()[0]}") from error
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"process {index} has {count}" for index, count in sorted(counts.items()))
        raise UserError(f"every process must have the same number of devices: {listed}")


def leave() -> None:
    """Waits until all processes have done their work."""
    jax.distributed.shutdown()


def gather(value: Any) -> list[Any]:
    """A JSON value of each process, in their order; all processes get the same list, and must ask at the same time."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps([jax.process_index(), value]).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size, np.int32)).ravel()
    rows = multihost_utils.process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    found = dict(json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True))
    return [found[process] for process in range(jax.process_count())]


def put(values: Any, shardings: Any) -> Any:
    """Places a tree of arrays that every process has alike, without comparing them."""
    if jax.process_count() == 1:
        return jax.device_put(values, shardings)

    def place(value, sharding):
        whole = np.asarray(value)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, values, shardings)


def to_host(array: jax.Array) -> np.ndarray:
    """The whole of an array, on every process; all must ask at the same time."""
    return np.asarray(array) if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True)


_CALLS, _REACHED = itertools.count(), []
"""Of `preempted`, for as long as the process lives: the runtime counts on, whichever run it is."""


def preempted() -> str:
    """What all processes ask once a step: "SIGTERM" from the same call on when one of them received it, else ""."""
    if not _REACHED and multihost_utils.reached_preemption_sync_point(next(_CALLS)):
        _REACHED.append(signal.SIGTERM.name)
    return "".join(_REACHED)
