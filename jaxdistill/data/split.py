"""Splitting text into what is trained on and what is held out, by document."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence

from jaxdistill.data.sources import find_source, read
from jaxdistill.errors import UserError
from jaxdistill.files import atomic


def split_text(
    sources: Sequence[str],
    train: str | os.PathLike,
    held_out: str | os.PathLike,
    *,
    share: float = 0.03,
    field: str = "text",
) -> None:
    """Writes text as two files, documents separated by blank lines; a document is held out by a hash of its text.

    In a source where no blank line separates documents, every line is one.

    Args:
      sources: as `prepare` takes them.
      train: the file to train on.
      held_out: the file to measure on.
      share: about which share is held out.
      field: the field of a row that holds its text.

    Raises:
      UserError: a source can't be read, or there are too few documents to hold some out.
    """
    with atomic(train) as first, atomic(held_out) as second:
        counts = {first: 0, second: 0}
        with open(first, "wb") as train_file, open(second, "wb") as held_out_file:
            for document in itertools.chain.from_iterable(_documents(spec, field) for spec in sources):
                draw = int.from_bytes(hashlib.sha256(document).digest()[:8], "little") / 2**64
                path, file = (second, held_out_file) if draw < share else (first, train_file)
                counts[path] += 1
                file.write(document + b"\n")
        if not all(counts.values()):
            raise UserError(
                f"{', '.join(map(str, sources))}: {sum(counts.values())} documents or lines are too few to hold some "
                "out: give more text, or prepare a held-out file yourself"
            )


def _documents(spec: str, field: str) -> Iterator[bytes]:
    lines = itertools.groupby(_lines(spec, field), key=bool)
    several = sum(text for text, _ in lines) > 1
    for text, group in itertools.groupby(_lines(spec, field), key=bool):
        if text and several:
            yield b"".join(line + b"\n" for line in group)
        elif text:
            yield from (line + b"\n" for line in group)


def _lines(spec: str, field: str) -> Iterator[bytes]:
    """The lines of a source without white space at their ends; empty ones separate documents."""
    held = b""
    for block, _ in read(find_source(spec), field):
        *lines, held = (held + block).split(b"\n")
        yield from map(bytes.strip, lines)
    yield held.strip()
