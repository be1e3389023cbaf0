"""The small parent of one of several processes: it starts the real command, and all parents end it together.

The runtime ends a process that lost a peer by SIGABRT and a C++ stack, or leaves it in a collective that never ends; no
`except` sees either. So the command runs in a child. Parents keep the connections of the roll call: when a child ends
other than well, its parent reports why, process 0 waits a moment for better reasons, and its verdict, one line, ends
the command on every process. Nothing here imports jax.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxdistill import roll_call, signals
from jaxdistill.line import Line
from jaxdistill.member import Member

GRACE = 3.0
"""Seconds between the first bad end and the verdict: the death of one process makes others fail too, and their ends may
be heard of before its own."""
_RANKS = ("killed", "gone", "error", "ended")
"""Kinds of bad ends, the likeliest cause of the others first."""
_ALIKE = ("--dry-run", "--no-dry-run", "--fallback", "--no-fallback")
"""Options by which processes part ways before they compare what they were asked for."""
_AGAIN = "every process stops; the same commands go on"


def run(member: Member, arguments: Sequence[str]) -> int:
    """Runs a command as one of several processes; its exit code.

    Args:
      member: which one.
      arguments: the command line without the options of `member`.

    Raises:
      UserError: the processes do not come together.
    """
    flags = [word for word in arguments if word.replace("_", "-").partition("=")[0] in _ALIKE]
    own = roll_call.call_of(member, " ".join([arguments[0], *sorted(flags)]))
    with contextlib.ExitStack() as stack, _signals() as bell:
        ear = roll_call.listen(member) if member.process == 0 else None
        if ear is None:
            line, host = roll_call.answer(member, own)
            watch = _Watch(member, own, {0: line}, {0: host, member.process: own["host"]}, None)
        else:
            stack.enter_context(ear)
            lines, calls = roll_call.take(ear, own, member.wait)
            watch = _Watch(member, own, lines, {call["process"]: call["host"] for call in calls}, ear)
        return watch.run(arguments, bell)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket from which the numbers of SIGTERM and SIGINT can be read; until then they end the process at once."""
    bell, clapper = socket.socketpair()
    clapper.setblocking(False)
    ends = {signal.SIGTERM: lambda *_: signals.stop("SIGTERM"), signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, end) for number, end in ends.items()}
    wake = signal.set_wakeup_fd(clapper.fileno(), warn_on_full_buffer=False)
    try:
        yield bell
    finally:
        signal.set_wakeup_fd(wake)
        for number, handler in before.items():
            signal.signal(number, handler)
        bell.close()
        clapper.close()


class _Watch:
    """A command that runs, and what is known of the others."""

    def __init__(
        self,
        member: Member,
        own: roll_call.Call,
        lines: Mapping[int, Line],
        hosts: Mapping[int, str],
        ear: socket.socket | None,
    ):
        self.member, self.own, self.lines, self.hosts, self.ear = member, own, dict(lines), hosts, ear
        self.selector = selectors.DefaultSelector()
        self.reports: dict[int, Mapping[str, Any]] = {}
        self.ends: float | None = None
        self.verdict: str | None = None
        self.interrupts = 0

    def run(self, arguments: Sequence[str], bell: socket.socket) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the bell rings
        box, inner = os.pipe()
        self.child = self._start(arguments, inner)
        os.close(inner)
        echo = self._echo()
        on = {box: lambda: self._told(box), bell: lambda: self._rung(bell)}
        on |= {line: lambda at=at, line=line: self._heard(at, line) for at, line in self.lines.items()}
        on |= {self.ear: self._late} if self.ear else {}
        try:
            for source, function in on.items():
                self.selector.register(source, selectors.EVENT_READ, function)
            while self.verdict is None:
                left = None if self.ends is None else max(self.ends - time.monotonic(), 0)
                for key, _ in self.selector.select(left):
                    key.data()
                self._judge()
        finally:
            if self.verdict != "":
                self.child.kill()  # It may hang in a collective, or at its exit.
            self.child.wait()
            if echo:
                echo.join(10)
            self.selector.close()
            for line in self.lines.values():
                line.close()
            os.close(box)
        if self.verdict:
            print(f"jaxdistill: {self.verdict}", file=sys.stderr, flush=True)
            return 2
        return 130 if self.interrupts else self.child.returncode

    def _start(self, arguments: Sequence[str], inner: int) -> subprocess.Popen:
        member, first = self.member, self.member.process == 0
        settings = {
            "address": member.address(member.runtime_port),
            "bind": member.address(member.runtime_port) if member.loopback else None,
            "processes": member.processes,
            "process": member.process,
            "parent": os.getpid(),
            "box": inner,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "jaxdistill.child", json.dumps(settings), *arguments],
            pass_fds=[inner],
            start_new_session=True,  # Ctrl-C on a terminal is for us.
            stdin=subprocess.DEVNULL,
            stdout=None if first else subprocess.DEVNULL,
            stderr=None if first else subprocess.PIPE,
        )

    def _echo(self) -> threading.Thread | None:
        """Passes on what the child says on stderr, each line with the process's number."""
        if self.child.stderr is None:
            return None

        def copy():
            for line in self.child.stderr:
                with contextlib.suppress(OSError):
                    sys.stderr.buffer.write(b"process %d: " % self.member.process + line)
                    sys.stderr.buffer.flush()

        thread = threading.Thread(target=copy, daemon=True)
        thread.start()
        return thread

    def _rung(self, bell: socket.socket) -> None:
        for number in bell.recv(1024):
            if number == signal.SIGINT:
                self.interrupts += 1
            if self.interrupts > 1:
                self._report({"kind": "killed", "text": "was interrupted"})
            elif self.child.poll() is None:
                self.child.terminate()  # To the runtime a notice of preemption, which it tells all processes.

    def _told(self, box: int) -> None:
        """The child said why it ends, or has ended."""
        data = os.read(box, 2**20)
        if data:
            self._report({"kind": "error", "text": data.decode(errors="replace")})
            return
        self.selector.unregister(box)
        code = self.child.wait()
        if self.member.process in self.reports:
            return
        if code == -signal.SIGABRT:
            self._report({"kind": "ended", "text": "was ended by the runtime (SIGABRT; its reason is above, there)"})
        elif code < 0:
            self._report({"kind": "killed", "text": f"was killed by {signal.Signals(-code).name}"})
        elif code not in (0, signals.TERMINATED):
            self._report({"kind": "ended", "text": f"ended with exit code {code}; its reason is above, there"})
        else:
            self._report({"kind": "done", "text": ""})

    def _report(self, report: Mapping[str, Any]) -> None:
        if self.member.process:
            self.reports[self.member.process] = report
            if not self.lines[0].send({"report": report}):
                self._alone()
        else:
            self._reported(0, report)

    def _heard(self, process: int, line: Line) -> None:
        values = line.receive()
        for value in values or []:
            if "verdict" in value:
                self.verdict = value["verdict"]
            elif "report" in value:
                self._reported(process, value["report"])
        if values is None:
            self.selector.unregister(line)
            if self.member.process:
                self._alone()
            else:
                self._reported(process, {"kind": "gone", "text": "has gone without a word"})

    def _alone(self) -> None:
        if self.verdict is None:
            self.verdict = self._line(0, {"kind": "gone", "text": "has gone without a word"})

    def _reported(self, process: int, report: Mapping[str, Any]) -> None:
        """Process 0 hears of an end."""
        known = self.reports.get(process)
        if known is None or (known["kind"] == "done" and report["kind"] != "gone"):
            self.reports[process] = report
        if self.ends is None and report["kind"] in _RANKS:
            self.ends = time.monotonic() + GRACE

    def _judge(self) -> None:
        """Process 0's verdict, when it is due: "" when all have done their work."""
        if self.member.process or self.verdict is not None:
            return
        bad = {process: report for process, report in self.reports.items() if report["kind"] in _RANKS}
        everyone = len(self.reports) == self.member.processes
        if bad and (everyone or time.monotonic() >= self.ends):
            process = min(bad, key=lambda at: (_RANKS.index(bad[at]["kind"]), bad[at]["kind"] == "error" and at))
            self.verdict = self._line(process, bad[process])  # Of equal ends the first that came; of errors the lowest.
        elif everyone:
            self.verdict = ""
        if self.verdict is not None:
            for line in self.lines.values():
                line.send({"verdict": self.verdict})

    def _line(self, process: int, report: Mapping[str, Any]) -> str:
        who = f"process {process} on {self.hosts[process]}"
        if report["kind"] == "error":
            return report["text"] if process == 0 else f"{who}: {report['text']}"
        return f"{who} {report['text']}: {_AGAIN}"

    def _late(self) -> None:
        """Somebody calls after the roll call: a second process of some number, or a host that came back too early."""
        with contextlib.suppress(OSError):
            line = Line(self.ear.accept()[0])
            text = (
                f"the processes of {roll_call.name(self.own)} have joined already and run: wait until they have ended"
            )
            line.send({"error": text})
            line.close()
