"""Where the time of a run goes: seconds between lines of metrics, and a profiler's trace."""

import pathlib
import time
from typing import Any

import jax

from jaxdistill.data.loader import Prefetch


class Clock:
    """Seconds between laps, and how many of them were spent waiting for batches."""

    def __init__(self, ahead: Prefetch):
        """Starts the first lap."""
        self._ahead, self._began, self._waited = ahead, time.perf_counter(), ahead.waited

    def lap(self) -> tuple[float, float]:
        """Ends a lap: its seconds, and those of waiting among them."""
        began, waited = self._began, self._waited
        self._began, self._waited = time.perf_counter(), self._ahead.waited
        return self._began - began, self._waited - waited


class Profile:
    """A profiler trace of some steps, from `first` on; a context manager."""

    def __init__(self, folder: pathlib.Path, first: int, count: int):
        """Nothing happens before step `first`; with a count of 0 nothing ever does."""
        self._folder, self._first, self._stop, self._running = folder, first, first + count, False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def at(self, number: int, pending: Any) -> None:
        """Is called before each step, with what the steps before it still compute."""
        if self._first == number < self._stop:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif self._running and number == self._stop:
            jax.block_until_ready(pending)
            jax.profiler.stop_trace()
            self._running = False
