"""What a run reads: a corpus with its windows, or a task's rows, under the vocabularies in play."""

import dataclasses
import os
from collections.abc import Mapping

from jaxdistill.data.batches import Batches
from jaxdistill.data.corpus import Corpus, open_corpus
from jaxdistill.data.heldout import HeldOut
from jaxdistill.data.masking import Masking
from jaxdistill.data.vocab import Table, Vocabulary, cut, digests, read_vocabulary
from jaxdistill.data.windows import Windows, build_windows, fit_tables
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data, TaskData
from jaxdistill.task_inputs import TaskInputs, read_task_inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """A corpus made ready for some vocabularies."""

    corpus: Corpus
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, Table]
    windows: Windows

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def digest(self) -> str:
        """The corpus's hash."""
        return self.corpus.digest

    def hashes(self) -> dict[str, str]:
        """Of what is read, by a name that the user knows."""
        return {"corpus": self.corpus.digest} | digests(self.vocabularies)

    def batches(self, data: Data, seed: int) -> Batches:
        """The batches of an experiment.

        Raises:
          UserError: the corpus has fewer windows than one batch has rows.
        """
        if len(self) < data.batch:
            raise UserError(
                f"{data.corpus} has {len(self):,} windows of {data.length} positions, fewer than one batch of "
                f"{data.batch:,} rows: take more text or a smaller batch"
            )
        return Batches(
            self.corpus.words,
            self.windows,
            self.vocabularies,
            self.tables,
            data.views,
            data.batch,
            masking=data.masking,
            seed=seed,
            counts=self.corpus.lexicon.counts,
        )

    def describe(self, data: Data) -> list[str]:
        """Lines that say what is read."""
        lines = []
        for role, view in data.views.items():
            mixed = f", mixed with {view.mixed_with} at {view.probability:g}" if view.mixed_with else ""
            lines.append(
                f"  {role} reads {self.windows.tokens(view.vocabulary):,} tokens an epoch in {len(self):,} windows, "
                f"{self.windows.padding(view.vocabulary):.1%} padding under its own cut{mixed}"
            )
        return lines

    def held_out(self, masking: Masking, seed: int = 0, rows: int = 0) -> HeldOut:
        """Batches to measure on: all windows, or so many of them, spread evenly over the corpus."""
        return HeldOut(self.corpus.words, self.windows, self.vocabularies, self.tables, masking, seed, most=rows)


def read_inputs(corpus: str | os.PathLike, vocabularies: Mapping[str, Vocabulary], length: int) -> Inputs:
    """Opens a corpus, cuts its lexicon with every vocabulary and builds the windows.

    Raises:
      UserError: the corpus is missing or damaged, a vocabulary cannot cut it, or it has no window of this length.
    """
    opened = open_corpus(corpus)
    tables = {name: cut(vocabulary, opened.lexicon.words) for name, vocabulary in vocabularies.items()}
    tables = fit_tables(vocabularies, tables, length)
    return Inputs(opened, vocabularies, tables, build_windows(opened.words, opened.documents, tables, length))


def open_inputs(data: Data | TaskData) -> Inputs | TaskInputs:
    """What an experiment trains on.

    Raises:
      UserError: see `read_inputs` and `read_task_inputs`.
    """
    if isinstance(data, TaskData):
        return read_task_inputs(data)
    return read_inputs(data.corpus, read_vocabularies(data), data.length)


def open_held_out(data: Data | TaskData) -> Inputs | TaskInputs:
    """What an experiment is scored on.

    Raises:
      UserError: see `read_inputs` and `read_task_inputs`.
    """
    if isinstance(data, TaskData):
        return read_task_inputs(data, data.held_out)
    return read_inputs(data.held_out, read_vocabularies(data), data.length)


def check_held_out(data: Data | TaskData) -> None:
    """Raises UserError now, not after the training, when what an experiment is scored on can't be read."""
    if isinstance(data, TaskData) and data.held_out:
        read_task_inputs(data, data.held_out)
    elif data.held_out:
        open_corpus(data.held_out)


def read_vocabularies(data: Data) -> dict[str, Vocabulary]:
    """The vocabularies that an experiment names."""
    return {name: read_vocabulary(path) for name, path in data.vocabularies.items()}
