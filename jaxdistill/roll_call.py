"""The roll call of several processes, over a plain socket before the runtime starts.

Where a process is missing, is there twice or has other versions, the runtime would hang and then abort every process.
Here each process says who it is, and process 0 answers all of them: go, or the one error that everyone prints. The
connections stay open: they are how the processes hear of each other's end.
"""

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill.errors import UserError
from jaxdistill.line import Line
from jaxdistill.member import Member
from jaxdistill.versions import versions

_LINGER = 10.0
"""Seconds for which process 0 tells an error to processes that are still on their way."""
Call = Mapping[str, Any]


def call_of(member: Member, command: str) -> Call:
    """What this process says of itself."""
    return {
        "process": member.process,
        "processes": member.processes,
        "command": command,
        "versions": versions(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def name(call: Call) -> str:
    """How a process is called in messages."""
    return f"process {call['process']} on {call['host']} (pid {call['pid']})"


def trouble(calls: Sequence[Call]) -> str:
    """What is wrong with those who called so far, process 0 first; "" when they may go on."""
    first, seen = calls[0], {}
    for call in calls:
        if call["processes"] != first["processes"]:
            return (
                f"{name(first)} was started with --processes {first['processes']}, {name(call)} with --processes "
                f"{call['processes']}: give all the same"
            )
        other = seen.setdefault(call["process"], call)
        if other is not call:
            return (
                f"two processes have the number {call['process']}: {name(other)} and {name(call)}; give each its own "
                f"--process, from 0 to {first['processes'] - 1}"
            )
        if call["command"] != first["command"]:
            return f"{name(first)} runs {first['command']}, {name(call)} runs {call['command']}: start all alike"
        for package, there in first["versions"].items():
            here = call["versions"].get(package)
            if here != there:
                differing = f"{name(first)} has {package} {there}, {name(call)} has {here}"
                return f"{differing}: install the same versions everywhere"
    return ""


def listen(member: Member) -> socket.socket | None:
    """Process 0's ear; None where its port is taken.

    Raises:
      UserError: it can't listen, or the runtime's port is taken.
    """
    ear = _ear(member, member.port)
    probe = _ear(member, member.runtime_port) if ear else None
    if ear and not probe:
        ear.close()
        raise UserError(
            f"port {member.runtime_port}, the one after --coordinator's, is in use: choose another --coordinator"
        )
    if probe:
        probe.close()
    return ear


def _ear(member: Member, port: int) -> socket.socket | None:
    try:
        if member.loopback:
            family = socket.AF_INET6 if ":" in member.host else socket.AF_INET
            return socket.create_server((member.host, port), family=family, backlog=1024)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise UserError(f"can't listen on port {port}: {error.strerror}; choose another --coordinator") from None


def take(ear: socket.socket, own: Call, wait: float) -> tuple[dict[int, Line], list[Call]]:
    """Process 0's part: hears all others and answers them.

    Returns:
      The connections by process, and what each said, in the order of their numbers.

    Raises:
      UserError: they do not fit together, or some are missing after `wait` seconds; all that are there are told.
    """
    ends, calls = time.monotonic() + wait, [own]
    lines: dict[Line, Call | None] = {}
    try:
        while len(calls) < own["processes"]:
            for line in _heard(ear, lines, ends - time.monotonic()):
                calls.append(lines[line])
                if problem := trouble(calls):
                    raise UserError(problem)
            if time.monotonic() >= ends and len(calls) < own["processes"]:
                there = {call["process"] for call in calls}
                missing = ", ".join(str(i) for i in range(own["processes"]) if i not in there)
                raise UserError(
                    f"{len(calls)} of {own['processes']} processes were there after {wait:g} s; missing: {missing}. "
                    "Start them with the same --coordinator, or give all more time with --wait"
                )
    except BaseException as error:
        _tell(ear, lines, str(error) or f"{name(own)} was interrupted", calls, isinstance(error, UserError))
        raise
    found = {}
    for line, call in lines.items():
        if call is None:
            line.close()
        else:
            found[call["process"]] = line
            line.send({"go": True, "host": own["host"]})
    return found, sorted(calls, key=lambda call: call["process"])


def _heard(ear: socket.socket, lines: dict[Line, Call | None], seconds: float) -> list[Line]:
    """Waits for one thing to happen; connections whose call has come with it. Strangers are dropped."""
    with selectors.DefaultSelector() as selector:
        for source in (ear, *(line for line, call in lines.items() if call is None)):
            selector.register(source, selectors.EVENT_READ)
        ready = [key.fileobj for key, _ in selector.select(max(seconds, 0))]
    found = []
    for source in ready:
        if source is ear:
            with contextlib.suppress(OSError):
                lines[Line(ear.accept()[0])] = None
            continue
        values = source.receive()
        if values is None or any(not _is_call(value) for value in values):
            source.close()
            del lines[source]
        elif values:
            lines[source] = values[0]
            found.append(source)
    return found


def _is_call(value: Any) -> bool:
    kinds = {"process": int, "processes": int, "command": str, "versions": dict, "host": str, "pid": int}
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def _tell(ear: socket.socket, lines: dict[Line, Call | None], text: str, calls: Sequence[Call], linger: bool) -> None:
    """Tells an error to all who are there, and for some seconds to those who come later."""
    for line, call in lines.items():
        if call is not None:
            line.send({"error": text})
    expected = max(call["processes"] for call in calls) - len(calls)
    ends = time.monotonic() + (_LINGER if linger else 0)
    while expected > 0 and time.monotonic() < ends:
        for line in _heard(ear, lines, ends - time.monotonic()):
            line.send({"error": text})
            expected -= 1


def answer(member: Member, own: Call) -> tuple[Line, str]:
    """Another process's part: calls process 0 and waits for its answer.

    Returns:
      The connection, and the host of process 0.

    Raises:
      UserError: process 0 can't be reached, or refuses.
    """
    ends, reason = time.monotonic() + member.wait, "nothing listens there"
    where = member.address(member.port)
    while time.monotonic() < ends:
        try:
            line = Line(socket.create_connection((member.host, member.port), timeout=5))
        except socket.gaierror:
            reason = f"the name {member.host} is not known"
        except TimeoutError:
            reason = "it does not answer"
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            # It has its own clock, which may have started after ours.
            reply, reason = _reply(line, own, time.monotonic() + member.wait + _LINGER)
            if reply:
                return line, reply
        time.sleep(0.2)
    raise UserError(
        f"process 0 could not be reached at {where} for {member.wait:g} s ({reason}): is it running, is --coordinator "
        "an address of its host, and may its ports be reached from here?"
    )


def _reply(line: Line, own: Call, ends: float) -> tuple[str, str]:
    """The host of process 0, or "" and what went wrong on the way."""
    line.send(own)
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while time.monotonic() < ends:
            if not selector.select(1.0):
                continue
            values = line.receive()
            if values is None:
                line.close()
                return "", "it hung up, or is no process of jaxdistill"
            for value in values:
                if isinstance(value, dict) and "error" in value:
                    line.close()
                    raise UserError(str(value["error"]))
                if isinstance(value, dict) and value.get("go"):
                    return str(value["host"]), ""
    line.close()
    return "", "it takes calls, but never said go"
