"""Which of several processes this one is: from options, from environment variables, or as jax finds it."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

from jaxdistill import knobs
from jaxdistill.errors import UserError

WAIT = 50
_FOUND = 60
_VARIABLES = {
    "--coordinator": "JAX_COORDINATOR_ADDRESS",
    "--processes": "JAX_NUM_PROCESSES",
    "--process": "JAX_PROCESS_ID",
}
_DETECT = """
import json
from jax._src import clusters
address, count, index, _ = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 30)
print(json.dumps([address, count, index]))
"""
"""jax has no public name for what `jax.distributed.initialize()` finds out, and we must know it before."""


def options(
    coordinator: Annotated[
        str,
        "HOST:PORT of process 0, or auto where jax finds it (Cloud TPU, GKE, Slurm); PORT+1 is used too",
        "Several processes (the same command on each)",
    ] = "",
    processes: Annotated[int, "how many processes there are"] = 1,
    process: Annotated[int, "which one this is, from 0"] = 0,
    wait: Annotated[int, "seconds to wait at the start until all are there"] = WAIT,
):
    """Which of several processes this one is; `JAX_COORDINATOR_ADDRESS` and the like stand for what is left out."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One of several processes.

    Attributes:
      host: where process 0 is.
      port: where it takes the roll call; jax has the next one.
      processes: how many there are.
      process: which one this is.
      wait: seconds until all must be there.
    """

    host: str
    port: int
    processes: int
    process: int
    wait: float = WAIT

    @property
    def runtime_port(self) -> int:
        """The port of jax's own service."""
        return self.port + 1 if self.port < 65535 else self.port - 1

    @property
    def loopback(self) -> bool:
        """Whether all processes are on this machine."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    def address(self, port: int) -> str:
        """The host and a port as one word."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def asked(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Member | None, list[str]]:
    """Which process a command line asks to be, None for a run of one process, and the other arguments.

    Raises:
      UserError: something is missing or makes no sense.
    """
    own, rest, words = [], [], iter(arguments)
    names = {knob.option for knob in knobs.of(options)}
    for word in words:
        name, equals, _ = word.replace("_", "-").partition("=")
        if name not in names:
            rest.append(word)
            continue
        own += [word] if equals else [word, *(value for value in [next(words, None)] if value is not None)]
    given = {word.partition("=")[0].replace("_", "-") for word in own if word.startswith("--")}
    for name, variable in _VARIABLES.items():
        if name not in given and environment.get(variable):
            own.append(f"{name}={environment[variable]}")
            given.add(name)
    values = knobs.parse(options, own)
    if not given & set(_VARIABLES):
        return None, rest
    if "--coordinator" not in given:
        raise UserError("several processes need --coordinator HOST:PORT, the same on each: an address of process 0")
    if values["coordinator"] == "auto":
        return _of(*_detected(), values["wait"]), rest
    missing = [name for name in ("--processes", "--process") if name not in given]
    if missing:
        raise UserError(f"--coordinator needs {' and '.join(missing)} too, or --coordinator auto")
    return _of(values["coordinator"], values["processes"], values["process"], values["wait"]), rest


def _of(address: str, processes: int, process: int, wait: int) -> Member | None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator {address!r} is not HOST:PORT, such as 10.0.0.2:8476")
    if processes < 1:
        raise UserError(f"--processes {processes}: give at least 1")
    if not 0 <= process < processes:
        raise UserError(f"--process {process} of --processes {processes}: number them from 0 to {processes - 1}")
    if wait < 1:
        raise UserError(f"--wait {wait}: give at least 1 second")
    return Member(host.strip("[]"), int(port), processes, process, wait) if processes > 1 else None


def _detected() -> tuple[str, int, int]:
    """Address, number and index, as jax finds them; by a process of its own, since it takes all of jax."""
    try:
        found = subprocess.run([sys.executable, "-c", _DETECT], capture_output=True, text=True, timeout=_FOUND)
        address, count, index = json.loads(found.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        address = count = index = None
    if None in (address, count, index):
        raise UserError(
            "--coordinator auto: jax finds no cluster here; give --coordinator HOST:PORT, --processes and --process"
        )
    return address, count, index
