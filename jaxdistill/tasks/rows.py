"""Examples as rows of pieces, and batches of rows of like length."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxdistill.data.draws import draw, key
from jaxdistill.data.views import View
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.tasks.spans import Windows, windows
from jaxdistill.tasks.task import Examples, Questions

LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Lengths of batches, each compiled once: a batch has the least that its longest row fits."""

_SORTED = 32
"""Batches whose rows are sorted by length together: enough for little padding, too few to order an epoch."""

_AT_ONCE = 4096  # texts handed to the Rust tokenizer


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of pieces of one vocabulary.

    Attributes:
      ids: the pieces of each, int32 [pieces].
      types: their token types, int32 [pieces].
      targets: what is to be found, by name, arrays [rows] or [rows, 2]: `classes` (int32), `score` (float32) or `spans`
        (int32); nothing where it is not known.
      windows: of questions, what answers are made of.
    """

    ids: Sequence[np.ndarray]
    types: Sequence[np.ndarray]
    targets: Mapping[str, np.ndarray]
    windows: Windows | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Pieces in each row, int64 [rows]."""
        return np.fromiter(map(len, self.ids), np.int64, len(self.ids))

    def lay_out(self, rows: np.ndarray, length: int, pad: int) -> dict[str, np.ndarray]:
        """Some rows as arrays; a number of -1 is an empty row, without a target.

        Returns:
          `ids`, `types` (int32), `mask` (bool), all [rows, length], and the targets: -1 or 0.0 of empty rows.
        """
        shape = (len(rows), length)
        real = rows >= 0
        ids, types = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
        mask = np.arange(length) < np.where(real, self.lengths[rows], 0)[:, None]
        if real.any():
            ids[mask] = np.concatenate([self.ids[row] for row in rows[real]])
            types[mask] = np.concatenate([self.types[row] for row in rows[real]])
        made = {"ids": ids, "mask": mask, "types": types}
        for name, values in self.targets.items():
            chosen = values[rows].copy()
            chosen[~real] = 0 if name == "score" else -1
            made[name] = chosen
        return made


def cut_rows(
    vocabulary: Vocabulary, examples: Examples | Questions, length: int, stride: int = 0, max_question: int = 64
) -> Rows:
    """Cuts texts as `transformers`' tokenizer does, the longer one of a pair first; questions into windows.

    Args:
      vocabulary: of the model that reads them.
      examples: what is cut.
      length: pieces in a row at most.
      stride: pieces of the context from one window to the next; 0 takes 128, or half of the length if that is less.
      max_question: pieces of a question at most.
    """
    if isinstance(examples, Questions):
        found = windows(vocabulary, examples, length, stride or min(128, max(length // 2, 1)), max_question)
        return Rows(found.ids, found.types, {} if found.targets is None else {"spans": found.targets}, found)
    tokenizer = vocabulary.tokenizer()
    tokenizer.enable_truncation(length, strategy="longest_first")
    given = examples.first if examples.second is None else list(zip(examples.first, examples.second, strict=True))
    ids, types = [], []
    for start in range(0, len(given), _AT_ONCE):
        for found in tokenizer.encode_batch(given[start : start + _AT_ONCE]):
            ids.append(np.array(found.ids, np.int32))
            types.append(np.array(found.type_ids, np.int32))
    name = {"classes": "classes", "score": "score"}[examples.task.kind]
    return Rows(ids, types, {} if examples.labels is None else {name: examples.labels})


def padded_length(longest: int, most: int) -> int:
    """The length of a batch whose longest row has so many pieces, where `most` are allowed."""
    return next((length for length in LENGTHS if longest <= length <= most), most)


@dataclass(frozen=True, eq=False)
class TaskBatches:
    """The batches of a run on a task: `batches(step, process, processes)`.

    Every example is read once an epoch, in an order that changes with the epoch; rows of a batch are of like length.
    The last batch of an epoch may have empty rows.

    Attributes:
      rows: of every vocabulary in play.
      vocabularies: those.
      views: what each model reads, by role.
      batch: rows of the global batch.
      length: pieces in a row at most.
      seed: of the order.
      computed: by role, what is known beforehand of rows given by number, at a length; it becomes `computed` of that
        role's view.
    """

    rows: Mapping[str, Rows]
    vocabularies: Mapping[str, Vocabulary]
    views: Mapping[str, View]
    batch: int
    length: int
    seed: int = 0
    computed: Mapping[str, Callable[[np.ndarray, int], dict[str, np.ndarray]]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Examples, or windows."""
        return len(next(iter(self.rows.values())))

    @property
    def epoch(self) -> int:
        """Batches in an epoch."""
        return -(-len(self) // self.batch)

    @property
    def longest(self) -> int:
        """A step of the first epoch that reads the longest row."""
        return int(np.argmax(np.any(self._order(0) == np.argmax(self._lengths), axis=1)))

    def __call__(self, step: int, process: int = 0, processes: int = 1) -> dict[str, dict[str, np.ndarray]]:
        """One process's share of a step's batch, for each view `Rows.lay_out`.

        Raises:
          UserError: the rows of a batch do not divide over the processes.
        """
        if self.batch % processes:
            raise UserError(f"a batch of {self.batch} rows does not divide over {processes} processes")
        rows = self._order(step // self.epoch)[step % self.epoch]
        length = padded_length(int(self._lengths[rows[rows >= 0]].max()), self.length)
        share = rows[process * self.batch // processes : (process + 1) * self.batch // processes]
        made = {
            name: self.rows[view.vocabulary].lay_out(share, length, self.vocabularies[view.vocabulary].pad)
            for name, view in self.views.items()
        }
        return made | {role: made[role] | {"computed": read(share, length)} for role, read in self.computed.items()}

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.max([rows.lengths for rows in self.rows.values()], axis=0)

    @functools.cached_property
    def _orders(self) -> dict[int, np.ndarray]:
        return {}

    def _order(self, epoch: int) -> np.ndarray:
        """The rows of every batch of an epoch, int64 [batches, batch]; -1 where there is none."""
        if epoch not in self._orders:
            shuffled = np.argsort(draw(key(self.seed, "order", epoch), np.arange(len(self))), kind="stable")
            group = np.arange(len(self)) // (_SORTED * self.batch)
            order = shuffled[np.lexsort((self._lengths[shuffled], group))]
            whole = np.concatenate([order, np.full(self.epoch * self.batch - len(self), -1)])
            batches = np.argsort(draw(key(self.seed, "batches", epoch), np.arange(self.epoch)), kind="stable")
            self._orders.clear()
            self._orders[epoch] = whole.reshape(self.epoch, self.batch)[batches]
        return self._orders[epoch]
