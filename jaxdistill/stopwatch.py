"""Where the time of a run goes: seconds between lines of metrics, and a profiler's trace."""

import pathlib
import shutil
import tempfile
import time
from typing import Any

import jax

from jaxdistill import files
from jaxdistill.data.loader import Prefetch
from jaxdistill.places import Place, file_names, remote


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

    def __init__(self, folder: Place, first: int, count: int):
        """Nothing happens before step `first`; with a count of 0 nothing ever does."""
        self._folder, self._first, self._stop = folder, first, first + count
        self._local: pathlib.Path | None = None

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        self._end()

    def at(self, number: int, pending: Any) -> None:
        """Is called before each step, with what the steps before it still compute."""
        if self._first == number < self._stop:
            # The profiler writes to disks alone.
            self._local = pathlib.Path(tempfile.mkdtemp()) if remote(self._folder) else self._folder
            jax.profiler.start_trace(self._local)
        elif self._local and number == self._stop:
            jax.block_until_ready(pending)
            self._end()

    def _end(self) -> None:
        """Ends the trace, if it runs."""
        local, self._local = self._local, None
        if local is None:
            return
        jax.profiler.stop_trace()
        if local != self._folder:
            for name in file_names(local):
                with files.atomic(self._folder / name) as temporary:
                    shutil.copyfile(local / name, temporary)
            shutil.rmtree(local)
