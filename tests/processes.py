"""Commands in several processes on this machine."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import jaxdistill

ROOT = pathlib.Path(jaxdistill.__file__).parent.parent
FLAGS = [
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
]


def free_port() -> int:
    """A port that is free, and so is the next one."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def environment(devices: int, **more: str) -> dict[str, str]:
    """What a process with so many emulated devices runs under."""
    flags = " ".join([f"--xla_force_host_platform_device_count={devices}", *FLAGS])
    own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return os.environ | own | more


class Process:
    """A command under way, and what it has said so far."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "jaxdistill.cli", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out, self.err = [], []
        self._readers = [
            threading.Thread(target=lambda stream=stream, lines=lines: lines.extend(stream), daemon=True)
            for stream, lines in ((self.popen.stdout, self.out), (self.popen.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def ended(self, seconds: float = 300) -> int:
        """Its exit code, waited for."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return code

    @property
    def said(self) -> str:
        return "".join(self.out) + "".join(self.err)

    @property
    def last(self) -> str:
        """The last thing on stderr."""
        return "".join(self.err).rpartition("jaxdistill: ")[2].strip()

    def worker(self) -> int:
        """The process that does the work, a child of this one."""
        for _ in range(2000):
            text = pathlib.Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text()
            if text.strip():
                return int(text.split()[0])
            time.sleep(0.05)
        raise AssertionError(f"no child: {self.said}")


@contextlib.contextmanager
def started(arguments: Sequence[str], processes: int, devices: int, **more) -> Iterator[list[Process]]:
    """The same command in several processes of so many devices each; none of them outlives the block.

    `more` may have `each`, further arguments by process, and `variables`, environment variables by process.
    """
    port, each, variables = free_port(), more.get("each", {}), more.get("variables", {})
    running = []
    try:
        for process in range(processes):
            own = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={process}"]
            running.append(
                Process([*arguments, *own, *each.get(process, [])], environment(devices, **variables.get(process, {})))
            )
        yield running
    finally:
        for process in running:
            process.popen.kill()  # Its child follows.
            process.popen.wait()


def wait_until(condition, running: Sequence[Process], seconds: float = 300) -> None:
    """Polls until a condition holds while all processes run."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, [process.said for process in running]
        assert all(process.popen.poll() is None for process in running), [process.said for process in running]
        time.sleep(0.01)
