"""SIGTERM and SIGINT as a request to stop at the next step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


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
