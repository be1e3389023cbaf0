"""Runs and model folders side by side, on held-out text or on a task."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxdistill import evaluate_task, manifest, sharding
from jaxdistill.data.masking import Masking
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model, Scores, score
from jaxdistill.export import is_run, read_model
from jaxdistill.inputs import read_inputs
from jaxdistill.places import place
from jaxdistill.task_inputs import read_task_inputs
from jaxdistill.task_model import read_task_model, roles_of


@dataclasses.dataclass(frozen=True)
class Setting:
    """How models are measured.

    Attributes:
      length: positions in a row.
      masking: what is masked.
      rows: how many windows; 0 takes all.
    """

    length: int = 128
    masking: Masking = dataclasses.field(default_factory=Masking)
    rows: int = 0


def setting_of(config: Mapping[str, Any]) -> Setting:
    """How a run is measured at its end, from the config in its manifest."""
    masking = {name: value for name, value in config["data"]["masking"].items() if name != "type"}
    return Setting(config["data"]["length"], Masking(**masking).scored(), config["run"]["score_rows"])


def measure(
    sources: Sequence[str | os.PathLike],
    corpus: str | os.PathLike,
    *,
    role: str | None = None,
    length: int | None = None,
    predictions: int | None = None,
    rows: int | None = None,
    seed: int = 0,
    batch: int = 32,
) -> dict[str, Scores]:
    """Scores models on the same windows and the same hidden words; of several processes each computes a share.

    A run is measured as at its end: every model of it with an MLM head, on windows that fit under all of its
    vocabularies, by its own length, rate of masking and number of windows. With several runs those of the first hold;
    without any, `Setting`'s.

    Args:
      sources: workdirs of runs, Hugging Face folders, hub ids.
      corpus: held-out text, prepared.
      role: which model of each run; all when None.
      length: positions in a row.
      predictions: masked positions in a row, at most.
      rows: windows to score; 0 takes all.
      seed: of the masks.
      batch: rows at a time.

    Returns:
      Scores by source; by `SOURCE ROLE` where a run has several models.

    Raises:
      UserError: a source or the corpus can't be read, or a model has fewer positions than a row.
    """
    models: dict[str, Model] = {}
    vocabularies, settings = {}, []
    for source in map(str, sources):
        if not is_run(source):
            models[source] = read_model(source)
            continue
        config = manifest.read_manifest(source)["config"]
        roles = [role] if role else [name for name, shape in config["models"].items() if shape["mlm"]] or [None]
        for name in roles:
            models[source if len(roles) == 1 else f"{source} {name}"] = read_model(source, name)
        for name in config["data"]["vocabularies"]:
            vocabulary = read_vocabulary(place(source) / "vocabularies" / name)
            vocabularies[vocabulary.digest] = vocabulary
        settings.append(setting_of(config))
    vocabularies |= {model.vocabulary.digest: model.vocabulary for model in models.values()}
    setting = settings[0] if settings else Setting()
    length = length or setting.length
    for name, model in models.items():
        if model.config.positions < length:
            raise UserError(f"{name} has {model.config.positions} positions: choose a --length of at most that")
    masking = dataclasses.replace(setting.masking, predictions=predictions or setting.masking.predictions)
    inputs = read_inputs(corpus, vocabularies, length)
    held_out = inputs.held_out(masking, seed, setting.rows if rows is None else rows)
    models = {name: dataclasses.replace(model, params=_everywhere(model.params)) for name, model in models.items()}
    return score(models, held_out, **_spread(batch))


def _everywhere(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters, of several processes on all their devices."""
    if jax.process_count() == 1:
        return params
    return sharding.everywhere(params, sharding.make_mesh())


def _spread(batch: int) -> dict[str, Any]:
    """Rows at a time, of several processes spread over all their devices."""
    if jax.process_count() == 1:
        return {"batch": batch}
    mesh = sharding.make_mesh()
    return {"batch": -(-batch // mesh.size) * mesh.size, "sharding": sharding.batch_sharding(mesh)}


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """What a model scored on a split of a task.

    Attributes:
      task: the task's name.
      split: which part of it.
      examples: how many there are.
      scores: its metrics.
    """

    task: str
    split: str
    examples: int
    scores: Mapping[str, float]


def measure_task(
    sources: Sequence[str | os.PathLike],
    task: str = "",
    split: str = "dev",
    *,
    role: str | None = None,
    length: int | None = None,
    batch: int = 32,
    **where: str,
) -> dict[str, TaskScores]:
    """Scores fine-tuned models on a split of a task: of a run all that have a head.

    Args:
      sources: workdirs of runs, Hugging Face folders, hub ids.
      task: as of `read_task_model`, and so are `length` and `where`.
      split: which part of it.
      role: which model of each run; all when None.
      length: pieces in a row, at most.
      batch: rows at a time.
      where: `source`, `columns` and `dev`.

    Returns:
      Scores by source; by `SOURCE ROLE` where a run has several models.

    Raises:
      UserError: a source or the split can't be read, the split has no labels, or a model does not fit the task.
    """
    found = {}
    for source in map(str, sources):
        roles = roles_of(source, role)
        for name in roles:
            model = read_task_model(source, task, role=name, length=length, **where)
            inputs = read_task_inputs(model.data, split)
            (vocabulary,) = model.data.vocabularies
            given = model.config, _everywhere(model.params), inputs, vocabulary, model.data.length
            scores = evaluate_task.score(*given, **_spread(batch))
            found[source if len(roles) == 1 else f"{source} {name}"] = TaskScores(
                model.task.name, split, len(inputs.examples), scores
            )
    return found
