"""Files that are whole or absent: atomic writes, hashes, JSON."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from jaxdistill.errors import UserError
from jaxdistill.places import Place, make_folder, place, remote

_PAUSE = 10.0
_RATE = 100_000
"""A file that grows in a bucket is written at most every so many seconds, and at most so many bytes a second."""


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed into place.

    When the body raises, the temporary file is removed and `path` is left as it was. For a `path` in a bucket the
    temporary file is on a disk; it is read into memory and uploaded, and appears when the upload ends.
    """
    path = place(path)
    if remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder) / path.name
            _upload(path, (pathlib.Path(folder) / path.name).read_bytes())
        return
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        settle(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def settle(path: pathlib.Path) -> None:
    """Gives a temporary file or folder the permissions of any other, and flushes it to the disk."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, (0o777 if path.is_dir() else 0o666) & ~mask)
    flush(path)


def flush(path: str | os.PathLike) -> None:
    """Flushes a file or a folder to the disk; what has appeared in a bucket is stored."""
    if remote(place(path)):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Place) -> None:
    """Flushes a folder and all in it to the disk."""
    if not remote(folder):
        for path in (folder, *folder.rglob("*")):
            flush(path)


def check_writable(path: str | os.PathLike) -> None:
    """Checks before long work that a file can be written at `path` after it; missing folders will be made.

    Raises:
      UserError: it is a folder, or the folder that is to hold it is a file or read-only. Of a bucket nothing is known
        before it is written to.
    """
    path = place(path)
    if remote(path):
        return
    holder = next(place for place in path.absolute().parents if place.exists())
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if not holder.is_dir() or not os.access(holder, os.W_OK):
        raise UserError(f"{path} can't be written: {holder} is {'read-only' if holder.is_dir() else 'a file'}")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text atomically, newlines as given."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """A value as `write_json` writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is missing or is not JSON.
    """
    try:
        return json.loads(place(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file: {error}") from None


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with place(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _upload(path: Place, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except Exception as error:  # Clients of buckets raise what they like.
        raise OSError(f"{path} can't be written: {type(error).__name__}: {error}") from error


class Growing:
    """A file that grows by whole records, opened at its end.

    On a disk a record is one write. In a bucket nothing can be appended to: records are kept in memory, and the object
    is written anew when asked for, at the end, and otherwise at most every 10 seconds and at most at 100 kB a second;
    a kill loses the records since.
    """

    def __init__(self, path: str | os.PathLike, *, new: bool = False):
        """Opens a file, and makes it when it is missing.

        Args:
          path: its place; the folder is there.
          new: it must be missing.
        """
        self._path = place(path)
        self._handle = None
        if remote(self._path):
            there = self._path.exists()
            if there and new:
                raise FileExistsError(f"{path} is there already")
            self._data = bytearray(self._path.read_bytes() if there else b"")
            self._written, self._next = there, 0.0
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_EXCL if new else 0)
            self._handle = os.open(self._path, flags, 0o644)

    def append(self, record: bytes, *, now: bool = False) -> None:
        """Adds a record at the end.

        Args:
          record: its bytes.
          now: return when it is stored, in a bucket too.

        Raises:
          OSError: it can't be written.
        """
        if self._handle is not None:
            if os.write(self._handle, record) < len(record):
                raise OSError(errno.ENOSPC, "no space left on the disk")
            return
        self._data += record
        self._written = False
        if now or time.monotonic() >= self._next:
            self._upload()

    def close(self) -> None:
        """Stores what is not stored yet, and closes the file."""
        if self._handle is not None:
            os.close(self._handle)
        elif not self._written:
            self._upload()

    def _upload(self) -> None:
        _upload(self._path, bytes(self._data))
        self._written = True
        self._next = time.monotonic() + max(_PAUSE, len(self._data) / _RATE)
