"""Where candidate pieces stand in a list of words, and what greedy cutting makes of a choice of them.

Positions are laid out by their distance to the end of the word: words are sorted longest first, so the positions at
distance `d` are `base[d] + word` for the first `width[d]` words, and a cut that starts there reads only smaller
distances. One backward sweep over distances then cuts the suffixes of all words at once. `base[0] + word` is the end
of a word.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxdistill.data.vocab import PREFIX

CONTINUED = 1 << 21  # above every code point: marks the first character of a piece that continues a word


@dataclasses.dataclass(frozen=True)
class Cuts:
    """All words, and all their suffixes, cut longest match first.

    Attributes:
      longest: where the longest piece from a position ends, int32 `[positions]`.
      second: where the second longest ends, int32 `[positions]`; 0 when there is none.
      piece: the longest piece itself, int32 `[positions]`.
      length: pieces from a position to the end of its word, int16 `[positions]`.
      visited: the positions where a word's own cut has a piece, int64 `[pieces of all words]`.
      total: pieces of all words, each as often as it occurs.
    """

    longest: np.ndarray
    second: np.ndarray
    piece: np.ndarray
    length: np.ndarray
    visited: np.ndarray
    total: int


class Candidates:
    """Every piece that occurs often enough in some words, with every place where it does.

    Candidates are numbered by length, then those that start a word before those that continue one, then by code points.
    The first `singles` are the single characters, which are always there, so that every word can be cut.

    Attributes:
      singles: how many candidates are one character long.
      counts: occurrences of each candidate, int64 `[candidates]`.
      word: the word of each position, int32 `[positions]`.
      weight: how often that word occurs, int64 `[positions]`.
    """

    def __init__(self, words: Sequence[str], counts: np.ndarray, least: int):
        """Finds the candidates, longer ones from shorter ones.

        Args:
          words: distinct, longest first.
          counts: how often each occurs, int64 `[words]`.
          least: occurrences below which a piece of two characters or more is no candidate.
        """
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        self._deepest = int(lengths[0])
        width = [len(words)] + [int(np.searchsorted(-lengths, -d, "right")) for d in range(1, self._deepest + 1)]
        self._base = base = np.concatenate([[0], np.cumsum(width)])
        text = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32).astype(np.int64)
        begin = np.cumsum(lengths) - lengths
        size = int(base[-1])
        character, following = np.zeros(size, np.int64), np.zeros(size, np.int32)
        self.word = np.zeros(size, np.int32)
        self.word[: width[0]] = np.arange(width[0])
        for d in range(1, self._deepest + 1):
            here, some = slice(base[d], base[d + 1]), np.arange(width[d])
            self.word[here] = some
            character[here] = text[begin[some] + lengths[some] - d]
            following[here] = base[d - 1] + some
        self.weight = counts[self.word]
        self._first = base[lengths] + np.arange(len(words))
        continued = np.full(size, CONTINUED)
        continued[self._first] = 0
        self._find(character, continued, following, least)

    def _find(self, character: np.ndarray, continued: np.ndarray, following: np.ndarray, least: int) -> None:
        """Fills the levels: for each length, (candidate, start, end) of every occurrence, by start."""
        ends = self._base[1]
        start = np.arange(ends, len(character), dtype=np.int32)
        keys, piece = np.unique((character + continued)[start], return_inverse=True)
        letters, letter = np.unique(character[ends:], return_inverse=True)
        letter = np.concatenate([np.zeros(ends, letter.dtype), letter])
        piece, end = piece.astype(np.int32), following[start]
        tally = np.bincount(piece, self.weight[start]).astype(np.int64)
        self.singles = len(keys)
        self._levels, counts, self._parent, self._last = [], [], [], []
        offset, parent, last = 0, np.full(len(keys), -1), keys
        while len(tally):
            self._levels.append((piece, start, end))
            counts.append(tally)
            self._parent.append(parent)
            self._last.append(last)
            longer = (end >= ends) & (tally[piece - offset] >= least)
            parents, start, end = piece[longer], start[longer], end[longer]
            key = parents.astype(np.int64) * len(letters) + letter[end]
            keys, piece = np.unique(key, return_inverse=True)
            tally = np.bincount(piece, self.weight[start], minlength=len(keys)).astype(np.int64)
            kept = tally >= least
            offset += len(counts[-1])
            number = np.where(kept, np.cumsum(kept) - 1 + offset, -1).astype(np.int32)
            occurs = kept[piece]
            piece, start, end = number[piece[occurs]], start[occurs], following[end[occurs]]
            tally, parent, last = tally[kept], keys[kept] // len(letters), letters[keys[kept] % len(letters)]
        self.counts = np.concatenate(counts)
        self._parent, self._last = np.concatenate(self._parent), np.concatenate(self._last)

    def __len__(self) -> int:
        return len(self.counts)

    def text(self, candidate: int) -> str:
        """The candidate as a WordPiece, with `##` when it continues a word."""
        letters = []
        while candidate >= 0:
            letters.append(int(self._last[candidate]))
            candidate = int(self._parent[candidate])
        *rest, first = letters
        prefix = PREFIX if first >= CONTINUED else ""
        return prefix + "".join(map(chr, [first % CONTINUED, *reversed(rest)]))

    def cut(self, chosen: np.ndarray) -> Cuts:
        """Cuts with the chosen candidates, bool `[candidates]`, among them all the single characters."""
        size, ends = len(self.word), self._base[1]
        longest, second, used = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
        for piece, start, end in self._levels:
            there = chosen[piece]
            piece, start, end = piece[there], start[there], end[there]
            second[start] = longest[start]
            longest[start], used[start] = end, piece
        length = np.zeros(size, np.int16)
        for d in range(1, self._deepest + 1):
            here = slice(self._base[d], self._base[d + 1])
            length[here] = length[longest[here]] + 1
        visited, at = [], self._first
        while len(at):
            visited.append(at)
            at = longest[at]
            at = at[at >= ends]
        total = int((length[self._first] * self.weight[self._first]).sum())
        return Cuts(longest, second, used, length, np.concatenate(visited), total)

    def uses(self, cuts: Cuts) -> np.ndarray:
        """How often each candidate stands in the cut corpus, int64 `[candidates]`."""
        at = cuts.visited
        return np.bincount(cuts.piece[at], self.weight[at], minlength=len(self)).astype(np.int64)

    def losses(self, cuts: Cuts) -> np.ndarray:
        """Pieces more if a chosen candidate alone were removed, int64 `[candidates]`; 0 for one that is not used.

        Exact but for words where the candidate would be used again after its removal changed the cut.
        """
        at = cuts.visited
        more = cuts.length[cuts.second[at]].astype(np.int64) - cuts.length[cuts.longest[at]]
        return np.bincount(cuts.piece[at], self.weight[at] * more, minlength=len(self)).astype(np.int64)

    def gains(self, cuts: Cuts, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pieces fewer if a candidate alone were added.

        Returns:
          The gain of each candidate, int64 `[candidates]`, and of each place where it would be cut: the candidate, the
          word and the gain there, three arrays `[places]`.
        """
        visited = np.zeros(len(self.word), bool)
        visited[cuts.visited] = True
        pieces, words, gains = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for piece, start, end in self._levels:
            place = visited[start] & (end < cuts.longest[start]) & ~chosen[piece]
            piece, start, end = piece[place], start[place], end[place]
            fewer = cuts.length[cuts.longest[start]].astype(np.int64) - cuts.length[end]
            pieces.append(piece)
            words.append(self.word[start])
            gains.append(self.weight[start] * fewer)
        piece, gain = np.concatenate(pieces), np.concatenate(gains)
        return np.bincount(piece, gain, minlength=len(self)).astype(np.int64), piece, np.concatenate(words), gain
