"""The manifest of a run: what was asked, with which versions and data. A run goes on only under the same manifest."""

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxdistill import files
from jaxdistill.errors import UserError
from jaxdistill.places import place
from jaxdistill.versions import PACKAGES, versions

FORMAT = 1
NAME = "experiment.json"
ABSENT = "(absent)"
KINDS = ("config", "data", "versions")
"""What may differ between a saved run and the one that goes on with it."""
_CONTENTS = "contents of "


class Change(NamedTuple):
    """A field that differs: its dotted name, the saved value, the current one."""

    field: str
    old: Any
    new: Any


def as_dict(value: Any) -> Any:
    """A config as JSON values: dataclasses become dicts that begin with their class name under `type`.

    Tuples become lists; a number that JSON lacks becomes `nan`, `inf` or `-inf`.

    Raises:
      TypeError: a value that has no stable JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if "type" in fields:
            raise TypeError(f"{type(value).__name__} has a field named type, which is taken by the class name")
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} of a config is not a string")
        return {key: as_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_dict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"{value!r} in a config: only numbers, text, lists, dicts and dataclasses have a stable JSON form")


def manifest(config: Any, data: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of a run that is about to start here.

    Args:
      config: the resolved config, a dataclass or nested dicts.
      data: hashes of what is read, by a name that the user knows.
    """
    devices, installed = jax.devices(), versions()
    return {
        "format": FORMAT,
        "jaxdistill": installed["jaxdistill"],
        "packages": {name: installed[name] for name in PACKAGES},
        "python": installed["python"],
        "devices": {"kind": devices[0].device_kind, "count": len(devices), "processes": jax.process_count()},
        "data": dict(data),
        "config": as_dict(config),
    }


def write_manifest(workdir: str | os.PathLike, current: Mapping[str, Any]) -> None:
    """Writes `workdir/experiment.json` atomically."""
    files.write_json(place(workdir) / NAME, current)


def read_manifest(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The manifest in a workdir, or None when there is none.

    Raises:
      UserError: it is not ours, or of another format.
    """
    path = place(workdir) / NAME
    if not path.exists():
        return None
    saved = files.read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise UserError(f"{path} is not the manifest of a run: choose another --workdir")
    if saved.get("format") != FORMAT:
        raise UserError(f"{path} has format {saved.get('format')}; this version of jaxdistill reads format {FORMAT}")
    return saved


def compare(saved: Mapping[str, Any], current: Mapping[str, Any], how: Collection[str] = ()) -> list[Change]:
    """What differs in the config and the data, in sorted order, but for what may.

    Args:
      saved: the manifest in the workdir.
      current: the manifest of this process.
      how: dotted names that say only how a run runs and may change; `mesh` stands for `mesh.data` too.
    """
    changes = [change for change in _differences(saved["config"], current["config"]) if not _covered(change.field, how)]
    return changes + _differences(saved.get("data", {}), current["data"], _CONTENTS)


def check_alike(asked: Sequence[Mapping[str, Any]], may_differ: Collection[str] = ()) -> None:
    """Raises UserError when a process was asked for something else than process 0; paths may differ, contents not."""
    for process, other in enumerate(asked):
        changes = compare(asked[0], other, may_differ)
        if changes:
            listed = "\n".join(f"  {field}: {old!r} and {new!r}" for field, old, new in changes)
            raise UserError(
                f"process 0 and process {process} were asked for different things:\n{listed}\n"
                "Start all processes with the same command and the same data."
            )


def notices(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Lines about versions and devices that differ: the run may go on, its bits may differ."""
    changes = [*_versions(saved, current), *_differences(saved.get("devices", {}), current["devices"], "device ")]
    return [f"{field} was {old}, is now {new}" for field, old, new in changes]


def _versions(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[Change]:
    changes = []
    for name in ("jaxdistill", "python"):
        changes += _differences(saved.get(name), current[name], name)
    return changes + _differences(saved.get("packages", {}), current["packages"])


def check_manifest(
    workdir: str | os.PathLike,
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    how: Collection[str] = (),
    accept: Collection[str] = ("versions",),
) -> list[str]:
    """Checks that the run in a workdir may go on under the current manifest.

    Args:
      workdir: for messages.
      saved: the manifest in the workdir.
      current: the manifest of this process.
      how: as of `compare`.
      accept: of `KINDS` those that may differ.

    Returns:
      The notices to print.

    Raises:
      UserError: something else differs; the message names each field, and what accepts it.
    """
    changes = compare(saved, current, how)
    differing = {
        "config": [change for change in changes if not change.field.startswith(_CONTENTS)],
        "data": [change for change in changes if change.field.startswith(_CONTENTS)],
        "versions": _versions(saved, current),
    }
    refused = [kind for kind in KINDS if differing[kind] and kind not in accept]
    if refused:
        listed = "\n".join(
            f"  {field}: {_show(old)} there, {_show(new)} now"
            for kind in refused
            for field, old, new in differing[kind]
        )
        what = "another config" if "config" in refused else " and ".join(f"other {kind}" for kind in refused)
        raise UserError(
            f"{workdir} holds a run of {what}:\n{listed}\n"
            "Go back to the values there to continue it, choose another --workdir for a new run, or go on all the same "
            f"with --accept {','.join(refused)}."
        )
    accepted = [change for kind in ("config", "data") for change in differing[kind]]
    return [f"{field} was {_show(old)}, is now {_show(new)}" for field, old, new in accepted] + notices(saved, current)


def _differences(old: Any, new: Any, name: str = "") -> list[Change]:
    """Leaves that differ; `name` is a prefix that ends where a key may follow."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changes = []
        for key in sorted({*old, *new}):
            there, here = old.get(key, ABSENT), new.get(key, ABSENT)
            nested = isinstance(there, Mapping) and isinstance(here, Mapping)
            changes += _differences(there, here, f"{name}{key}." if nested else f"{name}{key}")
        return changes
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [Change(name, old, new)]


def _covered(field: str, how: Collection[str]) -> bool:
    parts = field.split(".")
    return any(".".join(parts[:count]) in how for count in range(1, len(parts) + 1))


def _show(value: Any) -> str:
    text = value if value == ABSENT else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
