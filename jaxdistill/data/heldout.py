"""Held-out batches: the same words hidden from every model, and ordinary masked pieces with a fixed seed."""

import functools
from dataclasses import dataclass, field

import numpy as np

from jaxdistill.data.draws import draw, key
from jaxdistill.data.masking import Masking, apply, choose_pieces, choose_words, slots_of_words
from jaxdistill.data.views import Lines, View, lay_out, make_cutter, read_lines
from jaxdistill.data.vocab import Table
from jaxdistill.data.windows import CutWindows
from jaxdistill.errors import UserError


@dataclass(frozen=True, eq=False)
class HeldOut(CutWindows):
    """Batches to measure models on: each window once, in order, the last batch filled up with empty rows.

    What is masked depends on the window and the seed alone, not on the size of the batches.

    Attributes, besides those of `CutWindows`:
      masking: for `pieces` all of it; for `whole` the rate (the share of words) and the predictions.
      seed: of the draws.
      most: at most so many windows, spread evenly over the corpus; 0 takes all.
    """

    masking: Masking = field(default_factory=Masking)
    seed: int = 0
    most: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.masking.check(self.windows.length)

    def count(self, batch: int) -> int:
        """How many batches of so many rows there are."""
        if batch < 1:
            raise UserError(f"batch {batch}: give at least one row")
        return -(-len(self._places) // batch)

    def pieces(self, vocabulary: str, index: int, batch: int) -> dict[str, np.ndarray]:
        """One batch with masked pieces as in training, under a vocabulary's own cut.

        Args:
          vocabulary: its name.
          index: which batch.
          batch: rows.

        Returns:
          A view; see `Batches`.
        """
        rows, lines = self._lines(index, batch)
        cutter = make_cutter(View(vocabulary), self.vocabularies, self.tables)
        layout = lay_out(cutter.own, cutter.table, lines.words, lines, self.windows.length)
        keys = [draw(key(self.seed, "held out", purpose), rows) for purpose in ("pieces", "action", "random")]
        slots = choose_pieces(cutter, layout, self.masking, keys[0])
        return apply(cutter, layout, slots, self.masking, *keys[1:])

    def whole(self, vocabulary: str, index: int, batch: int) -> dict[str, np.ndarray]:
        """One batch with the same words hidden whole, whatever the vocabulary.

        Every piece of a chosen word reads `[MASK]`. A word that the vocabulary can't write (an `[UNK]` in its cut, or
        no piece) is one `[MASK]` and no target: it is counted, and counted wrong.

        Args:
          vocabulary: its name.
          index: which batch.
          batch: rows.

        Returns:
          A view, and `words` int32 [batch, predictions]: which of the row's chosen words, from 0, each slot belongs
          to, -1 where unused; `chosen` bool [batch, predictions]: there is such a word; `written` bool
          [batch, predictions]: the vocabulary can write it.
        """
        rows, lines = self._lines(index, batch)
        room = self.masking.predictions
        chosen = self._choose(lines, rows)
        own, table = self.vocabularies[vocabulary], self._hiding[vocabulary]
        hidden = chosen & ~self.writable[vocabulary][lines.words]
        cuts = np.where(hidden, len(table.offsets) - 2, lines.words)
        layout = lay_out(own, table, cuts, lines, self.windows.length)
        slots, word = slots_of_words(layout, lines, chosen & ~hidden, room)
        ids = layout.ids.copy()
        row = np.arange(batch)[:, None]
        found = ids[row, slots.positions]
        ids[row, slots.positions] = np.where(slots.used, own.mask, found)
        counts = lines.sums(chosen)
        rank = np.cumsum(chosen) - 1 - (np.cumsum(counts) - counts)[lines.row]
        written = np.zeros((batch, room), bool)
        written[lines.row[chosen], rank[chosen]] = ~hidden[chosen]
        return {
            "ids": ids,
            "mask": layout.mask,
            "positions": slots.positions.astype(np.int32),
            "targets": np.where(slots.used, found, -1).astype(np.int32),
            "words": np.where(slots.used, np.append(rank, -1)[word], -1).astype(np.int32),
            "chosen": np.arange(room) < counts[:, None],
            "written": written,
        }

    def _lines(self, index: int, batch: int) -> tuple[np.ndarray, Lines]:
        """The windows of a batch, by number, and their words; a window past the last one is empty."""
        if not 0 <= index < self.count(batch):
            raise IndexError(f"batch {index} of {self.count(batch)}")
        place = np.full(batch, len(self.windows))
        found = self._places[index * batch : (index + 1) * batch]
        place[: len(found)] = found
        start, stop = (np.append(ends, 0)[place] for ends in (self.windows.start, self.windows.stop))
        return place, read_lines(self.words, start, stop)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        count = len(self.windows)
        return np.linspace(0, count - 1, self.most).astype(np.int64) if 0 < self.most < count else np.arange(count)

    def _choose(self, lines: Lines, rows: np.ndarray) -> np.ndarray:
        keys = draw(key(self.seed, "held out", "words"), rows)
        cost = self.cost[lines.words]
        return choose_words(lines, cost, cost > 0, self.masking.rate, self.masking.predictions, keys)

    @functools.cached_property
    def _hiding(self) -> dict[str, Table]:
        """The tables with one more word, a single `[MASK]`, for what a vocabulary can't write."""
        return {
            name: Table(
                pieces=np.append(table.pieces, np.int32(self.vocabularies[name].mask)),
                offsets=np.append(table.offsets, table.offsets[-1] + 1),
            )
            for name, table in self.tables.items()
        }
