"""The lexicon: every distinct word of a corpus as written, with its count; and its merge from sorted runs on disk.

A *run* is a pair of files, `NAME.words` (UTF-8, one word a line, sorted by bytes, no word twice) and `NAME.counts`
(int64). Runs are merged in blocks of bounded size, so memory depends neither on the corpus nor on the lexicon.
"""

import io
import os
import pathlib
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxdistill import files

WORDS = "lexicon.txt"
COUNTS = "counts.npy"

FAN = 64
"""Runs merged at once: bounds the open files."""

BLOCK = 1 << 22
"""Bytes of words held during a merge, all runs together."""


@dataclass(frozen=True)
class Lexicon:
    """The distinct words of a corpus, as written.

    Attributes:
      words: sorted by their UTF-8 bytes; entry 0 is "", the one entry of all over-long words, always cut to [UNK].
      counts: int64 [words], how often each stands in the corpus.
    """

    words: tuple[str, ...]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.words)


def read_lexicon(folder: pathlib.Path) -> Lexicon:
    """Reads `lexicon.txt` and `counts.npy` of a corpus."""
    words = (folder / WORDS).read_bytes().decode().split("\n")[:-1]
    return Lexicon(tuple(words), np.load(folder / COUNTS))


def write_run(run: pathlib.Path, words: Sequence[str], counts: np.ndarray) -> None:
    """Writes sorted words and their counts as the run `run`.words, `run`.counts."""
    with files.atomic(_file(run, "words")) as temporary:
        temporary.write_bytes("".join(f"{word}\n" for word in words).encode())
    with files.atomic(_file(run, "counts")) as temporary:
        counts.astype("<i8").tofile(temporary)


def merge_runs(runs: Sequence[pathlib.Path], out: pathlib.Path) -> list[list[pathlib.Path]]:
    """Merges sorted runs into one, `out`.

    Args:
      runs: paths of runs, without suffix.
      out: the path of the merged run; files between are written beside it.

    Returns:
      Per run a chain of uint32 files that map ranks in it, one after the other, to ranks in `out`; see `follow`.
    """
    if len(runs) <= FAN:
        return [[path] for path in _merge(runs, out)]
    chains, groups = [], []
    for number, start in enumerate(range(0, len(runs), FAN)):
        groups.append(out.with_name(f"{out.name}-{number}"))
        chains.append(_merge(runs[start : start + FAN], groups[-1]))
    above = merge_runs(groups, out.with_name(f"{out.name}-"))
    for suffix in ("words", "counts"):
        os.replace(_file(out.with_name(f"{out.name}-"), suffix), _file(out, suffix))
    return [[path, *rest] for paths, rest in zip(chains, above, strict=True) for path in paths]


def follow(chain: Sequence[pathlib.Path]) -> np.ndarray:
    """The map from ranks in a run to ranks in the merged run, uint32."""
    ranks = np.fromfile(chain[0], "<u4")
    for path in chain[1:]:
        ranks = np.memmap(path, "<u4", "r")[ranks]
    return ranks


def publish_run(run: pathlib.Path, folder: pathlib.Path) -> int:
    """Turns a run into the `lexicon.txt` and `counts.npy` of `folder`; returns the number of words."""
    os.replace(_file(run, "words"), folder / WORDS)
    types = _file(run, "counts").stat().st_size // 8
    add_header(_file(run, "counts"), types, folder / COUNTS)
    return types


def add_header(path: pathlib.Path, length: int, target: pathlib.Path) -> None:
    """Turns a file of raw little-endian int64 into a `.npy`, without holding it."""
    with open(path, "rb") as source, open(target, "wb") as file:
        file.write(header(length))
        shutil.copyfileobj(source, file, 1 << 20)


def header(length: int) -> bytes:
    """What stands before `length` little-endian int64 in a `.npy`."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<i8", "fortran_order": False, "shape": (length,)})
    return made.getvalue()


def _file(run: pathlib.Path, suffix: str) -> pathlib.Path:
    return run.with_name(f"{run.name}.{suffix}")


class _Run:
    """A run being read in blocks, and the map being written for it."""

    def __init__(self, run: pathlib.Path, target: pathlib.Path, size: int):
        self.words = open(_file(run, "words"), "rb")  # noqa: SIM115
        self.counts = open(_file(run, "counts"), "rb")  # noqa: SIM115
        self.map = open(target, "wb")  # noqa: SIM115
        self.size = size
        self.held: list[bytes] = []
        self.fill()

    def fill(self) -> None:
        """Reads the next block where nothing is held; a run at its end holds nothing."""
        if not self.held:
            self.held = [line[:-1] for line in self.words.readlines(self.size)]

    def take(self, bound: bytes) -> tuple[list[bytes], np.ndarray]:
        """Takes what is held up to `bound`, with its counts."""
        cut = bisect_right(self.held, bound)
        taken, self.held = self.held[:cut], self.held[cut:]
        return taken, np.frombuffer(self.counts.read(8 * cut), "<i8")

    def close(self) -> None:
        for file in (self.words, self.counts, self.map):
            file.close()


def _merge(runs: Sequence[pathlib.Path], out: pathlib.Path) -> list[pathlib.Path]:
    """Merges at most `FAN` runs; returns the map file of each."""
    targets = [_file(out, f"{number}.map") for number in range(len(runs))]
    size = BLOCK // max(len(runs), 1)
    readers = [_Run(run, target, size) for run, target in zip(runs, targets, strict=True)]
    base = 0
    try:
        with open(_file(out, "words"), "wb") as words_file, open(_file(out, "counts"), "wb") as counts_file:
            while open_runs := [reader for reader in readers if reader.held]:
                bound = min(reader.held[-1] for reader in open_runs)
                blocks = [(reader, *reader.take(bound)) for reader in open_runs]
                words = sorted(set().union(*(taken for _, taken, _ in blocks)))
                rank = {word: number for number, word in enumerate(words, base)}
                total = np.zeros(len(words), "<i8")
                for reader, taken, counts in blocks:
                    ranks = np.fromiter(map(rank.__getitem__, taken), "<u4", len(taken))
                    total[ranks - base] += counts
                    ranks.tofile(reader.map)
                    reader.fill()
                words_file.write(b"".join(word + b"\n" for word in words))
                total.tofile(counts_file)
                base += len(words)
    finally:
        for reader in readers:
            reader.close()
    return targets
