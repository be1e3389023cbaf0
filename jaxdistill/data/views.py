"""Views: what one model reads of a batch's words, each word cut with the view's vocabulary or with another."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxdistill.data.draws import draw, uniform
from jaxdistill.data.vocab import Table, Vocabulary
from jaxdistill.data.windows import ADDED_PIECES, expand, runs
from jaxdistill.errors import UserError


@dataclass(frozen=True)
class View:
    """How one model reads the words.

    Attributes:
      vocabulary: the name of its own vocabulary, which also gives [CLS], [SEP], [PAD] and [MASK].
      mixed_with: the name of another vocabulary that some words are cut with; none by default.
      probability: a word is cut with the other one with this probability, drawn per word and per step.
      ramp: the probability rises from 0 linearly over this many steps; 0 has it constant.
      masks_of: the view, of the same cut, whose masked positions and random pieces it shares; its own when None.
    """

    vocabulary: str
    mixed_with: str | None = None
    probability: float = 0.5
    ramp: int = 0
    masks_of: str | None = None

    def __post_init__(self):
        if not 0.0 <= self.probability <= 1.0:
            raise UserError(f"mixing probability {self.probability} is not between 0 and 1")
        if self.ramp < 0:
            raise UserError(f"mixing ramp {self.ramp} is negative: give a number of steps, 0 for none")

    @property
    def cut(self) -> str | None:
        """The vocabulary that all words are cut with; None where it differs from word to word."""
        if self.mixed_with is None or self.probability == 0:
            return self.vocabulary
        return self.mixed_with if self.probability == 1 and not self.ramp else None

    def mixing(self, step: int) -> float:
        """The probability of the other vocabulary at a step."""
        return self.probability * min(1.0, step / self.ramp) if self.ramp else self.probability


@dataclass(frozen=True, eq=False)
class Lines:
    """The words of a batch, row after row.

    Attributes:
      words: word ids, int64 [total].
      row: the row of each word, int64 [total].
      index: the place of each word in its row, int64 [total].
      edges: where each row starts in them, and the end, int64 [rows + 1].
    """

    words: np.ndarray
    row: np.ndarray
    index: np.ndarray
    edges: np.ndarray

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.edges) - 1

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum over each row's words of whole numbers or flags [total], int64 [rows]."""
        return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[self.edges])


def read_lines(words: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Lines:
    """Gathers windows from a corpus: word ids [n], offsets int64 [rows]."""
    counts = stop - start
    ids = words[runs(start, counts)].astype(np.int64)
    edges = np.concatenate([[0], np.cumsum(counts)])
    return Lines(ids, np.repeat(np.arange(len(counts)), counts), runs(np.zeros_like(counts), counts), edges)


@dataclass(frozen=True, eq=False)
class Cutter:
    """The vocabularies of a view as one: the other one's ids come after the view's own.

    Attributes:
      own: the view's vocabulary.
      other: the one that words may also be cut with.
      table: cuts of all words by the first, then of all words by the second, in joint ids.
    """

    own: Vocabulary
    other: Vocabulary | None
    table: Table

    @functools.cached_property
    def unknown(self) -> tuple[int, ...]:
        """The joint ids of `[UNK]`."""
        return (self.own.unk,) if self.other is None else (self.own.unk, self.own.size + self.other.unk)

    @functools.cached_property
    def ordinary(self) -> tuple[np.ndarray, np.ndarray]:
        """Joint ids that are no specials: of the one vocabulary, then of the other, and how many there are of each."""
        parts = [(0, self.own)] + ([(self.own.size, self.other)] if self.other else [])
        ids = [first + np.setdiff1d(np.arange(v.size, dtype=np.int32), list(v.specials)) for first, v in parts]
        return np.concatenate(ids), np.array([len(part) for part in ids])


def make_cutter(view: View, vocabularies: Mapping[str, Vocabulary], tables: Mapping[str, Table]) -> Cutter:
    """Puts the tables of a view's vocabularies one after the other."""
    for name in filter(None, (view.vocabulary, view.mixed_with)):
        if name not in tables or name not in vocabularies:
            raise UserError(f"a view asks for vocabulary {name!r}; there are {sorted(tables)}")
    own, table = vocabularies[view.vocabulary], tables[view.vocabulary]
    if view.mixed_with is None:
        return Cutter(own, None, table)
    other, second = vocabularies[view.mixed_with], tables[view.mixed_with]
    pieces = np.concatenate([table.pieces, second.pieces + np.int32(own.size)])
    offsets = np.concatenate([table.offsets, second.offsets[1:] + len(table.pieces)])
    return Cutter(own, other, Table(pieces=pieces, offsets=offsets))


def choose_cuts(cutter: Cutter, lines: Lines, probability: float, keys: np.ndarray) -> np.ndarray:
    """For each word its row in the cutter's table: `word`, or `words + word` with the given probability.

    Args:
      cutter: the vocabularies of the view.
      lines: the words.
      probability: of the other vocabulary.
      keys: a key per row, uint64 [rows].
    """
    if cutter.other is None:
        return lines.words
    mixed = uniform(draw(keys[lines.row], lines.index)) < probability
    return lines.words + mixed * ((len(cutter.table.offsets) - 1) // 2)


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows `[CLS] pieces [SEP] [PAD]...` before anything is masked.

    Attributes:
      ids: joint ids, int32 [rows, length].
      mask: real positions, bool [rows, length].
      body: positions of words' pieces, bool [rows, length].
      counts: pieces in each row, int64 [rows].
      lengths: pieces of each word, [total words].
    """

    ids: np.ndarray
    mask: np.ndarray
    body: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


def lay_out(own: Vocabulary, table: Table, cuts: np.ndarray, lines: Lines, length: int) -> Layout:
    """Writes the words' pieces into rows.

    Args:
      own: the vocabulary of [CLS], [SEP] and [PAD].
      table: cuts.
      cuts: a row of `table` for each word of `lines`.
      lines: the words.
      length: positions in a row.

    Raises:
      ValueError: the pieces of some row do not fit, that is, the windows were made without one of the vocabularies.
    """
    pieces, lengths = expand(table, cuts)
    counts = lines.sums(lengths)
    room = length - ADDED_PIECES
    if counts.max(initial=0) > room:
        raise ValueError(f"a window has {counts.max()} pieces, its row {room}: windows of other tables?")
    places = np.arange(length)
    mask = places < counts[:, None] + ADDED_PIECES
    body = places <= counts[:, None]
    body[:, 0] = False
    ids = np.full((lines.rows, length), own.pad, np.int32)
    ids[body] = pieces
    ids[:, 0] = own.cls
    ids[np.arange(lines.rows), counts + 1] = own.sep
    return Layout(ids, mask, body, counts, lengths)


def places_of_words(layout: Layout, lines: Lines) -> np.ndarray:
    """The place in its row of the word that each piece belongs to, int32 [rows, length]; -1 for specials."""
    places = np.full(layout.ids.shape, -1, np.int32)
    places[layout.body] = np.repeat(lines.index, layout.lengths)
    return places
