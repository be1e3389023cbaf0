"""What a run reads: a corpus, the vocabularies in play, their tables and the windows that fit under all of them."""

import dataclasses
import os
from collections.abc import Mapping

from jaxdistill.data.batches import Batches
from jaxdistill.data.corpus import Corpus, open_corpus
from jaxdistill.data.heldout import HeldOut
from jaxdistill.data.masking import Masking
from jaxdistill.data.vocab import Table, Vocabulary, cut, read_vocabulary
from jaxdistill.data.windows import Windows, build_windows, fit_tables
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """A corpus made ready for some vocabularies."""

    corpus: Corpus
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, Table]
    windows: Windows

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


def read_vocabularies(data: Data) -> dict[str, Vocabulary]:
    """The vocabularies that an experiment names."""
    return {name: read_vocabulary(path) for name, path in data.vocabularies.items()}


def make_batches(data: Data, inputs: Inputs, seed: int) -> Batches:
    """The batches of an experiment.

    Raises:
      UserError: the corpus has fewer windows than one batch has rows.
    """
    if len(inputs.windows) < data.batch:
        raise UserError(
            f"{data.corpus} has {len(inputs.windows):,} windows of {data.length} positions, fewer than one batch of "
            f"{data.batch:,} rows: take more text or a smaller batch"
        )
    return Batches(
        inputs.corpus.words,
        inputs.windows,
        inputs.vocabularies,
        inputs.tables,
        data.views,
        data.batch,
        masking=data.masking,
        seed=seed,
        counts=inputs.corpus.lexicon.counts,
    )
