"""One run for each folder of a bucket, which has no locks: leases, objects that their holders renew.

A process that wants a folder writes a lease of its own, `lock/HOST-PID-RANDOM`, and then lists `lock/`; a lease that it
finds there and that is renewed while it watches belongs to a living process, and it gives way. Listing is consistent,
so of two that start at the same time at least one sees the other: both may give way, never both go on. A lease that was
not renewed for a minute belongs to a dead process and is removed; until then a start after a kill waits. Times are the
bucket's own, so that clocks of hosts may differ.

A process that was paused for longer than that finds, when it goes on, that its lease was removed, and ends at once: it
is as if it had been killed, which no run minds.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from jaxdistill.errors import UserError
from jaxdistill.places import Place

RENEWED = 15.0
SILENT = 60.0
WATCHED = 2.0
"""Seconds between renewals, until a silent lease counts as dead, and between two looks at the leases of others."""


@contextlib.contextmanager
def leased(folder: Place, notify: Callable[[str], None] = print) -> Iterator[None]:
    """Holds a lease in a folder of a bucket for the length of the body.

    Args:
      folder: where the leases are; nothing else is in it.
      notify: is told when a start has to wait.

    Raises:
      UserError: a living process holds one, or the bucket can't be used.
    """
    mine, ended = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}", threading.Event()
    renewing = threading.Thread(target=_renew, args=(mine, ended), name="lease", daemon=True)
    try:
        _write(mine)
    except Exception as error:
        raise UserError(f"can't use {folder.parent}: {type(error).__name__}: {error}") from None
    renewing.start()
    try:
        _outwait(mine, notify)
        yield
    finally:
        ended.set()
        renewing.join(RENEWED)
        with contextlib.suppress(Exception):  # In an unreachable bucket the lease falls silent.
            mine.unlink(missing_ok=True)


def _write(mine: Place) -> None:
    mine.write_bytes(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())


def _others(mine: Place) -> list[Place]:
    return [lease for lease in mine.parent.glob("*") if lease.name != mine.name]


def _outwait(mine: Place, notify: Callable[[str], None]) -> None:
    """Returns when no other lease is left; raises UserError when one of them is renewed."""
    seen: dict[Place, int] = {}
    while others := _others(mine):
        _write(mine)
        now = mine.stat().mtime
        for other in others:
            try:
                at, holder = other.stat().mtime, _holder(other)
            except FileNotFoundError:
                continue
            if other not in seen and now - at <= SILENT:
                notify(f"{mine.parent.parent} was in use by {holder} {max(now - at, 0):.0f} s ago: waiting for its end")
            if seen.setdefault(other, at) != at:
                raise UserError(
                    f"{mine.parent.parent} is in use by {holder}: wait until it has finished, stop it, "
                    "or choose another --workdir"
                )
            if now - at > SILENT:
                other.unlink(missing_ok=True)
        time.sleep(WATCHED)


def _holder(lease: Place) -> str:
    try:
        holder = json.loads(lease.read_bytes())
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _renew(mine: Place, ended: threading.Event) -> None:
    """Renews a lease until the end; ends the process if somebody else took its place.

    Between the look and the write the lease may be removed, if the process was paused just there. Then it stands beside
    that of the new holder, who was there before this write.
    """
    renewed = time.monotonic()
    while not ended.wait(RENEWED):
        try:
            lost = not mine.exists()
            if not lost:
                _write(mine)
                lost = time.monotonic() - renewed > SILENT / 2 and bool(_others(mine))
        except Exception:  # The bucket can't be reached: the next look may say more.
            continue
        if lost:
            _end(f"{mine.parent.parent} was taken over by another process while this one was paused; this one ends")
        renewed = time.monotonic()


def _end(line: str) -> None:
    print(f"jaxdistill: {line}", file=sys.stderr, flush=True)
    os._exit(2)
