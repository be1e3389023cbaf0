"""GloVe's vectors of words (Pennington et al. 2014), and the words nearest to a word by cosine."""

import dataclasses
import functools
import gzip
import itertools
import math
import os
import pathlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxdistill.errors import UserError

ROWS = 100_000
"""How many rows of a file are read, the commonest words first: those that TinyBERT's augmentation looks at."""
_BLOCK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Glove:
    """Words and their vectors.

    Attributes:
      words: in the order of the file.
      vectors: of length 1, or 0 where the file has no direction, float32 [words, size].
    """

    words: tuple[str, ...]
    vectors: np.ndarray

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Word → row; of a word that the file has twice, the first."""
        return {word: row for row, word in reversed(list(enumerate(self.words)))}

    def neighbours(self, words: Iterable[str], count: int) -> dict[str, list[str]]:
        """The nearest other words by cosine, the nearest first, of those of `words` that have a vector."""
        rows = np.array([self.ids[word] for word in sorted(set(words)) if word in self.ids], np.int64)
        found: dict[str, list[str]] = {}
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            cosines = self.vectors[block] @ self.vectors.T
            cosines[np.arange(len(block)), block] = -np.inf
            count = min(count, len(self.words) - 1)
            nearest = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
            order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
            for row, others in zip(block, np.take_along_axis(nearest, order, axis=1), strict=True):
                found[self.words[row]] = [self.words[other] for other in others]
        return found


def read_glove(path: str | os.PathLike, rows: int = ROWS) -> Glove:
    """Reads the first rows of a GloVe text file: a word and its numbers a line, spaces between, no header.

    Args:
      path: a text file, or one that ends in `.gz`.
      rows: how many to read at most.

    Raises:
      UserError: it can't be read, or a row is not a word and as many numbers as in the first; file and line are named.
    """
    path = pathlib.Path(path)
    words: list[str] = []
    vectors: list[Sequence[float]] = []
    size = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(itertools.islice(file, rows), start=1):
                size = size or line.count(b" ")
                word, vector = _row(line, size, f"{path}, line {number}")
                words.append(word)
                vectors.append(vector)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read as GloVe vectors: {error}") from None
    if len(words) < 2:
        raise UserError(f"{path} has {len(words)} rows: GloVe's files have a word and its numbers in each of many")
    table = np.array(vectors, np.float32)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return Glove(tuple(words), table / np.where(norms > 0, norms, 1))


def _row(line: bytes, size: int, where: str) -> tuple[str, list[float]]:
    """The word and the numbers of a line; the word may hold spaces, as a few of GloVe's do."""
    try:
        word, *numbers = line.decode().rstrip("\r\n").rsplit(" ", size)
        vector = [float(number) for number in numbers]
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8 text") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}; a row of GloVe's is a word and its numbers, with spaces between") from None
    if size < 2 or len(vector) != size or not all(map(math.isfinite, vector)):
        raise UserError(
            f"{where}: {word[:40]!r} has {len(vector)} numbers, or one that is not finite; each row has a word and as "
            "many numbers as the first, and there is no header"
        )
    return word, vector
