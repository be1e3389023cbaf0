"""Batches on their way to the devices: computed ahead in a thread, then made global arrays."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax

from jaxdistill.errors import UserError


class Prefetch(Iterator):
    """Iterates over `batches(step)` for the steps in [start, stop), each computed ahead of its use.

    An exception in `batches` is raised where its batch would have come. `close`, or the end of a `with` block, stops
    the thread.

    Attributes:
      waited: seconds that the consumer has spent waiting for batches so far.
    """

    def __init__(self, batches: Callable[[int], Any], start: int, stop: int, *, ahead: int = 4):
        """Starts computing.

        Args:
          batches: a pure function of the step.
          start: the first step.
          stop: the step after the last.
          ahead: how many batches are kept ready, at least 1.
        """
        self.waited = 0.0
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
        steps = grain.MapDataset.range(start, max(start, stop))
        self._batches = iter(steps.map(batches).to_iter_dataset(options))
        self._batches.start_prefetch()

    def __next__(self) -> Any:
        began = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self.waited += time.perf_counter() - began

    def close(self) -> None:
        """Stops computing ahead."""
        self._batches.close()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def own_rows(batch: Any) -> Any:
    """This process's share of a batch that every process has whole: equal parts, in the order of the processes."""
    processes, process = jax.process_count(), jax.process_index()

    def cut(leaf):
        share = leaf.shape[0] // processes
        return leaf[process * share : (process + 1) * share]

    return jax.tree.map(cut, batch) if processes > 1 else batch


def to_global(batch: Any, sharding: jax.sharding.NamedSharding) -> Any:
    """Makes global arrays of every process's own rows.

    Args:
      batch: a tree of numpy arrays whose first axis is this process's share of the batch.
      sharding: of the first axis over the mesh; the processes hold the rows in their order.

    Returns:
      The same tree of global jax arrays [processes * rows, ...].

    Raises:
      UserError: the devices do not divide the batch, or the sharding asks this process for rows that it does not have.
    """
    for rows in {leaf.shape[0] for leaf in jax.tree.leaves(batch)}:
        _check_rows(rows, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)


def _check_rows(rows: int, sharding: jax.sharding.NamedSharding) -> None:
    total = rows * jax.process_count()
    try:
        indices = sharding.addressable_devices_indices_map((total,)).values()
    except ValueError as error:
        raise UserError(f"a batch of {total} rows does not divide over the devices of {sharding}: {error}") from None
    spans = [index[0].indices(total) for index in indices]
    asked = min(span[0] for span in spans), max(span[1] for span in spans)
    first = rows * jax.process_index()
    if asked != (first, first + rows):
        raise UserError(
            f"the mesh wants rows {asked[0]} to {asked[1]} from process {jax.process_index()}, which has "
            f"{first} to {first + rows}: order the mesh's devices by process and shard the batch over all of them"
        )
