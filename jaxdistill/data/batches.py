"""Batches: a pure function of seed, step and process, from windows of words to what every model reads."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from grain.experimental import index_shuffle

from jaxdistill.data.draws import draw, key
from jaxdistill.data.masking import GROUP, Masking, apply, choose_pieces, choose_words, slots_of_words
from jaxdistill.data.views import (
    Cutter,
    Layout,
    Lines,
    View,
    choose_cuts,
    lay_out,
    make_cutter,
    places_of_words,
    read_lines,
)
from jaxdistill.data.windows import CutWindows
from jaxdistill.errors import UserError

Batch = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Batches(CutWindows):
    """The batches of a run: `batches(step, process, processes)`.

    Every window is read once an epoch, in an order that changes with the epoch; a batch may span two epochs.

    Attributes, besides those of `CutWindows`:
      views: what each model reads, by role.
      batch: rows of the global batch.
      masking: what is masked.
      seed: of the order and of every draw.
      counts: how often each word is in the corpus, int64 [words]; needed when masking goes by rarity.
      computed: by role, what a cache holds of windows given by number; it becomes `computed` of that role's view.
    """

    views: Mapping[str, View]
    batch: int
    masking: Masking = field(default_factory=Masking)
    seed: int = 0
    counts: np.ndarray | None = None
    computed: Mapping[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if self.batch < 1:
            raise UserError(f"batch {self.batch}: give at least one row")
        if not len(self.windows):
            raise UserError("there is no window to make batches of: the corpus is empty")
        self.masking.check(self.windows.length)
        self.masking.check_rarity(self.views.values(), self.batch)
        if self.masking.rarity and self.counts is None:
            raise ValueError("masking by rarity needs the counts of the lexicon's words")
        for name, view in self.views.items():
            self._cutter(view)
            if view.masks_of is not None:
                shared = self.views.get(view.masks_of)
                if shared is None or shared.masks_of is not None:
                    raise UserError(
                        f"the view {name!r} is to share the masks of {view.masks_of!r}: name another view "
                        "that has masks of its own"
                    )
                if view.cut is None or view.cut != shared.cut:
                    raise UserError(
                        f"the view {name!r} is to share the masks of {view.masks_of!r}, whose words are "
                        "cut otherwise: only views of the same pieces can"
                    )

    def __call__(self, step: int, process: int = 0, processes: int = 1) -> Batch:
        """One process's share of a step's batch: its rows are `[process * batch / processes, ...)` of the whole.

        Args:
          step: from 0.
          process: which share.
          processes: how many equal shares there are.

        Returns:
          For each role `ids`, `mask` [rows, length] and `positions`, `targets` [rows, predictions]; for a mixed view
          also `source` and `target_source` (0: an id of the view's own vocabulary, 1: of the other one); with masks of
          whole words also `words` [rows, length], the place in its row of each piece's word, -1 for specials, and
          `same` [rows, predictions], whether every vocabulary cuts the slot's word alike.
        """
        rows = self.rows(process, processes)
        return self.read(self.order(step * self.batch + rows), step, rows)

    def read(self, windows: np.ndarray, step: int, rows: np.ndarray) -> Batch:
        """The given windows, int64 [rows], with the draws of a step and of global rows; static masks need neither."""
        lines = read_lines(self.words, self.windows.start[windows], self.windows.stop[windows])
        if self.masking.static is None:
            keys = lambda *purpose: draw(key(self.seed, *purpose, step), rows)  # noqa: E731
        else:
            keys = lambda *purpose: draw(key(self.masking.static, *purpose, "static"), windows)  # noqa: E731
        words = self._whole_words(lines, keys("words")) if self.masking.whole_words else None
        batch = {
            role: self._view(role, view, lines, words, view.mixing(step), keys) for role, view in self.views.items()
        }
        return batch | {role: {**batch[role], "computed": read(windows)} for role, read in self.computed.items()}

    def rows(self, process: int, processes: int) -> np.ndarray:
        """The global rows of a process, int64 [batch / processes]."""
        if processes < 1 or not 0 <= process < processes:
            raise UserError(f"process {process} of {processes}: count from 0")
        if self.batch % processes:
            raise UserError(f"a batch of {self.batch} rows does not divide over {processes} processes")
        share = self.batch // processes
        if self.masking.rarity and share % GROUP:
            raise UserError(
                f"rarity is drawn over groups of {GROUP} rows, which do not divide a process's {share} rows"
            )
        return np.arange(process * share, (process + 1) * share)

    def order(self, places: np.ndarray) -> np.ndarray:
        """The windows at places of the endless stream of shuffled epochs, int64 of the same shape.

        That of grain's `MapDataset.range(windows).shuffle(seed).repeat()`, whose look-ups take twice as long.
        """
        # Epoch e has the seed + e: hashing ours first keeps seed 1's second epoch from being seed 2's first.
        seed, count = key(self.seed, "order") >> 32, len(self.windows)
        epochs, indices = np.divmod(places, count)
        seeds = (seed + epochs) % 2**32
        pairs = zip(indices.tolist(), seeds.tolist(), strict=True)
        return np.array([index_shuffle(i, max_index=count - 1, seed=s, rounds=4) for i, s in pairs], np.int64)

    @functools.cached_property
    def _cutters(self) -> dict[View, Cutter]:
        return {}

    def _cutter(self, view: View) -> Cutter:
        if view not in self._cutters:
            self._cutters[view] = make_cutter(view, self.vocabularies, self.tables)
        return self._cutters[view]

    @functools.cached_property
    def _maskable(self) -> np.ndarray:
        """Words that every vocabulary can write, bool [words]."""
        return np.all(list(self.writable.values()), axis=0)

    @functools.cached_property
    def _waits(self) -> dict[str, np.ndarray]:
        """For each vocabulary max(count, 1)^rarity of its pieces, float64 [pieces]."""
        waits = {}
        for name, table in self.tables.items():
            counts = np.repeat(self.counts, table.lengths)
            found = np.bincount(table.pieces, weights=counts, minlength=self.vocabularies[name].size)
            waits[name] = np.maximum(found, 1.0) ** self.masking.rarity
        return waits

    def _whole_words(self, lines: Lines, keys: np.ndarray) -> np.ndarray:
        # By the longest cut and by every vocabulary, so that the choice depends on neither the views nor the mixture.
        cost, allowed = self.cost[lines.words], self._maskable[lines.words]
        return choose_words(lines, cost, allowed, self.masking.rate, self.masking.predictions, keys)

    def _view(
        self,
        role: str,
        view: View,
        lines: Lines,
        words: np.ndarray | None,
        mixing: float,
        keys: Callable[..., np.ndarray],
    ) -> dict[str, np.ndarray]:
        cutter, owner = self._cutter(view), view.masks_of or role
        cuts = choose_cuts(cutter, lines, mixing, keys("mix", role))
        layout: Layout = lay_out(cutter.own, cutter.table, cuts, lines, self.windows.length)
        if words is None:
            waits = None
            if self.masking.rarity:
                waits = np.concatenate([self._waits[name] for name in (view.vocabulary, view.mixed_with) if name])
            slots = choose_pieces(cutter, layout, self.masking, keys("pieces", owner), waits)
            actions = keys("action", owner)
        else:
            slots, word = slots_of_words(layout, lines, words, self.masking.predictions)
            actions = keys("action")
        view = apply(cutter, layout, slots, self.masking, actions, keys("random", owner))
        if words is None:
            return view
        return view | {"words": places_of_words(layout, lines), "same": slots.used & self.same[lines.words[word]]}
