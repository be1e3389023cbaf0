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
    """The time of steps: seconds, how many of them were spent waiting for batches, and the positions read in them."""

    def __init__(self, ahead: Prefetch):
        """Starts to count."""
        self._ahead, self._seconds, self._waiting, self._positions = ahead, 0.0, 0.0, 0
        self.resume()

    def resume(self) -> None:
        """Counts from now on; what was since the last pause does not count."""
        self._began, self._waited = time.perf_counter(), self._ahead.waited

    def pause(self) -> None:
        """Counts no more until `resume`."""
        self._seconds += time.perf_counter() - self._began
        self._waiting += self._ahead.waited - self._waited

    def read(self, positions: int) -> None:
        """A step that counts has read so many positions."""
        self._positions += positions

    def lap(self) -> tuple[int, float, float]:
        """Positions, seconds and seconds of waiting since the last lap; the next one begins."""
        self.pause()
        found = self._positions, self._seconds, self._waiting
        self._seconds, self._waiting, self._positions = 0.0, 0.0, 0
        self.resume()
        return found


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
