"""Checkpoints: asynchronous saves by Orbax, whole or absent, verified to the bit when they are restored.

A folder of checkpoints holds

    120/state/       what Orbax wrote
    120/seal.json    step; name, shape, type and checksum of every array; size and SHA-256 of every file; its own digest
    partial-140      a marker: 140/ is being saved or removed, or a kill left it unfinished
    bad-100/         a checkpoint that could not be restored, set aside by a fallback

A save is committed by removing its marker, after its files and its seal have reached the disk: one step, also in a
bucket, which can't rename a folder. The arrays' checksums are taken on the device before the save, so they also cover
the way from the device to the files. The seal's digests are read back from the files, so that a bucket sends every
checkpoint once; when it is restored, process 0 reads it for the digests, and all processes read what they need.
"""

import concurrent.futures
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from jaxdistill.agree import by_first, check_shared
from jaxdistill.checksum import checksums, hexadecimal
from jaxdistill.errors import UserError
from jaxdistill.files import flush
from jaxdistill.places import Place, absolute, make_folder, move_folder, remove_folder
from jaxdistill.seal import BadCheckpoint, check_arrays, read_seal, whole_arrays, write_seal

# Orbax logs the stack of every failed write, several times over, and raises the error besides.
logging.getLogger("absl").addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))


class Checkpoints:
    """The checkpoints of one run, in one folder; a context manager.

    With several processes, every process makes the same calls in the same order on one shared folder.

    Attributes:
      folder: where they are.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int = 3,
        notify: Callable[[str], None] = print,
        readonly: bool = False,
    ):
        """Opens the folder, creates it when it is missing, and removes unfinished saves with a notice.

        Args:
          folder: where the checkpoints are.
          keep: how many to keep, at least 2; older ones are removed after a newer one is committed.
          notify: is told, one line at a time, what was removed or set aside.
          readonly: never save, create, remove or rename anything; safe beside a process that is saving.

        Raises:
          ValueError: `keep` is below 2.
          UserError: the folder can't be created or cleaned, or processes see different ones.
        """
        if keep < 2:
            raise ValueError(f"keep={keep}: at least two checkpoints are kept")
        self.folder = absolute(folder)
        self._keep = keep
        self._notify = notify
        self._readonly = readonly
        self._primary = jax.process_index() == 0
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future | None = None
        if not readonly:
            by_first(self._open)
            check_shared(self.folder)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            self._notify(str(failure))

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        try:
            found = sorted(int(path.name) for path in self.folder.iterdir() if _is_step(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [step for step in found if not self._marker(step).exists()]  # In this order: the marker is there first.

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Saves a state; the files are written in the background, the state may be donated at once.

        A save under way is waited for first. A step that is already there with the very same bits is not written again.

        Args:
          step: which step this is; above every step that is there.
          state: any tree of `jax.Array`.
          wait: return only when the checkpoint is committed.

        Raises:
          UserError: this save or the one before it failed, for example because the disk is full.
          ValueError: the folder is read-only, or holds this step with other bits or a later step.
        """
        if self._readonly:
            raise ValueError(f"{self.folder} was opened read-only")
        self.wait()
        arrays = _named(state)
        sums = checksums(arrays)
        newest = max(self.steps(), default=-1)
        if step == newest:
            saved = read_seal(self.folder / str(step), step)["arrays"]
            if {name: entry["checksum"] for name, entry in saved.items()} == _digits(sums):
                return
            raise ValueError(f"{self.folder / str(step)} holds another state of step {step}")
        if step < newest:
            raise ValueError(f"step {step} comes after step {newest} was saved in {self.folder}")
        place = self.folder / str(step)
        shapes = {name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for name, leaf in arrays.items()}
        try:
            if self._primary:
                self._mark(step)
                remove_folder(place)
                make_folder(place)
            context = ocp.Context()
            context.array.saving.use_compression = False  # Weights shrink by 8 %, and it doubles the time.
            with context:
                # Orbax refuses arrays without elements; their shape is in the seal.
                response = ocp.save_async(place / "state", {name: x for name, x in arrays.items() if x.size})
        except Exception as error:
            self._fail(step, error)
        self._pending = self._writer.submit(self._commit, step, shapes, sums, response)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Waits until the save under way is committed.

        Raises:
          UserError: it failed.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.result()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("jaxdistill checkpoint committed")

    def close(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: it failed.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def restore(self, abstract: Any, step: int | None = None, *, fallback: bool = False, partial: bool = False) -> Any:
        """Restores a state onto the shardings of `abstract`, to the bit.

        Args:
          abstract: the state's tree with `jax.ShapeDtypeStruct` leaves that have shardings (arrays do as well).
          step: which checkpoint; the newest when None.
          fallback: pass over checkpoints that are torn, altered or foreign, and set them aside as `bad-STEP`.
          partial: `abstract` may name fewer arrays than the checkpoint holds.

        Raises:
          UserError: there is no such checkpoint, or it (with `fallback`: every one up to it) is torn, altered or
            foreign.
        """
        self.wait()
        steps = by_first(self.steps)
        candidates = [at for at in reversed(steps) if step is None or at <= step]
        if not candidates or (step is not None and candidates[0] != step):
            wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise UserError(f"{self.folder} holds {wanted}; it holds {_listing(steps)}")
        leaves = _named(abstract)
        problems: list[tuple[int, BadCheckpoint]] = []
        for at, before in zip(candidates, [*candidates[1:], None], strict=True):
            try:
                restored = self._read(at, leaves, partial)
            except BadCheckpoint as problem:
                if not fallback:
                    raise UserError(f"{problem}\n{_advice(at, before)}") from problem
                problems.append((at, problem))
                continue
            self._set_aside(problems, at)
            return jax.tree.unflatten(jax.tree.structure(abstract), [restored[name] for name in leaves])
        listed = "\n".join(f"  {problem}" for _, problem in problems)
        raise UserError(
            f"no checkpoint in {self.folder} can be restored (nothing was renamed):\n{listed}\n"
            "Start again with another --workdir."
        )

    def _open(self) -> None:
        """Makes the folder, and removes what a kill left half saved or half removed."""
        try:
            make_folder(self.folder)
            for marker in sorted(self.folder.glob("partial-*")):
                step = marker.name.partition("-")[2]
                if _is_step(step):
                    remove_folder(self.folder / step)
                    marker.unlink()
                    self._notify(f"removed {self.folder / step}: a save or a removal that was not finished")
        except Exception as error:  # Clients of buckets raise what they like.
            raise UserError(f"can't use {self.folder} for checkpoints: {_reason(error)}") from error

    def _marker(self, step: int) -> Place:
        return self.folder / f"partial-{step}"

    def _mark(self, step: int) -> None:
        self._marker(step).write_bytes(b"")  # A full disk has room for that, so that old ones can be removed.
        flush(self.folder)

    def _unmark(self, step: int) -> None:
        self._marker(step).unlink()
        flush(self.folder)

    def _commit(self, step, shapes, sums, response) -> None:
        try:
            response.result()
            if self._primary:
                digits = _digits(sums)
                arrays = {name: {**about, "checksum": digits[name]} for name, about in shapes.items()}
                write_seal(self.folder / str(step), step, arrays)
                self._unmark(step)
                for old in self.steps()[: -self._keep]:
                    self._mark(old)
                    remove_folder(self.folder / str(old))
                    self._unmark(old)
        except Exception as error:
            self._fail(step, error)

    def _fail(self, step, error):
        there = "unknown"
        with contextlib.suppress(Exception):
            if self._primary and self._marker(step).exists():
                remove_folder(self.folder / str(step))
                self._unmark(step)
            there = _listing(self.steps())
        raise UserError(
            f"the checkpoint of step {step} could not be saved in {self.folder}: {_reason(error)}\n"
            f"Checkpoints there: {there}. Make room or choose another disk, and run the same command "
            "to go on from the last one."
        ) from error

    def _read(self, step: int, leaves: Mapping[str, Any], partial: bool) -> dict[str, jax.Array]:
        folder = self.folder / str(step)
        sealed = by_first(lambda: whole_arrays(folder, step))
        check_arrays(folder, sealed, leaves, partial)
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for name, leaf in leaves.items()
        }
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        try:
            with context:
                arrays = ocp.load(folder / "state", {name: leaf for name, leaf in abstract.items() if leaf.size})
        except Exception as error:
            raise UserError(
                f"{folder}: its files are as they were written, but they could not be read: {_reason(error)}"
            ) from error
        for name, leaf in abstract.items():
            if not leaf.size:
                arrays[name] = jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        for name, digits in _digits(checksums(arrays)).items():
            if digits != sealed[name]["checksum"]:
                raise BadCheckpoint(
                    f"{folder} is altered: the array {name} does not match the checksum it was saved with"
                )
        return arrays

    def _set_aside(self, problems, good: int) -> None:
        for step, problem in problems:
            self._notify(str(problem))
            if self._primary and not self._readonly:
                aside = self.folder / f"bad-{step}"
                number = 1
                while aside.exists():
                    number += 1
                    aside = self.folder / f"bad-{step}-{number}"
                move_folder(self.folder / str(step), aside)
                self._notify(f"set it aside as {aside}")
        if problems:
            self._notify(f"going on from the checkpoint of step {good}")
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("jaxdistill checkpoints set aside")


def abstract(state: Any) -> Any:
    """The shapes, types and shardings of a state of arrays: what `Checkpoints.restore` needs to know."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their path, `params/student/mlm/bias`, in the tree's order."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two leaves of the state have the name {name}")
        if getattr(leaf, "sharding", None) is None:
            raise TypeError(f"{name} has no sharding: a state is a tree of jax.Array, an abstract state says where")
        named[name] = leaf
    return named


def _digits(sums):
    return {name: hexadecimal(value) for name, value in jax.device_get(sums).items()}


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _listing(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _reason(error: BaseException) -> str:
    text = str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return "no space is left on the disk"
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _advice(step: int, before: int | None) -> str:
    if before is None:
        return "There is no checkpoint before it: start again with another --workdir."
    return (
        f"To go on from the checkpoint before it (step {before}), run the same command with --fallback; "
        f"this one is then kept as bad-{step}."
    )
