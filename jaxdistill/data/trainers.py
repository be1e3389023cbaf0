"""The WordPiece trainer of the `tokenizers` library, to measure our learner beside it.

It merges the most frequent pair of pieces, as the trainer of BERT's vocabulary is thought to have done. Its result
changes from run to run.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxdistill.data.lexicon import Lexicon
from jaxdistill.data.vocab import PREFIX, SPECIALS, Vocabulary
from jaxdistill.data.wordpiece import normalised


def train_alike(lexicon: Lexicon, ours: Vocabulary) -> Vocabulary:
    """What the trainer makes of the same words, with the size, the settings and as many characters as ours."""
    characters = len({piece[-1] for piece in singles(ours)})
    return dataclasses.replace(ours, pieces=train_wordpiece(normalised(lexicon, ours), ours.size, characters))


def train_wordpiece(counts: Mapping[str, int], size: int, characters: int) -> tuple[str, ...]:
    """The trainer's pieces for words with counts, at most so many single characters among them."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        limit_alphabet=characters,
        special_tokens=list(SPECIALS),
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(repeated(counts), trainer)
    ids = tokenizer.get_vocab()
    return tuple(sorted(ids, key=ids.get))


def repeated(counts: Mapping[str, int], prefix: str = "") -> Iterator[str]:
    """Text in which every word stands as often as it is counted: the trainers take no counts."""
    for word, count in counts.items():
        for start in range(0, count, 10_000):
            yield " ".join([prefix + word] * min(10_000, count - start))


def singles(vocabulary: Vocabulary) -> list[str]:
    """The single characters, those that continue a word included."""
    return [piece for piece in vocabulary.pieces if len(piece.removeprefix(PREFIX)) == 1]
