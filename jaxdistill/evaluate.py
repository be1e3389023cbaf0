"""Masked-word accuracy and perplexity on held-out text, by piece and by word.

By *piece*: ordinary BERT masking under the model's own cut, the papers' figure, comparable between models of one
vocabulary. By *word*: the same words, masked whole, for every model; a word is right when all its pieces are. A word
that a vocabulary cannot write counts as wrong; nats per word are over the words that all of the held-out windows'
vocabularies can write.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from jaxdistill import bert, distributed, losses
from jaxdistill.bert import BertConfig
from jaxdistill.data.heldout import HeldOut
from jaxdistill.data.loader import own_rows, to_global
from jaxdistill.data.vocab import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A masked-language model to measure: its shape, parameters and vocabulary."""

    config: BertConfig
    params: Mapping[str, Any]
    vocabulary: Vocabulary


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one model scored.

    Attributes:
      piece_accuracy: share of masked pieces that were filled in right.
      piece_perplexity: exp of the mean nats per masked piece.
      pieces: masked pieces.
      word_accuracy: share of the words masked whole of which every piece was right.
      word_nats: mean nats per word, over the words that every vocabulary of the held-out windows can write.
      words: words masked whole.
      unwritable: share of them that this model's vocabulary cannot write.
    """

    piece_accuracy: float
    piece_perplexity: float
    pieces: int
    word_accuracy: float
    word_nats: float
    words: int
    unwritable: float


@functools.partial(jax.jit, static_argnums=0)
def _score(config: BertConfig, params, view):
    """Nats and hits at the targets of a view, both float32 [batch, predictions]."""
    scores = bert.predict(config, params, view["ids"], view["mask"], view["positions"])
    return losses.cross_entropy(scores, view["targets"])


def score(
    models: Mapping[str, Model],
    held_out: HeldOut,
    *,
    batch: int = 32,
    sharding: jax.sharding.NamedSharding | None = None,
    progress: bool = True,
) -> dict[str, Scores]:
    """Measures models on the same windows and the same hidden words.

    Args:
      models: by name; the vocabulary of each must be one of those of `held_out`.
      held_out: the windows.
      batch: rows at a time.
      sharding: where the rows lie; the default device when None.
      progress: show a bar.
    """
    inputs = ("ids", "mask", "positions", "targets")
    reads = {vocabulary.digest: name for name, vocabulary in held_out.vocabularies.items()}
    kinds = ("nats", "right", "pieces", "words_right", "word_nats", "unwritable")
    sums = {name: dict.fromkeys(kinds, 0.0) for name in models}
    words = common_words = 0

    def run(model, view):
        view = {key: view[key] for key in inputs}
        given = to_global(own_rows(view), sharding) if sharding else view
        nats, right = map(distributed.to_host, _score(model.config, model.params, given))
        return nats.astype(np.float64), right.astype(np.float64)

    batches = range(held_out.count(batch))
    for index in tqdm.tqdm(batches, "scoring", unit="batch", disable=None if progress else True, leave=False):
        whole = {name: held_out.whole(name, index, batch) for name in held_out.vocabularies}
        common = np.logical_and.reduce([view["written"] for view in whole.values()])
        words += int(next(iter(whole.values()))["chosen"].sum())
        common_words += int(common.sum())
        for name, model in models.items():
            vocabulary = reads[model.vocabulary.digest]
            total, view = sums[name], held_out.pieces(vocabulary, index, batch)
            nats, right = run(model, view)
            total["nats"] += nats.sum()
            total["right"] += right.sum()
            total["pieces"] += (view["targets"] >= 0).sum()
            view = whole[vocabulary]
            nats, right = run(model, view)
            slots = np.nonzero(view["words"] >= 0)
            place = slots[0], view["words"][slots]
            wrong, word_nats = (np.zeros(view["written"].shape) for _ in range(2))
            np.add.at(wrong, place, 1 - right[slots])
            np.add.at(word_nats, place, nats[slots])
            total["words_right"] += (view["written"] & (wrong == 0)).sum()
            total["word_nats"] += word_nats[common].sum()
            total["unwritable"] += (view["chosen"] & ~view["written"]).sum()
    return {
        name: Scores(
            piece_accuracy=float(total["right"] / max(total["pieces"], 1)),
            piece_perplexity=math.exp(min(total["nats"] / max(total["pieces"], 1), 700)),
            pieces=int(total["pieces"]),
            word_accuracy=float(total["words_right"] / max(words, 1)),
            word_nats=float(total["word_nats"] / max(common_words, 1)),
            words=words,
            unwritable=float(total["unwritable"] / max(words, 1)),
        )
        for name, total in sums.items()
    }
