"""The seal of a checkpoint: a JSON file that says, and proves, what the checkpoint holds.

{"format": 1, "step": 120, "arrays": {NAME: {"shape", "dtype", "checksum"}}, "files": {PATH: {"bytes", "sha256"}},
 "digest": SHA-256 of all the rest}
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxdistill import files
from jaxdistill.errors import UserError
from jaxdistill.places import Place, file_names, file_size, remote

FORMAT = 1
NAME = "seal.json"


class BadCheckpoint(UserError):
    """A committed checkpoint that is torn, altered or foreign: a fallback may pass over it."""


def write_seal(folder: Place, step: int, arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Seals a checkpoint: takes the digests of its files and flushes everything to the disk.

    Args:
      folder: the checkpoint.
      step: its step.
      arrays: `shape`, `dtype` and `checksum` of each array, by name.
    """
    files.flush_folder(folder)
    listed = {
        name: {"bytes": file_size(folder / name), "sha256": files.sha256(folder / name)} for name in file_names(folder)
    }
    seal = {"format": FORMAT, "step": step, "arrays": dict(arrays), "files": listed}
    files.write_json(folder / NAME, {**seal, "digest": _digest(seal)})
    files.flush(folder)


def read_seal(folder: Place, step: int) -> dict[str, Any]:
    """The seal of the checkpoint of a step.

    Raises:
      BadCheckpoint: it is missing, torn or altered, or belongs to another step.
      UserError: it is of another format, it may not be read, or the network fails.
    """
    path = folder / NAME
    try:
        seal = json.loads(_read(path))
        digest = seal.pop("digest")
        intact = digest == _digest(seal)
    except FileNotFoundError:
        raise BadCheckpoint(f"{folder} is not a whole checkpoint of ours: it has no {NAME}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise BadCheckpoint(f"{path} is torn or altered: it does not match its own digest")
    if seal["format"] != FORMAT:
        raise UserError(f"{path} has format {seal['format']}; this version of jaxdistill reads format {FORMAT}")
    if seal["step"] != step:
        raise BadCheckpoint(f"{folder} is foreign: its seal says step {seal['step']}")
    return seal


def whole_arrays(folder: Place, step: int) -> dict[str, Any]:
    """The arrays of a checkpoint by its seal, as `write_seal` got them, when every file is as the seal says.

    Raises:
      UserError: as `read_seal` and `check_files`.
    """
    seal = read_seal(folder, step)
    check_files(folder, seal["files"])
    return seal["arrays"]


def check_files(folder: Place, listed: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares the files of a checkpoint with its seal.

    Raises:
      BadCheckpoint: a file is missing, torn or altered.
      UserError: a file may not be read, or the network fails.
    """
    for name, entry in listed.items():
        path = folder / name
        try:
            size = file_size(path)
            digest = files.sha256(path) if size == entry["bytes"] else None
        except Exception as error:
            raise _unreadable(path, error) from None
        if size != entry["bytes"]:
            raise BadCheckpoint(f"{path} is torn: it has {size} bytes of {entry['bytes']}")
        if digest != entry["sha256"]:
            raise BadCheckpoint(f"{path} is altered: it does not match the digest in {NAME}")


def check_arrays(
    folder: Place, sealed: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Any], partial: bool
) -> None:
    """Compares the arrays of a checkpoint with those that are asked for.

    Args:
      folder: the checkpoint, for the message.
      sealed: the seal's arrays.
      wanted: leaves with a shape and a dtype, by name.
      partial: more arrays in the checkpoint than asked for are fine.

    Raises:
      BadCheckpoint: names, shapes or types differ; the message lists the first of them.
    """
    differences = [f"it lacks {name}" for name in wanted if name not in sealed]
    if not partial:
        differences += [f"it has {name} besides" for name in sealed if name not in wanted]
    for name, leaf in wanted.items():
        if name in sealed:
            there, here = sealed[name], {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
            for what, value in here.items():
                if there[what] != value:
                    differences.append(f"{name} has {what} {there[what]}, not {value}")
    if differences:
        shown = differences[:8] + ([f"and {len(differences) - 8} more"] if len(differences) > 8 else [])
        raise BadCheckpoint(f"{folder} is foreign, it holds another state: {'; '.join(shown)}")


def _read(path: Place) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Place, error: Exception) -> UserError:
    """A missing or broken file speaks against the checkpoint; one that may not be read, or a failing network, does not.

    Clients of buckets say of a missing file only its name, and raise what they like when the network fails.
    """
    missing = isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError))
    why = getattr(error, "strerror", None) or ("No such file or directory" if missing else str(error))
    if missing or (isinstance(error, OSError) and not isinstance(error, PermissionError) and not remote(path)):
        return BadCheckpoint(f"{path} can't be read: {why}")
    return UserError(f"can't read {path}: {why}")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
