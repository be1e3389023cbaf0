"""SIGTERM and SIGINT as a request to stop at the next step, and how a command then ends; Ctrl-C during imports."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED = "interrupted"
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a command that SIGTERM stopped: its work is saved and not finished, as a scheduler must know."""


@contextlib.contextmanager
def catching() -> Iterator[Callable[[], str]]:
    """Yields a function that names the signal that asked to stop, "" as long as none did.

    A second SIGINT (Ctrl-C) interrupts at once. Off the main thread nothing is caught.
    """
    received: list[str] = []

    def handle(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(name: str) -> NoReturn:
    """Ends a command that a signal stopped, by its name: with exit code 130 after Ctrl-C and 143 after SIGTERM."""
    if name == signal.SIGINT.name:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)


@contextlib.contextmanager
def interruptible_imports() -> Iterator[None]:
    """Lets Ctrl-C during an import end the process with 130; elsewhere it raises KeyboardInterrupt as ever.

    Extension modules that meet an exception while they load crash, or pass it off as another one. Nothing is done off
    the main thread, or where Ctrl-C already means something else.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                os.write(2, f"{INTERRUPTED}\n".encode())
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
