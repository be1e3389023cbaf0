"""Where a run lives: a folder of a disk or of a bucket, `gs://BUCKET/...`, reached as Orbax does, by `etils.epath`.

What a bucket lacks, and what stands in for it:

- folders: they are there as long as something is in them, so nothing depends on an empty one;
- renaming a folder: a checkpoint is committed by removing its marker, in a bucket and on a disk (`checkpoint`);
- renaming a file: an object appears whole when its upload ends (`files.atomic`);
- appending: a file that grows is written again, whole, now and then (`files.Growing`);
- locks: a lease that its holder renews (`lease`);
- flushing: an object that has appeared is stored.

Listing is consistent: what one host has written is in the next listing of any other.
"""

import os
import pathlib
import shutil

from jaxdistill.errors import UserError

Place = pathlib.Path
"""A local path, or an `epath.Path`, which has those of its methods that are used here."""


def place(path: str | os.PathLike) -> Place:
    """The path that a name stands for.

    Raises:
      UserError: it names neither a local path nor one in a bucket of Google Cloud Storage, or what reaches a bucket is
        not installed.
    """
    if isinstance(path, pathlib.PurePath):
        return path
    name = os.fspath(path)
    if not _elsewhere(name):
        return pathlib.Path(name)
    scheme, mark, rest = name.partition("://")
    if scheme != "gs" or not mark or not rest.partition("/")[0]:
        raise UserError(f"{name}: give a local path or gs://BUCKET/FOLDER")
    return _bucket()(name)


def local(path: str | os.PathLike, more: str = "") -> pathlib.Path:
    """The local path that a name stands for.

    Args:
      path: the name.
      more: for the message, what to do instead.

    Raises:
      UserError: it names something in a bucket, or with a scheme.
    """
    if _elsewhere(os.fspath(path)):
        raise UserError(f"{os.fspath(path)}: this has to be on a disk{more and f'; {more}'}")
    return pathlib.Path(path)


def _elsewhere(name: str) -> bool:
    """Whether a name is of a bucket, or has some other scheme."""
    return "://" in name or name.startswith("gs:")


def remote(path: Place) -> bool:
    """Whether a path is in a bucket."""
    return not isinstance(path, pathlib.Path)


def absolute(path: str | os.PathLike) -> Place:
    """A path that depends neither on the current folder nor on symbolic links."""
    path = place(path)
    return path if remote(path) else path.resolve()


def make_folder(path: Place) -> None:
    """Makes a folder and those above it; in a bucket they need no making."""
    if not remote(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_folder(path: Place) -> None:
    """Removes a folder and all in it, if it is there. Killed half-way, it leaves a part."""
    if not remote(path):
        if path.exists():
            shutil.rmtree(path)
        return
    try:
        path.rmtree()
    except FileNotFoundError:
        return


def move_folder(path: Place, target: Place) -> None:
    """Renames a folder; in a bucket every object is copied, and the old ones are removed after the last copy."""
    if not remote(path):
        os.rename(path, target)
        return
    for name in file_names(path):
        (path / name).copy(target / name)
    remove_folder(path)


def file_names(folder: Place) -> list[str]:
    """The files in a folder and below, relative to it, in order.

    In a bucket one listing is made for each level: the folders are what the next level lies in.
    """
    if not remote(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    root, names, pattern = os.fspath(folder), set(), "*"
    while level := {os.fspath(path)[len(root) + 1 :] for path in folder.glob(pattern)}:
        names = {name for name in names if not any(below.startswith(f"{name}/") for below in level)} | level
        pattern += "/*"
    return sorted(names)


def file_size(path: Place) -> int:
    """The bytes of a file."""
    about = path.stat()
    return about.length if remote(path) else about.st_size


def _bucket() -> type:
    """What makes a path in a bucket, set up so that it sees at once what other hosts write."""
    import fsspec
    from etils import epath

    # Both are read when a bucket is first reached: listings are asked for anew, and by one and the same library,
    # also where TensorFlow is installed.
    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    os.environ.setdefault("EPATH_USE_TF", "false")
    try:
        fsspec.get_filesystem_class("gcs")
    except ImportError:
        raise UserError("gs:// needs Google Cloud Storage's client: pip install 'jaxdistill[gcs]'") from None
    return epath.Path
