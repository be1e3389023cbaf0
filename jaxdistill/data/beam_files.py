"""Files and folders by name, on a disk or in any file system that Apache Beam knows: gs://, s3://, hdfs://, ...

A name without a scheme is a local path.
"""

import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from jaxdistill import files
from jaxdistill.data import corpus
from jaxdistill.data.sources import Source, find_kind, find_source
from jaxdistill.errors import UserError

try:
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
except ImportError:
    raise UserError("--runner beam needs Apache Beam: pip install 'jaxdistill[beam]'") from None

BLOCK = 1 << 20


def scheme(path: str) -> str | None:
    """The name of a file system that is not the local one."""
    return FileSystems.get_scheme(path)


def absolute(path: str) -> str:
    """A name that means the same on every worker, without a slash at its end."""
    return path.rstrip("/") if scheme(path) else os.path.abspath(path)


def find(spec: str) -> list[Source]:
    """Resolves what a user named: one file, or those of a pattern in another file system."""
    if not scheme(spec):
        source = find_source(spec)
        if source.is_dataset:
            raise UserError(
                f"{spec}: a data set of a hub is one stream, which workers cannot share: write it as .parquet or "
                ".jsonl files, or leave out --runner beam"
            )
        return [replace(source, spec=os.path.abspath(spec))]
    try:
        [match] = FileSystems.match([spec])
    except (ValueError, OSError) as error:
        raise UserError(f"{spec} cannot be listed: {error}") from None
    if not match.metadata_list:
        raise UserError(f"{spec} does not exist")
    listed = sorted((about.path, about.size_in_bytes) for about in match.metadata_list)
    return [Source(path, find_kind(path), size, open_file) for path, size in listed]


def open_file(path: str) -> BinaryIO:
    """Opens a file to read its bytes, packed ones as they are."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def create_file(path: str) -> BinaryIO:
    """Opens a file to write its bytes; its folder is made where a file system has folders."""
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_blocks(path: str, amount: int | None = None) -> Iterator[bytes]:
    """The first `amount` bytes of a file, or all."""
    with open_file(path) as file:
        while block := file.read(BLOCK if amount is None else min(BLOCK, amount)):
            amount = None if amount is None else amount - len(block)
            yield block


def write_new(path: str, blocks: Iterable[bytes]) -> tuple[str, int, str]:
    """Writes a new file beside `path`; returns its own path, its size and its SHA-256."""
    path, size, digest = f"{path}-{uuid.uuid4().hex}", 0, hashlib.sha256()
    with create_file(path) as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
    return path, size, digest.hexdigest()


def names_in(out: str) -> set[str]:
    """What is in the folder `out`."""
    if not scheme(out):
        return corpus.names_in(pathlib.Path(out))
    try:
        [match] = FileSystems.match([f"{out}/**"])
    except (ValueError, OSError) as error:
        raise UserError(f"{out} cannot be listed: {error}") from None
    return {about.path[len(out) + 1 :].split("/")[0] for about in match.metadata_list}


def publish(paths: dict[str, str], out: str) -> None:
    """Gives files their names in `out`, in the order given."""
    for name, path in paths.items():
        if not scheme(out):
            files.flush(path)
        elif FileSystems.exists(f"{out}/{name}"):
            FileSystems.delete([f"{out}/{name}"])
        FileSystems.rename([path], [f"{out}/{name}"])


def remove(folder: str) -> None:
    """Removes a folder and all in it."""
    if scheme(folder):
        FileSystems.delete([f"{folder}/"])
    else:
        shutil.rmtree(folder, ignore_errors=True)
