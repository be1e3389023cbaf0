"""Figures as tables for people."""

from collections.abc import Iterable, Mapping, Sequence

from jaxdistill.data.lexicon import Lexicon
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.data.wordpiece import describe
from jaxdistill.evaluate import Scores


def score_table(scores: Mapping[str, Scores]) -> str:
    """Models and their held-out scores, one a line."""
    header = ("model", "pieces right", "perplexity", "words right", "nats/word", "can't write")
    rows = [
        (
            name,
            f"{score.piece_accuracy:.2%}",
            f"{score.piece_perplexity:.2f}",
            f"{score.word_accuracy:.2%}",
            f"{score.word_nats:.3f}",
            f"{score.unwritable:.2%}",
        )
        for name, score in scores.items()
    ]
    first = next(iter(scores.values()))
    note = (
        f"({first.pieces:,} masked pieces of the first model; {first.words:,} words masked whole. The columns on words "
        "compare all models, those on pieces only models of one vocabulary.)"
    )
    return f"{_table(header, rows)}\n{note}"


def vocabulary_table(
    vocabularies: Mapping[str, Vocabulary], lexicons: Mapping[str, Lexicon], teacher: Vocabulary | None = None
) -> str:
    """Vocabularies, one a line, and what each makes of some texts: pieces per word, and the share of `[UNK]` words.

    Args:
      vocabularies: by name.
      lexicons: the words of each text with their counts, by name.
      teacher: adds the share of the pieces that this vocabulary has too.
    """
    header = ["vocabulary", "pieces"]
    for text in lexicons:
        header += [f"pieces/word, {text}", "[UNK]"]
    header += ["in the teacher's"] if teacher else []
    rows = []
    for name, vocabulary in vocabularies.items():
        told = [describe(vocabulary, lexicon, teacher) for lexicon in lexicons.values()]
        row = [name, f"{vocabulary.size:,}"]
        for facts in told:
            row += [f"{facts['pieces_per_word']:.4f}", f"{facts['unk_rate']:.3%}"]
        rows.append([*row, f"{told[0]['shared']:.1%}"] if teacher else row)
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns two spaces apart, the first flush left and the others flush right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )
