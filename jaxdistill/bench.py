"""Size and speed of models side by side, measured in turns: students beside their teacher."""

import dataclasses
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill import bert, hf, hf_files, hf_names, model_card, models
from jaxdistill.bert import BertConfig
from jaxdistill.errors import UserError
from jaxdistill.export import is_run, read_run
from jaxdistill.speed import BATCH, reading, turns

LENGTH = 128
"""Pieces in a row, where all models have so many positions."""
ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of what was measured in all rounds, and its quartiles."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model of a bench.

    Attributes:
      source: what was given: a workdir, a folder, a hub id.
      head: what it says of a row: `masked words`, `2 classes`, `a score`, `spans`, or `none`.
      dtype: type of the computation.
      score: what the run ended with, or its export's model card tells of a task; None when nothing is known that the
        first score compares with.
      parameters: how many numbers it has.
      megabytes: of its `model.safetensors`; of a run, as float32.
      latency: milliseconds for one row.
      throughput: rows a second in batches.
      smaller: the reference's parameters over its own.
      faster: the reference's latency over its own.
      faster_batches: its throughput over the reference's.
    """

    source: str
    head: str
    dtype: str
    score: float | None
    parameters: int
    megabytes: float
    latency: Spread
    throughput: Spread
    smaller: float
    faster: float
    faster_batches: float


@dataclasses.dataclass(frozen=True)
class Bench:
    """Models side by side.

    Attributes:
      models: by the shortest name that tells them apart.
      reference: the model with the most parameters, the last of those that are given.
      measure: what the scores are of, "" when none is known.
      length: pieces in a row.
      rows: of a batch.
      rounds: in which the models took turns.
      device: what the speed was measured on.
    """

    models: Mapping[str, Measured]
    reference: str
    measure: str
    length: int
    rows: int
    rounds: int
    device: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    place: str
    config: BertConfig
    params: Mapping[str, Any]
    megabytes: float
    ended: tuple[Hashable, str, float] | None = None
    """What tells whether others saw the same, the measure, and the score."""


def bench(
    sources: Sequence[str], *, length: int = 0, rows: int = BATCH, rounds: int = ROUNDS, scored: bool = False
) -> Bench:
    """Measures any models that can be read: of a run its student, or the only model, at its newest checkpoint.

    Args:
      sources: workdirs of runs, Hugging Face folders, hub ids.
      length: pieces in a row; 0 takes `LENGTH`, or the fewest positions that a model has if those are fewer.
      rows: of a batch.
      rounds: in which the models take turns.
      scored: refuse models of which no score is known.

    Raises:
      UserError: a source is given twice or can't be read, a row is longer than a model's positions, or see `scored`.
    """
    read = {name: _read(source) for name, source in models.short_names(sources).items()}
    measure, scores = _scores(read)
    if scored and not scores:
        raise UserError("no model has a score to draw: name runs that finished and were scored, all on the same")
    for name, source in read.items():
        if length > source.config.positions:
            raise UserError(f"{name} has {source.config.positions} positions: choose a --length of at most that")
    length = length or min(LENGTH, *(source.config.positions for source in read.values()))
    seconds = [
        turns({name: reading(found.config, found.params, length, count) for name, found in read.items()}, rounds)
        for count in (1, rows)
    ]
    latency = {name: _spread(1e3 * np.array(times)) for name, times in seconds[0].items()}
    throughput = {name: _spread(rows / np.array(times)) for name, times in seconds[1].items()}
    parameters = {name: bert.parameter_count(source.config) for name, source in read.items()}
    reference = max(reversed(parameters), key=parameters.get)
    made = {
        name: Measured(
            source=source.place,
            head=_head(source.config),
            dtype=source.config.dtype,
            score=scores.get(name),
            parameters=parameters[name],
            megabytes=source.megabytes,
            latency=latency[name],
            throughput=throughput[name],
            smaller=parameters[reference] / parameters[name],
            faster=latency[reference].median / latency[name].median,
            faster_batches=throughput[name].median / throughput[reference].median,
        )
        for name, source in read.items()
    }
    return Bench(made, reference, measure, length, rows, rounds, jax.devices()[0].device_kind)


def _read(source: str) -> _Source:
    if not is_run(source):
        read = _read_folder(source)
        wanted = (hf_files.WEIGHTS, hf_files.INDEX, hf_files.SHARDS, model_card.NAME)
        folder, _ = hf_files.locate(source, read.revision, wanted)
        paths = {stored.path for stored in hf_files.tensors(folder, source)}
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        told = model_card.read_scores(folder)
        ended = told and _ended(*told)
        return _Source(source, read.config, read.params, megabytes, ended)
    run = read_run(source)
    found, data = models.ended(source, run), run.manifest["config"]["data"]
    ended = found and _ended(found[0], pathlib.Path(data.get("task", "")).name, found[1])
    return _Source(source, run.config, run.params, 4e-6 * bert.parameter_count(run.config), ended)


def _ended(key: Hashable, task: str, scores: Mapping[str, float]) -> tuple[Hashable, str, float]:
    """A model's headline score, after what it is of."""
    name = next(iter(scores)) if task else "word_accuracy"
    return key, f"{task}, dev: {name}" if task else "held-out words right", scores[name]


def _read_folder(source: str) -> hf.Pretrained:
    """A model with the head of its task, else its masked-LM head, else none."""
    folder, revision = hf_files.locate(source, None, ["config.json"])
    if hf_names.is_fine_tuned(folder / "config.json"):
        heads = hf_names.parse_task_heads(folder / "config.json")
        return hf.read_hf(source, revision=revision, fresh_heads=False, **heads)
    read = hf.read_hf(source, revision=revision)
    if not read.fresh:
        return read
    params = {name: part for name, part in read.params.items() if name not in read.fresh}
    return dataclasses.replace(read, config=dataclasses.replace(read.config, mlm=False), params=params)


def _scores(read: Mapping[str, _Source]) -> tuple[str, dict[str, float]]:
    """What the first score is of, and all that compare with it, by name."""
    ended = {name: source.ended for name, source in read.items() if source.ended}
    key, measure = next(((key, measure) for key, measure, _ in ended.values()), (None, ""))
    return measure, {name: score for name, (own, _, score) in ended.items() if own == key}


def _head(config: BertConfig) -> str:
    if config.mlm:
        return "masked words"
    if config.spans:
        return "spans"
    count = len(config.classifier)
    return f"{count} classes" if count > 1 else "a score" if count else "none"


def _spread(values: np.ndarray) -> Spread:
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Spread(median, low, high)
