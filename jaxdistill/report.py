"""Scores as a table for people."""

from collections.abc import Mapping

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
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in ([*zip(row, widths, strict=True)] for row in (header, *rows))
    ]
    first = next(iter(scores.values()))
    return "\n".join(
        [*lines, f"({first.pieces:,} masked pieces of the first model; {first.words:,} words masked whole)"]
    )
