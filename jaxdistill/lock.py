"""One process for each workdir: a lock that the kernel lets go when its holder dies, however it dies."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator, Sequence

from jaxdistill.errors import UserError
from jaxdistill.lease import leased
from jaxdistill.places import place, remote

NAME = "lock"
_held: set[int] = set()


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds `workdir/lock` for the length of the body; creates the folder when it is missing.

    When the body raises and has written nothing, the lock and the folders made for it are removed again. In a bucket,
    which has no locks, it is a folder of leases.

    Raises:
      UserError: another process holds it, or the file system has no locks.
    """
    path = place(workdir) / NAME
    if remote(path):
        with leased(path):
            yield
        return
    try:
        made = [place for place in (path, *path.parents) if not place.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"can't use {workdir} as a workdir: {path}: {error.strerror}") from None
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(handle).st_nlink:  # its maker failed and removed it just now
                raise BlockingIOError
        except BlockingIOError:
            raise UserError(
                f"{workdir} is in use by {_holder(handle)}: wait until it has finished, stop it, "
                "or choose another --workdir"
            ) from None
        except OSError as error:
            raise UserError(f"{path} can't be locked ({error.strerror}): put --workdir on another disk") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        try:
            yield
        except BaseException:
            if handle in _held:
                _remove(made)
            raise
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def _remove(made: Sequence[pathlib.Path]) -> None:
    """Removes a new lock and then its new folders, from the inside out, as far as nothing else is in them."""
    with contextlib.suppress(OSError):
        if made and os.listdir(made[0].parent) == [NAME]:
            made[0].unlink()
            for folder in made[1:]:
                folder.rmdir()


def _holder(handle: int) -> str:
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _forget() -> None:
    """Closes the locks in a forked child: flock belongs to the open file, and a child would keep it past our death."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
