"""Windows: the runs of whole words that a row of a batch is made of, the same for every vocabulary in play."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxdistill.data.vocab import Table, Vocabulary
from jaxdistill.errors import UserError

ADDED_PIECES = 2  # [CLS] before the words and [SEP] after them


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over a corpus.

    Attributes:
      start: offset of each window's first word, int64 [windows].
      stop: offset after each window's last word, int64 [windows].
      length: positions in a row, [CLS] and [SEP] included.
      pieces: for each vocabulary, how many pieces its own cut of all windows has, without [CLS] and [SEP].
    """

    start: np.ndarray
    stop: np.ndarray
    length: int
    pieces: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.start)

    def tokens(self, vocabulary: str) -> int:
        """Real positions of one epoch under a vocabulary, [CLS] and [SEP] included."""
        return self.pieces[vocabulary] + ADDED_PIECES * len(self)

    def padding(self, vocabulary: str) -> float:
        """The share of positions that are [PAD] under a vocabulary."""
        return 1.0 - self.tokens(vocabulary) / (self.length * len(self)) if len(self) else 0.0


def expand(table: Table, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts words by a table.

    Args:
      table: pieces of every word.
      words: word ids, int64 [n].

    Returns:
      The pieces of all words one after the other, int32 [total], and the number of pieces of each, int64 [n].
    """
    first = table.offsets.take(words)
    lengths = table.offsets.take(words + 1) - first
    return table.pieces.take(runs(first, lengths)), lengths


def runs(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each i `first[i], first[i] + 1, ...`, `lengths[i]` of them, one run after the other, int64."""
    index = np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    index += np.arange(len(index))
    return index


def fit_tables(vocabularies: Mapping[str, Vocabulary], tables: Mapping[str, Table], length: int) -> dict[str, Table]:
    """Makes every word fit a row: one whose longest cut exceeds a window becomes `[UNK]` under every vocabulary.

    Args:
      vocabularies: the vocabularies in play, by name.
      tables: their tables over the same lexicon, by the same names.
      length: positions in a row.

    Returns:
      Tables under which no word has more than `length - 2` pieces; the given ones where nothing had to change.

    Raises:
      UserError: names or lexicons differ, or no word fits such a row.
    """
    if length <= ADDED_PIECES:
        raise UserError(f"length {length} leaves no room for words beside [CLS] and [SEP]: give at least 3")
    if set(vocabularies) != set(tables) or not tables:
        raise UserError(f"vocabularies {sorted(vocabularies)} and tables {sorted(tables)} must have the same names")
    sizes = {name: len(table.offsets) - 1 for name, table in tables.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"tables are over different lexicons (words: {sizes}): cut them over one corpus's lexicon")
    long = longest(tables) > length - ADDED_PIECES
    if not long.any():
        return dict(tables)
    return {name: _unknown(table, long, vocabularies[name].unk) for name, table in tables.items()}


def _fitted_cost(tables: Mapping[str, Table], length: int) -> np.ndarray:
    """The most pieces of each word, int32 [words]; raises ValueError where a word does not fit a row."""
    cost, room = longest(tables), length - ADDED_PIECES
    if cost.max(initial=0) > room:
        raise ValueError(f"a word has {cost.max()} pieces, a window {room}: pass the tables through fit_tables")
    return cost


def longest(tables: Mapping[str, Table]) -> np.ndarray:
    """The most pieces that any of the tables gives each word, int32 [words]."""
    return np.max([table.lengths for table in tables.values()], axis=0)


def writable(table: Table, unk: int) -> np.ndarray:
    """Words that a table cuts into at least one piece, none of them `[UNK]`, bool [words]."""
    before = np.concatenate([[0], np.cumsum(table.pieces == unk)])
    return (table.lengths > 0) & (before[table.offsets[1:]] == before[table.offsets[:-1]])


def _unknown(table: Table, chosen: np.ndarray, unk: int) -> Table:
    """The table with the chosen words cut to `[UNK]`."""
    lengths = np.where(chosen, 1, table.lengths)
    kept = ~np.repeat(chosen, table.lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pieces = np.empty(offsets[-1], np.int32)
    pieces[~np.repeat(chosen, lengths)] = table.pieces[kept]
    pieces[offsets[:-1][chosen]] = unk
    return Table(pieces=pieces, offsets=offsets)


def build_windows(
    words: np.ndarray, documents: np.ndarray, tables: Mapping[str, Table], length: int, *, block: int = 1 << 20
) -> Windows:
    """Cuts documents into windows, each of as many words as fit under every mixture of the vocabularies in play.

    A word costs the longest of its cuts, so that any choice of vocabulary per word fits. Greedy from the left; a
    window never spans two documents, and one without a piece under any vocabulary is left out.

    Args:
      words: the corpus's word ids, [n].
      documents: offsets of the documents in `words`, [documents + 1].
      tables: for each vocabulary in play its table, made to fit by `fit_tables`.
      length: positions in a row, [CLS] and [SEP] included.
      block: words looked at together; memory is proportional to it.

    Raises:
      UserError: the corpus has no word that leaves a piece.
    """
    room, cost = length - ADDED_PIECES, _fitted_cost(tables, length)
    starts, stops = [], []
    pieces = dict.fromkeys(tables, 0)
    begin, total, reach = int(documents[0]), int(documents[-1]), block
    while begin < total:
        end = min(begin + reach, total)
        ids = words[begin:end]
        if ids.size and ids.max() >= len(cost):
            raise UserError(
                f"the corpus holds a word id of {ids.max()}, its lexicon only {len(cost)} words: damaged words"
            )
        before = np.concatenate([[0], np.cumsum(cost[ids], dtype=np.int64)])
        following = _following(before, documents, begin, end, room)
        heads = _chain(following, end == total or _is_boundary(documents, end))
        if len(heads) < 2:
            reach *= 2  # one window of words without pieces spans the whole block
            continue
        reach = block
        heads = np.asarray(heads)
        done = heads[-1]
        some = before[heads[1:]] > before[heads[:-1]]
        starts.append(heads[:-1][some] + begin)
        stops.append(heads[1:][some] + begin)
        for name, table in tables.items():
            pieces[name] += int(table.lengths[ids[:done]].sum(dtype=np.int64))
        begin += int(done)
    if not any(map(len, starts)):
        raise UserError("the corpus has no words to train on: every word is empty under every vocabulary")
    return Windows(np.concatenate(starts), np.concatenate(stops), length, pieces)


def _following(before: np.ndarray, documents: np.ndarray, begin: int, end: int, room: int) -> np.ndarray:
    """For a window that starts at each word of a block: where it stops, int64 [end - begin], relative to `begin`."""
    stop = np.searchsorted(before, before[:-1] + room, side="right") - 1
    low, high = np.searchsorted(documents, [begin, end], side="right")
    edges = np.concatenate([[begin], documents[low:high], [end]]).astype(np.int64) - begin
    return np.minimum(stop, np.repeat(edges[1:], np.diff(edges)))


def _chain(following: np.ndarray, whole: bool) -> list[int]:
    """Follows the windows of a block from its first word; the last one counts only if nothing after could join it."""
    heads, jump, at = [0], memoryview(following), 0
    while at < len(following):
        at = jump[at]
        heads.append(at)
    return heads if whole else heads[:-1]


def _is_boundary(documents: np.ndarray, offset: int) -> bool:
    return documents[np.searchsorted(documents, offset)] == offset


@dataclass(frozen=True, eq=False)
class CutWindows:
    """Windows over a corpus, and how the vocabularies that they were made for cut their words.

    Attributes:
      words: the corpus's word ids, [n].
      windows: windows over them.
      vocabularies: the vocabularies in play, by name: those the windows were made with.
      tables: their tables over the corpus's lexicon, made to fit by `fit_tables`.
    """

    words: np.ndarray
    windows: Windows
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, Table]

    def __post_init__(self):
        names = [sorted(each) for each in (self.windows.pieces, self.vocabularies, self.tables)]
        if not names[0] == names[1] == names[2]:
            raise UserError(
                f"the windows were made for vocabularies {names[0]}, what is read of them has vocabularies {names[1]} "
                f"and tables {names[2]}: make all with the same ones"
            )
        _ = self.cost  # raises where a word is longer than a window

    @functools.cached_property
    def cost(self) -> np.ndarray:
        """The most pieces that any vocabulary gives each word, int32 [words]."""
        return _fitted_cost(self.tables, self.windows.length)

    @functools.cached_property
    def writable(self) -> dict[str, np.ndarray]:
        """For each vocabulary the words that it cuts into pieces, none of them `[UNK]`, bool [words]."""
        return {name: writable(table, self.vocabularies[name].unk) for name, table in self.tables.items()}

    @functools.cached_property
    def same(self) -> np.ndarray:
        """Words that every vocabulary cuts into the same pieces, bool [words]."""
        numbers: dict[str, int] = {}
        first, *others = [
            Table(
                np.array([numbers.setdefault(p, len(numbers)) for p in vocabulary.pieces])[table.pieces], table.offsets
            )
            for vocabulary, table in ((self.vocabularies[name], table) for name, table in self.tables.items())
        ]
        found = first.lengths > 0
        for other in others:
            found &= first.lengths == other.lengths
            words = np.flatnonzero(found)
            (one, lengths), (two, _) = expand(first, words), expand(other, words)
            equal = np.concatenate([[0], np.cumsum(one == two)])
            ends = np.cumsum(lengths)
            found[words] = equal[ends] - equal[ends - lengths] == lengths
        return found
