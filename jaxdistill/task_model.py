"""A fine-tuned model out of a run or a Hugging Face folder: with its task, and how it reads examples."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from jaxdistill import files, manifest
from jaxdistill.bert import BertConfig
from jaxdistill.data.views import View
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.experiment import TaskData
from jaxdistill.export import is_run, read_run
from jaxdistill.hf import find_tokenizer, heads_of, read_hf, read_task_config
from jaxdistill.task_head import check_head, head_task, respell
from jaxdistill.tasks.read import TASKS, find_task
from jaxdistill.tasks.tables import parse_columns
from jaxdistill.tasks.task import Task


@dataclasses.dataclass(frozen=True, eq=False)
class TaskModel:
    """A fine-tuned model.

    Attributes:
      config: its shape, with the task's head. The classes are in the head's order, which need not be the task's.
      params: its parameters.
      vocabulary: its vocabulary.
      task: what it is fine-tuned for; without a name where only the head tells.
      data: where examples of the task are, and how they are cut; of its vocabulary alone.
    """

    config: BertConfig
    params: Mapping[str, Any]
    vocabulary: Vocabulary
    task: Task
    data: TaskData


def roles_of(source: str | os.PathLike, role: str | None = None) -> list[str | None]:
    """The models of a run that have the head of a task, or the one asked for; [None] for a folder, or where none has.

    Raises:
      UserError: the run's manifest can't be read.
    """
    if role is not None or not is_run(source):
        return [role if is_run(source) else None]
    asked = manifest.read_manifest(source)["config"]
    heads = {name for name, shape in asked["models"].items() if shape.get("classifier") or shape.get("spans")}
    return [name for name in asked["data"]["views"] if name in heads] or [None]


def task_of(source: str | os.PathLike) -> str:
    """The task that a run is of; "" for a run of a corpus and for what is no run."""
    return manifest.read_manifest(source)["config"]["data"].get("task", "") if is_run(source) else ""


def read_task_model(
    source: str | os.PathLike,
    task: str = "",
    /,
    *,
    role: str | None = None,
    length: int | None = None,
    **where: str,
) -> TaskModel:
    """Reads a fine-tuned model.

    Args:
      source: a run's workdir, of which the newest checkpoint is read, or a Hugging Face folder or hub id.
      task: as of `read.find_task`; "" is the run's own, or what the head tells where no file of it is here.
      role: which model of a run; its student, or its only one, when None.
      length: pieces in a row, at most; when None the run's, or what the folder's tokenizer says (`model_max_length`).
      where: `source`, `columns` and `dev`, as of `TaskData`. For its own task, a run knows those that are left out.

    Raises:
      UserError: it can't be read, has no tokenizer or too few positions; there is no such task; the model has no head
        for it, or tells other classes apart.
    """
    where = {name: value for name, value in where.items() if value}
    if is_run(source):
        found = read_run(source, role)
        config, params, vocabulary = found.config, found.params, found.vocabulary
        data = _data(source, found.manifest["config"]["data"], found.role, task, where)
    else:
        config = read_task_config(source)
        read = read_hf(source, fresh_heads=False, **heads_of(config))
        if read.vocabulary is None:
            raise UserError(f"{source} has no tokenizer beside its weights: add its vocab.txt or tokenizer.json")
        params, vocabulary = jax.device_put(read.params), read.vocabulary
        folder = find_tokenizer(source)
        most = min(_max_length(folder), config.positions)
        data = TaskData(task, {"model": folder}, {"model": View("model")}, 32, most, **where)
    data = dataclasses.replace(data, length=length or data.length)
    if data.task:
        data.check()
    if data.length > config.positions:
        raise UserError(f"{source} has {config.positions} positions: choose a --length of at most that")
    if task or data.task in TASKS or pathlib.Path(data.task).is_file():
        made = find_task(data.task, data.columns)
        check_head(config, made, os.fspath(source))
        config = respell(config, made)
    else:
        made = head_task(config, data.task, bool(parse_columns(data.columns).second))
    return TaskModel(config, params, vocabulary, made, data)


def _data(workdir, saved: Mapping[str, Any], role: str, task: str, where: Mapping[str, str]) -> TaskData:
    """What a model of a run reads: of the run's own task, or of another one."""
    name = saved["views"][role]["vocabulary"]
    own = {"vocabularies": {name: str(pathlib.Path(workdir) / "vocabularies" / name)}, "views": {role: View(name)}}
    if "task" not in saved:
        raise UserError(f"{workdir} is a run on a corpus: export its model, and fine-tune that for a task")
    kept = ("batch", "length", "stride", "max_question")
    if task in ("", saved["task"]):
        kept += ("task", "source", "columns", "dev")
    return TaskData(**{"task": task} | {field: saved[field] for field in kept} | own | where)


_UNBOUND = 2**30


def _max_length(folder: str) -> int:
    """The `model_max_length` of a tokenizer; a number without bound where it says none."""
    path = pathlib.Path(folder) / "tokenizer_config.json"
    content = files.read_json(path) if path.is_file() else {}
    said = content.get("model_max_length") if isinstance(content, dict) else None
    return int(said) if isinstance(said, int | float) and 1 <= said < _UNBOUND else _UNBOUND
