"""The progress line of a training run: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Steps done, metrics and the time left, on stderr; a context manager."""

    def __init__(self, steps: int, start: int = 0, *, every: float = 30.0, file: TextIO | None = None):
        """Starts at step `start` of `steps`; off a terminal it prints a line at most every `every` seconds."""
        self._file = sys.stderr if file is None else file
        self._steps, self._start, self._every = steps, start, every
        self._began = time.monotonic()
        self._printed: float | None = None
        terminal = self._file.isatty()
        self._bar = (
            tqdm(total=steps, initial=start, unit="step", file=self._file, dynamic_ncols=True) if terminal else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Moves to a step; new values (loss, accuracy, positions/s) replace those shown."""
        if self._bar is not None:
            if values:
                self._bar.set_postfix({name: _short(value) for name, value in values.items()}, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        due = self._printed is None or now - self._printed >= self._every or step == self._steps
        if values and due:
            self._printed = now
            shown = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
            done = step - self._start
            left = (now - self._began) / done * (self._steps - step) if done else 0.0
            print(f"step {step:,}/{self._steps:,}  {shown}  {_clock(left)} left", file=self._file, flush=True)

    def restart(self, step: int) -> None:
        """Counts the time left from now and this step on: what came before (compiling) does not come again."""
        self._start, self._began = step, time.monotonic()
        if self._bar is not None:
            self._bar.initial = self._bar.n = step
            self._bar.start_t = time.time()

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._file)
        else:
            print(text, file=self._file, flush=True)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)
