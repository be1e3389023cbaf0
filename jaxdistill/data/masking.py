"""BERT's masking: which positions are predicted, and what the model reads there."""

from dataclasses import dataclass

import numpy as np

from jaxdistill.data.draws import below, draw, uniform
from jaxdistill.data.views import Cutter, Layout, Lines
from jaxdistill.errors import UserError

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
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    predictions: int = 20
    whole_words: bool = False

    def __post_init__(self):
        if not 0.0 < self.rate <= 1.0:
            raise UserError(f"masking rate {self.rate} is not above 0 and at most 1")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1.0 + 1e-9:
            raise UserError(
                f"shares mask={self.mask} and random={self.random} must not be negative and add up to at most 1"
            )
        if self.predictions < 1:
            raise UserError(f"predictions {self.predictions}: give at least 1 per row")

    def check(self, length: int) -> None:
        """Raises UserError when rows of `length` positions are too short for the predictions, or too long to sort."""
        if length >= 1 << _PLACE:
            raise UserError(f"rows of {length} positions: give less than {1 << _PLACE}")
        if self.predictions > length:
            raise UserError(f"{self.predictions} predictions do not fit a row of {length} positions: give fewer")


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


def choose_pieces(cutter: Cutter, layout: Layout, masking: Masking, keys: np.ndarray) -> Slots:
    """Draws positions without replacement: those of the smallest hashes, `[UNK]` and specials excepted.

    A row has `min(predictions, max(1, rate x pieces rounded half up))` of them, fewer where it is all `[UNK]`.

    Args:
      cutter: the view's vocabularies.
      layout: its rows.
      masking: the settings.
      keys: a key per row, uint64 [rows].
    """
    length = layout.ids.shape[1]
    order = draw(keys[:, None], np.arange(length)[None])
    order >>= np.uint64(_PLACE)
    order <<= np.uint64(_PLACE)
    order |= np.arange(length, dtype=np.uint64)
    allowed = layout.body
    for unknown in cutter.unknown:
        allowed = allowed & (layout.ids != unknown)
    order[~allowed] = _NEVER
    slots = masking.predictions
    order = np.partition(order, slots - 1, axis=1)[:, :slots]
    order.sort(axis=1)
    wanted = np.maximum(1, np.floor(masking.rate * layout.counts + 0.5))
    used = (np.arange(slots) < wanted[:, None]) & (order != _NEVER)
    positions = np.where(used, order & np.uint64((1 << _PLACE) - 1), np.uint64(length)).astype(np.int64)
    positions.sort(axis=1)
    used = positions < length
    positions[~used] = 0
    return Slots(positions, used, positions)


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
    chosen = np.zeros(len(lines.words), bool)
    words = np.bincount(lines.row[cost > 0], minlength=lines.rows)
    wanted = np.maximum(1, np.floor(rate * words + 0.5))
    able = np.flatnonzero(allowed & (cost > 0) & (cost <= room))
    row = lines.row[able]
    counts = np.bincount(row, minlength=lines.rows)
    rank = np.arange(len(able)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = int(counts.max(initial=0))
    order = np.full((lines.rows, width), _NEVER)
    order[row, rank] = draw(keys[row], lines.index[able]) >> np.uint64(1)
    sizes = np.zeros((lines.rows, width), np.int64)
    sizes[row, rank] = cost[able]
    by_hash = np.argsort(order, axis=1, kind="stable")
    fits = np.take_along_axis(sizes, by_hash, axis=1).cumsum(axis=1) <= room
    fits &= np.arange(width) < np.minimum(wanted, counts)[:, None]
    taken = np.zeros_like(fits)
    np.put_along_axis(taken, by_hash, fits, axis=1)
    chosen[able] = taken[row, rank]
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
    word = np.repeat(np.arange(len(chosen)), layout.lengths)
    hit = np.zeros(layout.body.shape, bool)
    hit[layout.body] = chosen[word]
    row, column = np.nonzero(hit)
    counts = np.bincount(row, minlength=lines.rows)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    positions = np.zeros((lines.rows, predictions), np.int64)
    used = np.zeros(positions.shape, bool)
    words = np.full(positions.shape, -1, np.int64)
    positions[row, slot], used[row, slot], words[row, slot] = column, True, word[chosen[word]]
    unit = np.where(used, lines.index[words] if len(chosen) else 0, 0)
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
