"""What one process finds out, and all of them go by."""

import os
import pickle
import secrets
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxdistill.errors import UserError
from jaxdistill.places import Place

Found = TypeVar("Found")


def by_first(find: Callable[[], Found]) -> Found:
    """Calls a function on process 0; every process returns what it returned, or raises the UserError that it raised.

    All processes make the same calls in the same order.
    """
    if jax.process_count() == 1:
        return find()
    found = error = None
    if jax.process_index() == 0:
        try:
            found = find()
        except UserError as raised:
            error = raised
    found, error = pickle.loads(_from_first(pickle.dumps((found, error))))
    if error is not None:
        raise error
    return found


def check_shared(folder: Place) -> None:
    """Checks that all processes see one and the same folder, which process 0 can write to.

    Raises:
      UserError: on every process, naming those that see another one.
    """
    if jax.process_count() == 1:
        return
    name = by_first(lambda: _leave(folder))
    seen = np.asarray(multihost_utils.process_allgather(np.int32((folder / name).exists())))
    if jax.process_index() == 0:
        (folder / name).unlink()
    others = ", ".join(str(process) for process in np.flatnonzero(seen == 0))
    if others:
        raise UserError(
            f"{folder} is another folder for process {others} than for process 0: all processes of a run share its "
            "--workdir, on a network disk or in a bucket (gs://...)"
        )


def _leave(folder: Place) -> str:
    name = f"shared-{secrets.token_hex(8)}"
    try:
        (folder / name).write_bytes(f"{os.getpid()}\n".encode())
    except Exception as error:  # Clients of buckets raise what they like.
        raise UserError(f"can't write in {folder}: {getattr(error, 'strerror', None) or error}") from None
    return name


def _from_first(data: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(size, np.uint8)
    if jax.process_index() == 0:
        padded[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
