"""BERT's masking: which positions are predicted, and what the model reads there."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jaxdistill.data.draws import below, draw, uniform
from jaxdistill.data.views import Cutter, Layout, Lines, View
from jaxdistill.data.windows import runs
from jaxdistill.errors import UserError

GROUP = 8
"""Consecutive rows of the global batch over which positions are drawn by rarity, whatever the number of processes."""

_STEEPEST = 10.0
_NEVER = np.uint64(2**64 - 1)
_PLACE = 16  # low bits of a sort key that hold the position


@dataclass(frozen=True)
class Masking:
    """What is masked, and how (BERT's settings).

    Attributes:
      rate: the share of a row's pieces (of its words with `whole_words`) to predict; at least one.
      mask: of these, the share that the model reads as `[MASK]`.
      random: of these, the share that it reads as a random piece; the rest it reads as they are.
      predictions: at most so many positions in a row.
      whole_words: mask the same words, with all their pieces, in all views; otherwise every view draws its own pieces.
      rarity: when above 0, ⌈rate x pieces⌉ positions of each `GROUP` of rows are drawn without replacement, with
        probability proportional to max(count of the piece, 1)^-rarity (DistilBERT, arXiv 1910.01108, has 0.7). Rows of
        rare pieces then have more than others; what a row draws beyond `predictions` is not masked.
      static: the seed of masks that are drawn once for each window, the same in every epoch and run, so that a teacher
        that does not train can be computed once; None draws anew at every step.
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    predictions: int = 20
    whole_words: bool = False
    rarity: float = 0.0
    static: int | None = None

    def __post_init__(self):
        if not 0.0 < self.rate <= 1.0:
            raise UserError(f"masking rate {self.rate} is not above 0 and at most 1")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1.0 + 1e-9:
            raise UserError(
                f"shares mask={self.mask} and random={self.random} must not be negative and add up to at most 1"
            )
        if self.predictions < 1:
            raise UserError(f"predictions {self.predictions}: give at least 1 per row")
        if not 0 <= self.rarity <= _STEEPEST:
            raise UserError(f"rarity {self.rarity}: it must be 0, for none, to {_STEEPEST:g}")
        if self.rarity and self.whole_words:
            raise UserError("rarity is of pieces: leave it or whole_words out")
        if self.rarity and self.static is not None:
            raise UserError("rarity is drawn over the rows of a batch, static masks for each window: leave one out")
        if self.static is not None and not 0 <= self.static < 2**32:
            raise UserError(f"static={self.static}: the seed of static masks must be at least 0 and below 2**32")

    def check(self, length: int) -> None:
        """Raises UserError when rows of `length` positions are too short for the predictions, or too long to sort."""
        if length >= 1 << _PLACE:
            raise UserError(f"rows of {length} positions: give less than {1 << _PLACE}")
        if self.predictions > length:
            raise UserError(f"{self.predictions} predictions do not fit a row of {length} positions: give fewer")

    def check_rarity(self, views: Iterable[View], batch: int) -> None:
        """Raises UserError when positions of these views or of batches of so many rows can't be drawn by rarity."""
        if self.rarity and batch % GROUP:
            raise UserError(f"rarity is drawn over groups of {GROUP} rows, which do not divide {batch} rows")
        if self.rarity and any(view.cut is None for view in views):
            raise UserError("rarity needs a count for each piece: a view whose words are cut now so, now so, has none")

    def check_static(self) -> None:
        """Raises UserError when masks change from step to step, so that nothing that reads them can be cached."""
        if self.static is None:
            raise UserError("a cache needs static masks, drawn once for each window: give a seed for them")

    def scored(self) -> "Masking":
        """BERT's masking of the same rate: what held-out scores are made with, however a model was trained."""
        return Masking(rate=self.rate, predictions=self.predictions)


@dataclass(frozen=True, eq=False)
class Slots:
    """Where a view predicts.

    Attributes:
      positions: ascending in each row, 0 where unused, int64 [rows, slots].
      used: bool [rows, slots].
      unit: what the choice between mask, random and kept is drawn by: the position, or the word's place in its row.
    """

    positions: np.ndarray
    used: np.ndarray
    unit: np.ndarray


def choose_pieces(
    cutter: Cutter, layout: Layout, masking: Masking, keys: np.ndarray, waits: np.ndarray | None = None
) -> Slots:
    """Draws positions without replacement: those of the smallest hashes, `[UNK]` and specials excepted.

    A row has `min(predictions, max(1, rate x pieces rounded half up))` of them, fewer where it is all `[UNK]`.

    With `waits` every position arrives after a time −log(u)·wait, and of each `GROUP` of rows the first ⌈rate x pieces⌉
    are taken: a draw without replacement with probabilities proportional to 1/wait (Efraimidis and Spirakis 2006).

    Args:
      cutter: the view's vocabularies.
      layout: its rows.
      masking: the settings.
      keys: a key per row, uint64 [rows].
      waits: of each joint id, float64; rows are then a multiple of `GROUP`.
    """
    length = layout.ids.shape[1]
    bits = draw(keys[:, None], np.arange(length)[None])
    if waits is not None:
        bits = (-np.log1p(-uniform(bits)) * waits[layout.ids]).view(np.uint64)  # Floats of one sign sort as their bits.
    order = _sortable(bits, np.arange(length))
    allowed = layout.body
    for unknown in cutter.unknown:
        allowed = allowed & (layout.ids != unknown)
    order[~allowed] = _NEVER
    if waits is None:
        wanted = np.maximum(1, np.floor(masking.rate * layout.counts + 0.5))
    else:
        order, wanted = _first_of_groups(order, layout.counts, masking.rate), layout.counts
    order = _smallest(order, masking.predictions)
    used = (np.arange(masking.predictions) < wanted[:, None]) & (order != _NEVER)
    positions = np.where(used, _places(order), length)
    positions.sort(axis=1)
    used = positions < length
    positions[~used] = 0
    return Slots(positions, used, positions)


def _sortable(bits: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Hashes with their places in the lowest bits: sorting these is several times faster than an indirect sort."""
    bits >>= np.uint64(_PLACE)
    bits <<= np.uint64(_PLACE)
    bits |= places.astype(np.uint64)
    return bits


def _first_of_groups(order: np.ndarray, counts: np.ndarray, rate: float) -> np.ndarray:
    """The order in which only the smallest of each group are left: as many as `rate` times its pieces, rounded up."""
    groups = order.reshape(-1, GROUP * order.shape[1])
    wanted = np.ceil(rate * counts.reshape(-1, GROUP).sum(axis=1)).astype(np.int64)
    last = np.take_along_axis(np.sort(groups, axis=1), wanted[:, None] - 1, axis=1)
    return np.where(groups > last, _NEVER, groups).reshape(order.shape)


def _smallest(order: np.ndarray, count: int) -> np.ndarray:
    """The `count` smallest of each row, in order."""
    return np.sort(np.partition(order, count - 1, axis=1)[:, :count], axis=1)


def _places(order: np.ndarray) -> np.ndarray:
    return (order & np.uint64((1 << _PLACE) - 1)).astype(np.int64)


def choose_words(lines: Lines, cost: np.ndarray, allowed: np.ndarray, rate: float, room: int, keys) -> np.ndarray:
    """Draws whole words: those of the smallest hashes, as far as all their pieces fit.

    A row wants `max(1, rate x words rounded half up)` of them, words without pieces not counted. They are taken in the
    order of their hashes until one does not fit any more.

    Args:
      lines: the words.
      cost: the longest cut of each, [total].
      allowed: which may be chosen, bool [total].
      rate: the share of a row's words.
      room: slots for their pieces.
      keys: a key per row, uint64 [rows].

    Returns:
      The chosen words, bool [total].
    """
    wanted = np.maximum(1, np.floor(rate * lines.sums(cost > 0) + 0.5))
    able = np.flatnonzero(allowed & (cost > 0) & (cost <= room))
    row, counts = lines.row[able], np.bincount(lines.row[able], minlength=lines.rows)
    first = np.cumsum(counts) - counts
    rank = np.arange(len(able)) - first[row]
    order = np.full((lines.rows, max(room, counts.max(initial=0))), _NEVER)
    order[row, rank] = _sortable(draw(keys[row], lines.index[able]), rank)
    order = _smallest(order, room)  # Every word takes a slot at least.
    real = order != _NEVER
    word = able[np.where(real, first[:, None] + _places(order), 0)] if len(able) else np.zeros(order.shape, np.int64)
    taken = real & (np.arange(room) < wanted[:, None])
    taken &= np.where(real, cost[word], 0).cumsum(axis=1) <= room
    chosen = np.zeros(len(lines.words), bool)
    chosen[word[taken]] = True
    return chosen


def slots_of_words(layout: Layout, lines: Lines, chosen: np.ndarray, predictions: int) -> tuple[Slots, np.ndarray]:
    """The slots of all pieces of the chosen words.

    Args:
      layout: a view's rows.
      lines: the words in them.
      chosen: bool [total].
      predictions: slots in a row.

    Returns:
      The slots, and which word (an index into `lines.words`) each belongs to, int64 [rows, slots], -1 where unused.
    """
    word = np.flatnonzero(chosen)
    lengths, row = layout.lengths[word], lines.row[word]
    before = np.cumsum(layout.lengths) - layout.lengths
    first = before[word] - (np.cumsum(layout.counts) - layout.counts)[row] + 1
    column = runs(first, lengths)
    word, row = np.repeat(word, lengths), np.repeat(row, lengths)
    slot = runs(np.zeros(lines.rows, np.int64), np.bincount(row, minlength=lines.rows))
    positions, unit = np.zeros((2, lines.rows, predictions), np.int64)
    used = np.zeros(positions.shape, bool)
    words = np.full(positions.shape, -1, np.int64)
    positions[row, slot], used[row, slot], words[row, slot] = column, True, word
    unit[row, slot] = lines.index[word]
    return Slots(positions, used, unit), words


def apply(
    cutter: Cutter, layout: Layout, slots: Slots, masking: Masking, actions: np.ndarray, replacements: np.ndarray
) -> dict[str, np.ndarray]:
    """Masks a view's rows at its slots.

    Args:
      cutter: the view's vocabularies.
      layout: its rows.
      slots: where it predicts.
      masking: the shares of masked and of random pieces.
      actions: a key per row for the choice between them, uint64 [rows].
      replacements: a key per row for the random pieces, uint64 [rows].

    Returns:
      The view: `ids`, `mask`, `positions`, `targets`; `source` and `target_source` when it is mixed.
    """
    ids, size = layout.ids.copy(), cutter.own.size
    row = np.arange(len(ids))[:, None]
    found = ids[row, slots.positions]
    ordinary, amounts = cutter.ordinary
    source = (found >= size).astype(np.int64)
    bits = draw(replacements[:, None], slots.positions)
    drawn = ordinary[below(bits, amounts[source]) + source * amounts[0]]
    action = uniform(draw(actions[:, None], slots.unit))
    changed = np.where(action < masking.mask + masking.random, drawn, found)
    read = np.where(action < masking.mask, cutter.own.mask, changed)
    ids[row, slots.positions] = np.where(slots.used, read, found)
    view = {
        "ids": ids,
        "mask": layout.mask,
        "positions": slots.positions.astype(np.int32),
        "targets": np.where(slots.used, found - source * size, -1).astype(np.int32),
    }
    if cutter.other is not None:
        other = ids >= size
        ids -= other * np.int32(size)
        view["source"] = other.astype(np.int32)
        view["target_source"] = np.where(slots.used, source, 0).astype(np.int32)
    return view
