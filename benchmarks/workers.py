"""Contestants in processes of their own, asked in turn: neither's threads or memory are in the other's way."""

import json
import os
import subprocess
import sys
from typing import Any


class Worker:
    """A script that runs one contestant: it prints a JSON object when it is ready, and another for every line it reads.

    Attributes:
      started: the object that it printed when it was ready.
    """

    def __init__(self, script: str | os.PathLike, *arguments: str):
        self._command = [sys.executable, os.fspath(script), *arguments]
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.started = self._answer()

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a line and waits for the answer."""
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self._command)} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def use_cores(count: int) -> None:
    """Restricts this process, and those that it starts from then on, to so many cores.

    Raises:
      SystemExit: there are fewer.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        sys.exit(f"{count} threads, but this process may use {len(cores)} cores only: ask for fewer --threads")
    os.sched_setaffinity(0, cores[:count])
    os.environ["OMP_NUM_THREADS"] = str(count)
