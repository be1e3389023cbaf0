"""Text → parts: chunks of text, each turned into ranks in its own sorted words, by any number of processes.

A part is a run of the lexicon (`lexicon.py`) and a `.npz` of ids and line structure, named by its place and the hash of
its text: after a kill the same text finds its finished parts again, and a changed text never does.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from tqdm import tqdm

from jaxdistill import files
from jaxdistill.data import lexicon, sources, words
from jaxdistill.errors import UserError

CHUNK = 1 << 22

FORMAT = 1
"""Changes with anything that changes a part's bytes."""


@dataclass(frozen=True)
class Chunk:
    """Pieces of text for one part, and how many bytes of the sources it and all before it took."""

    number: int
    pieces: list[bytes]
    progress: int

    @property
    def name(self) -> str:
        """The part's name: the chunk's place and the hash of its text and of what reads it."""
        digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__} {len(self.pieces)}".encode())
        for piece in self.pieces:
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
        return f"{self.number:06d}-{digest.hexdigest()[:20]}"


class Reading:
    """All sources as one stream of blocks, documents parted between them; counts and hashes the text of data sets.

    Attributes:
      progress: bytes of the files, or of the text of data sets, read so far.
      described: what is known of each source, as the manifest has it; complete when the stream has ended.
    """

    def __init__(self, inputs: Sequence[sources.Source], described: Sequence[dict], field: str):
        self.inputs = inputs
        self.described = [dict(entry) for entry in described]
        self.field = field
        self.progress = 0

    def __iter__(self) -> Iterator[bytes]:
        before = 0
        for source, entry in zip(self.inputs, self.described, strict=True):
            digest, amount = hashlib.sha256(), 0
            for block, position in sources.read(source, self.field):
                if source.is_dataset:
                    digest.update(block)
                    amount += len(block)
                self.progress = before + (amount if source.is_dataset else position)
                yield block
            if source.is_dataset:
                entry |= {"bytes": amount, "sha256": digest.hexdigest()}
            before += amount if source.is_dataset else source.size
            self.progress = before
            yield b"\n\n"


def split_chunks(reading: Reading, size: int) -> Iterator[Chunk]:
    """Groups the text into chunks of about `size` bytes; where they part depends on the text and on `size` alone."""
    pieces: list[bytes] = []
    number = amount = 0
    for piece in words.split_pieces(reading, min(size, words.PIECE)):
        pieces.append(piece)
        amount += len(piece)
        if amount >= size:
            yield Chunk(number, pieces, reading.progress)
            number, pieces, amount = number + 1, [], 0
    if pieces:
        yield Chunk(number, pieces, reading.progress)


def write_part(path: pathlib.Path, pieces: Sequence[bytes]) -> None:
    """Tokenises one chunk and writes its part; the `.npz`, written last and whole, says that the part is finished."""
    encoded = words.encode(pieces)
    counts = np.bincount(encoded.ids, minlength=len(encoded.words))
    lexicon.write_run(path, encoded.words, counts)
    structure = np.array([encoded.lines, encoded.leading, encoded.trailing], np.int64)
    with files.atomic(_finished(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=encoded.ids, documents=encoded.documents, structure=structure)


def read_part(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """A part's ids (ranks in its own words), document starts, and [lines, leading, trailing]; see `words.Encoded`."""
    with np.load(_finished(path)) as part:
        return part["ids"], part["documents"], part["structure"].tolist()


def _finished(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.npz")


def write_parts(folder: pathlib.Path, chunks: Iterable[Chunk], workers: int, total: int) -> list[pathlib.Path]:
    """Writes every part that is not there yet.

    Args:
      folder: where parts are kept.
      chunks: the text.
      workers: processes; one works in this process.
      total: bytes of all sources, for the progress bar; 0 where unknown.

    Returns:
      The parts in the order of the text.

    Raises:
      UserError: the text is bad, or a worker process died.
    """
    paths = []
    waiting: collections.deque = collections.deque()
    with (
        tqdm(total=total or None, unit="B", unit_scale=True, desc="prepare", disable=None) as bar,
        _submitter(workers) as submit,
    ):

        def settle(most: int) -> None:
            while len(waiting) > most:
                progress, future = waiting.popleft()
                if future is not None:
                    future.result()
                bar.update(progress - bar.n)

        try:
            for chunk in chunks:
                paths.append(folder / chunk.name)
                known = _finished(paths[-1]).exists()
                waiting.append((chunk.progress, None if known else submit(write_part, paths[-1], chunk.pieces)))
                settle(2 * workers)
            settle(0)
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (out of memory?): run the same command again, perhaps with fewer workers; "
                "it continues from the finished parts"
            ) from None
    return paths


@contextlib.contextmanager
def _submitter(workers: int) -> Iterator[Callable]:
    """Yields `submit(function, *arguments)`, which returns a future; or None, the work done, with one worker."""

    def here(function: Callable, *arguments: Any) -> None:
        function(*arguments)

    if workers == 1:
        yield here
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
    )
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Ends this worker when its parent is killed (it would wait for work for ever); leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
