"""Figures as tables and files for people."""

import dataclasses
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill import files, picture
from jaxdistill.bench import Bench, Spread
from jaxdistill.compare import Comparison
from jaxdistill.data.lexicon import Lexicon
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.data.wordpiece import describe
from jaxdistill.evaluate import Scores
from jaxdistill.places import local
from jaxdistill.speed import BATCH
from jaxdistill.sweep import Outcome
from jaxdistill.table import table
from jaxdistill.tasks.scores import summary

_SCORES = ("pieces right", "perplexity", "words right", "nats/word", "can't write")


def _score_cells(score: Scores) -> list[str]:
    return [
        f"{score.piece_accuracy:.2%}",
        f"{score.piece_perplexity:.2f}",
        f"{score.word_accuracy:.2%}",
        f"{score.word_nats:.3f}",
        f"{score.unwritable:.2%}",
    ]


def score_table(scores: Mapping[str, Scores]) -> str:
    """Models and their held-out scores, one a line."""
    rows = [[name, *_score_cells(score)] for name, score in scores.items()]
    first = next(iter(scores.values()))
    note = (
        f"({first.pieces:,} masked pieces of the first model; {first.words:,} words masked whole. The columns on words "
        "compare all models, those on pieces only models of one vocabulary.)"
    )
    return f"{table(['model', *_SCORES], rows)}\n{note}"


def run_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The scores that a run ended with, of held-out text or of a task: its models, one a line."""
    first = next(iter(scores.values()))
    if "piece_accuracy" in first:
        return score_table({role: Scores(**own) for role, own in scores.items()})
    rows = [[role, *(f"{own[name]:.4f}" for name in first)] for role, own in scores.items()]
    return table(["model", *first], rows)


def sweep_table(outcomes: Sequence[Outcome]) -> str:
    """Settings and their scores on the dev split, one a line, and which is best by the first measure."""
    best = max(outcomes, key=lambda outcome: outcome.headline)
    if not best.scores:
        return "every run diverged: use a smaller learning rate"
    measures, count = list(best.scores), len(best.folders)
    rows = []
    for outcome in outcomes:
        cells = [_over_seeds(summary(outcome.scores[measure])) if outcome.scores else "-" for measure in measures]
        note = f"{outcome.diverged} diverged" if outcome.diverged else ""
        rows.append([*outcome.setting.values(), *cells, note])
    seeds = "one seed" if count == 1 else f"{count} seeds: mean ± its 95 % interval, and median"
    where = ", ".join(best.folders)
    shown = table([*outcomes[0].setting, *measures, ""], rows)
    return f"{shown}\n(dev split, {seeds})\nbest by {measures[0]}: {where}"


def _over_seeds(found: Mapping[str, float | None]) -> str:
    if found["interval"] is None:
        return f"{found['mean']:.4f}"
    return f"{found['mean']:.4f} ± {found['interval']:.4f} ({found['median']:.4f})"


_COMPARED = {
    "model": "step",
    **dict.fromkeys(_SCORES, "") | {_SCORES[0]: "scores"},
    "parameters": "",
    "MB": "",
    "ms/row": "latency",
    "rows/s": "throughput",
    "training s": "seconds",
    "positions": "",
    "FLOP": "flops",
}
"""Columns of a comparison, and which of a model's notes each of them refers to."""
_FILES = ("compare.json", "compare.md", "compare.png", "compare.svg")


def comparison_table(comparison: Comparison, markdown: bool = False) -> str:
    """Models and their figures, one a line, with footnotes and what the columns mean."""
    header, rows = list(_COMPARED), []
    footnotes = list(dict.fromkeys(note for model in comparison.models.values() for note in model.notes.values()))
    for name, model in comparison.models.items():
        cost = model.cost
        cells = [name, *(_score_cells(model.scores) if model.scores else ["-"] * len(_SCORES))]
        cells += [f"{model.parameters:,}", _number(4e-6 * model.parameters)]
        cells += [_number(1e3 * model.latency), _number(model.throughput)]
        cells += [_number(cost.seconds), f"{cost.positions:,}", _power(cost.flops)] if cost else ["-"] * 3
        notes = [model.notes.get(about) for about in _COMPARED.values()]
        marks = [f" [{1 + footnotes.index(note)}]" if note else "" for note in notes]
        rows.append([cell + mark for cell, mark in zip(cells, marks, strict=True)])
    below = [*(f"[{number}] {note}." for number, note in enumerate(footnotes, 1)), *_legend(comparison)]
    if not markdown:
        made = table(header, rows)
        width = max(map(len, made.splitlines()))
        return "\n".join([made, *(textwrap.fill(line, width, subsequent_indent="  ") for line in below)])
    ruler = ["---", *["---:"] * (len(header) - 1)]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in (header, ruler, *rows)]
    return "\n".join([*(f"| {line} |" for line in lines), "", *(f"- {line}" for line in below)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}".replace("e+0", "e").replace("e+", "e")


def _legend(comparison: Comparison) -> list[str]:
    scores = [model.scores for model in comparison.models.values() if model.scores]
    accuracy = f"Accuracy: on {comparison.scored}."
    if scores:
        groups: dict[str, list[str]] = {}
        for name, model in comparison.models.items():
            groups.setdefault(model.vocabulary, []).append(name)
        alike = "; ".join(", ".join(names) for names in groups.values() if len(names) > 1)
        accuracy += (
            f" {scores[0].pieces:,} masked pieces of the first model, {scores[0].words:,} words masked whole. The "
            f"columns on words compare all models, those on pieces only models of one vocabulary: {alike or 'none'}."
        )
    devices = ", ".join(dict.fromkeys(model.cost.device for model in comparison.models.values() if model.cost))
    return [
        accuracy,
        f"Size, speed: MB as float32; on {comparison.device}, rows of {comparison.length} pieces, one of them to fill "
        f"in; rows/s {BATCH} at a time; medians of rounds in which the models take turns.",
        f"Training: the steps alone, on {devices or 'no machine that is known'}, without compiling, scoring and "
        "saving, and without what a teacher, a start or a cache had taken before; positions with padding; FLOP of "
        "matrix products.",
    ]


def check_comparison_files(folder: str | os.PathLike) -> None:
    """Raises UserError when `write_comparison` could not write there, or could not draw."""
    picture.check_matplotlib()
    for name in _FILES:
        files.check_writable(local(folder) / name)


def write_comparison(comparison: Comparison, folder: str | os.PathLike) -> tuple[str, ...]:
    """Writes all numbers as JSON, the table as Markdown, and the picture where there are scores.

    Returns:
      The names of the files.
    """
    paths, models = [local(folder) / name for name in _FILES], comparison.models
    files.write_json(paths[0], dataclasses.asdict(comparison))
    files.write_text(paths[1], comparison_table(comparison, markdown=True) + "\n")
    accuracy = {name: model.scores.word_accuracy for name, model in models.items() if model.scores}
    if not accuracy:
        return _FILES[:2]
    costs = {
        "parameters": {name: models[name].parameters for name in accuracy},
        f"ms for a row of {comparison.length} pieces": {name: 1e3 * models[name].latency for name in accuracy},
        "training, FLOP": {name: cost.flops for name in accuracy if (cost := models[name].cost) and cost.flops},
    }
    costs = {label: found for label, found in costs.items() if found}
    unfinished = [name for name in accuracy if "step" in models[name].notes]
    figure = picture.draw(accuracy, "held-out words right", costs, unfinished)
    for path in paths[2:]:
        picture.save(figure, path)
    return _FILES


def bench_table(bench: Bench) -> str:
    """Models with their size and speed, one a line, and what the columns mean."""
    scores = ["score"] if bench.measure else []
    header = ["model", "head", *scores, "parameters", "smaller", "MB", "ms/row", "faster", "rows/s", "faster"]
    rows = []
    for name, model in bench.models.items():
        score = ["-" if model.score is None else f"{model.score:.4f}"] if scores else []
        size = [f"{model.parameters:,}", f"{_number(model.smaller)}x", _number(model.megabytes)]
        speed = [_between(model.latency), f"{_number(model.faster)}x"]
        speed += [_between(model.throughput), f"{_number(model.faster_batches)}x"]
        rows.append([name, model.head, *score, *size, *speed])
    halves = sorted({model.dtype for model in bench.models.values()} - {"float32"})
    notes = [
        f"({bench.rounds} rounds on {bench.device}, the models taking turns: median (lower to upper quartile). Rows of "
        f"{bench.length} pieces, one at a time and {bench.rows} at a time. Smaller and faster: than {bench.reference}. "
        "MB of the weights' file, of a run as float32.)"
    ]
    notes += [f"(score: {bench.measure}; '-' where none is known that compares)"] if scores else []
    for dtype in halves:
        names = ", ".join(name for name, model in bench.models.items() if model.dtype == dtype)
        notes.append(f"({names}: computes in {dtype})")
    made = table(header, rows)
    width = max(map(len, made.splitlines()))
    return "\n".join([made, *(textwrap.fill(note, width) for note in notes)])


def _between(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} to {_number(spread.high)})"


def bench_picture(bench: Bench) -> Any:
    """A figure of the scores against size and latency, of the models that have one."""
    known = {name: model for name, model in bench.models.items() if model.score is not None}
    costs = {
        "parameters": {name: model.parameters for name, model in known.items()},
        f"ms for a row of {bench.length} pieces": {name: model.latency.median for name, model in known.items()},
    }
    return picture.draw({name: model.score for name, model in known.items()}, bench.measure, costs)


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
    return table(header, rows)
