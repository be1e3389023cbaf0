"""Files that are whole or absent: atomic writes, hashes, JSON."""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from jaxdistill.errors import UserError


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed into place.

    When the body raises, the temporary file is removed and `path` is left as it was.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Flushes a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: str | os.PathLike) -> None:
    """Checks before long work that a file can be written at `path` after it; missing folders will be made.

    Raises:
      UserError: it is a folder, or the folder that is to hold it is a file or read-only.
    """
    path = pathlib.Path(path)
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
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: it is missing or is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a JSON file: {error}") from None


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
