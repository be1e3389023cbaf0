"""Runs and model folders side by side: accuracy, size, speed and what their training took."""

import dataclasses
import os
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax

from jaxdistill import bert, models, train
from jaxdistill.data.corpus import open_corpus
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model, Scores, score
from jaxdistill.export import Trained, is_run, read_model, read_run
from jaxdistill.inputs import read_inputs
from jaxdistill.measure import Setting, setting_of
from jaxdistill.metrics import JSONL, read_lines
from jaxdistill.places import place
from jaxdistill.speed import BATCH, reading, turns

SECONDS = 1.0
"""For each model and each of the two speeds, besides the least rounds."""
ROUNDS = (3, 100)
"""At least and at most so many."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the training of a run took up to some step.

    Attributes:
      step: updates done.
      steps: updates the run was to do.
      positions: that were read, padding included.
      seconds: of the steps alone, without compiling, scoring and saving; None when they were not timed.
      flops: of the steps' matrix products; None when the run's manifest has none.
      device: what it trained on.
    """

    step: int
    steps: int
    positions: int
    seconds: float | None
    flops: int | None
    device: str


@dataclasses.dataclass(frozen=True)
class Compared:
    """One model of a comparison.

    Attributes:
      source: what was given: a workdir, a folder, a hub id.
      role: which model of a run it is; None where there is no run.
      vocabulary: the hash of its vocabulary.
      scores: held-out scores, None when there are none.
      parameters: how many numbers it has.
      latency: seconds for one row.
      throughput: rows a second, `BATCH` at a time.
      cost: what its training took, None when that is not known.
      notes: why a figure is missing, or what to know of it: by `step`, `scores`, `latency`,
        `throughput`, `seconds` and `flops`.
    """

    source: str
    role: str | None
    vocabulary: str
    scores: Scores | None
    parameters: int
    latency: float
    throughput: float
    cost: Cost | None
    notes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
      models: by the shortest name that tells them apart.
      scored: what the scores are of, or why there are none.
      length: pieces in a row, for accuracy and speed.
      device: what the speed was measured on.
    """

    models: Mapping[str, Compared]
    scored: str
    length: int
    device: str


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    place: str
    model: Model
    run: Trained | None

    @property
    def asked(self) -> Mapping[str, Any]:
        """The run's config."""
        return self.run.manifest["config"]


def compare(sources: Sequence[str], corpus: str | None = None) -> Comparison:
    """Measures models side by side: of a run its student, or the only model, at its newest checkpoint.

    Scores are those that the runs ended with when all of them saw the same windows; otherwise, or with a corpus, they
    are made now, as the first run was scored, on the one held-out corpus that the runs name.

    Args:
      sources: workdirs of runs, Hugging Face folders, hub ids.
      corpus: held-out text, prepared, to score all of them on now.

    Raises:
      UserError: a source is given twice or is neither a run nor a model, or something can't be read.
    """
    named = models.short_names(sources)
    if corpus is not None:
        open_corpus(corpus)
    read = {name: _read(source) for name, source in named.items()}
    settings = [setting_of(source.asked) for source in read.values() if source.run]
    setting = settings[0] if settings else Setting()
    length = min(setting.length, *(source.model.config.positions for source in read.values()))
    with_head = {name: source for name, source in read.items() if source.model.config.mlm}
    scores, scored = _scores(with_head, corpus, dataclasses.replace(setting, length=length))
    speeds = [_speeds(read, length, rows) for rows in (1, BATCH)]
    made = {}
    for name, source in read.items():
        cost = _cost(source) if source.run else None
        made[name] = Compared(
            source=source.place,
            role=source.run.role if source.run else None,
            vocabulary=source.model.vocabulary.digest,
            scores=scores.get(name),
            parameters=bert.parameter_count(source.model.config),
            latency=speeds[0][name],
            throughput=BATCH / speeds[1][name],
            cost=cost,
            notes=_notes(source, cost, name in scores),
        )
    return Comparison(made, scored, length, jax.devices()[0].device_kind)


def _read(source: str) -> _Source:
    if not is_run(source):
        return _Source(source, read_model(source), None)
    run = read_run(source)
    if "task" in run.manifest["config"]["data"]:
        raise UserError(f"{source} is a run of a task, and held-out text is compared: `jaxdistill bench` measures it")
    return _Source(source, Model(run.config, run.params, run.vocabulary), run)


def _scores(read: Mapping[str, _Source], corpus: str | None, setting: Setting) -> tuple[dict[str, Scores], str]:
    """Scores by name, as far as they compare, and what they are of."""
    runs = [source for source in read.values() if source.run]
    ended = {name: found for name, source in read.items() if source.run and (found := _ended(source))}
    first = next(iter(ended.values()))[0] if ended else None
    alike = {name: scores for name, (windows, scores) in ended.items() if windows == first}
    places = {os.path.realpath(text) for source in runs if (text := source.asked["data"]["held_out"])}
    if corpus is None and len(alike) < len(read) and len(places) == 1 and os.path.isdir(*places):
        (corpus,) = places
    if corpus is None and not alike:
        return {}, "no text: no run was scored, and there is not one held-out text that all name; so no picture either"
    if corpus is None:
        others = "; the others were scored on other text or windows, or not at all" if len(alike) < len(read) else ""
        return alike, f"the text that {', '.join(alike)} ended with scores of (scores.json){others}"
    vocabularies = {}
    for source in runs:
        for name in source.asked["data"]["vocabularies"]:
            vocabulary = read_vocabulary(place(source.place) / train.VOCABULARIES / name)
            vocabularies[vocabulary.digest] = vocabulary
    own = {name: source.model for name, source in read.items()}
    vocabularies |= {model.vocabulary.digest: model.vocabulary for model in own.values()}
    held_out = read_inputs(corpus, vocabularies, setting.length).held_out(setting.masking, rows=setting.rows)
    return score(own, held_out), f"{corpus}, scored now"


def _ended(source: _Source) -> tuple[Hashable, Scores] | None:
    """The scores that a run ended with, after what tells whether others saw the same."""
    found = models.ended(source.place, source.run)
    return found and (found[0], Scores(**found[1]))


def _speeds(read: Mapping[str, _Source], length: int, rows: int) -> dict[str, float]:
    """Median seconds that each model takes for so many rows."""
    calls = {name: reading(source.model.config, source.model.params, length, rows) for name, source in read.items()}
    return {name: statistics.median(times) for name, times in turns(calls, *ROUNDS, SECONDS).items()}


def _cost(source: _Source) -> Cost:
    run, data = source.run, source.asked["data"]
    rows, device = data["batch"] * data["length"], run.manifest["devices"]
    path = place(source.place) / JSONL
    flops = run.manifest.get("flops_per_step")
    return Cost(
        step=run.step,
        steps=source.asked["steps"],
        positions=run.step * rows,
        seconds=training_seconds(read_lines(path) if path.is_file() else [], run.step, rows),
        flops=None if flops is None else flops * run.step,
        device=f"{device['count']} x {device['kind']}",
    )


def training_seconds(lines: Sequence[Mapping[str, Any]], step: int, positions: int) -> float | None:
    """Seconds of a run's steps up to one, from its metrics; None when they do not reach it or time none.

    A line has the pace of the steps since the line before. A step that compiled has none where it stands alone: it is
    taken to be as fast as the others.

    Args:
      lines: of the metrics; a run that was resumed has each step once.
      step: the last one that counts.
      positions: read by each step.
    """
    reached, timed, seconds = 0, 0, 0.0
    for line in lines:
        if line["step"] > step:
            break
        count, reached = line["step"] - reached, line["step"]
        if "positions_per_second" in line:
            timed += count
            seconds += count * positions / float(line["positions_per_second"])
    return seconds * step / timed if timed and reached == step else None


def _notes(source: _Source, cost: Cost | None, scored: bool) -> dict[str, str]:
    notes = {}
    if cost and cost.step < cost.steps:
        notes["step"] = f"not finished: after step {cost.step:,} of {cost.steps:,}"
    if not source.model.config.mlm:
        notes |= {"scores": "no masked-LM head, so nothing to score", "latency": "speed of the encoder alone"}
    elif not scored:
        notes["scores"] = "no score that compares with the others': name a held-out text with --corpus"
    if source.model.config.dtype != "float32":
        notes["throughput"] = f"computes in {source.model.config.dtype}"
    if cost is None:
        notes["seconds"] = "a model folder does not say what its training took: give the run that it came from"
    elif cost.seconds is None:
        notes["seconds"] = f"the run's {JSONL} does not time its steps up to step {cost.step:,}"
    if cost and cost.flops is None:
        notes["flops"] = "the run is of a version that did not note it: its train command, given again, does"
    return notes
