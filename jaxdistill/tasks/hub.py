"""Tasks from data sets: of `datasets`, from the hub or a local folder, and of `tensorflow-datasets`."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxdistill.errors import UserError
from jaxdistill.tasks.glue import DIAGNOSTIC, GLUE, part_name
from jaxdistill.tasks.imdb import IMDB, NUMBERS
from jaxdistill.tasks.squad_json import SQUAD, Question, questions_of
from jaxdistill.tasks.tables import Columns, examples_of
from jaxdistill.tasks.task import Examples, Questions, Task

HUB = {"imdb": "stanfordnlp/imdb", "squad": "rajpurkar/squad", "squad2": "rajpurkar/squad_v2"}
"""The data sets of the tasks that are not GLUE's."""


def is_dataset(folder: pathlib.Path) -> bool:
    """Whether a folder is one of `datasets`: a clone of a hub's, with parquet files, or what `save_to_disk` wrote."""
    patterns = ("dataset_dict.json", "*.parquet", "*/*.parquet")
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def read_hub(name: str, split: str, source: str = "") -> Examples | Questions:
    """Reads a split with `datasets`.

    Args:
      name: a task of GLUE, `imdb`, `squad` or `squad2`.
      split: which part of it.
      source: a local data set's folder or another id of the hub; the task's own on the hub, or its copy in the
        cache, where this is "".

    Raises:
      UserError: the data set or the split can't be had, or it is not what the task needs.
    """
    import datasets  # here: slow to import, and most runs read local files

    part = _part(name, split)
    spec, config = source or HUB.get(name, "nyu-mll/glue"), _glue(name, split) if name in GLUE else None
    try:
        if pathlib.Path(spec, "dataset_dict.json").is_file():
            table = datasets.load_from_disk(spec)[part]
        else:
            table = datasets.load_dataset(spec, config, split=part)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{name}: {part} of {spec} can't be read ({error}): name a folder of its files") from None
    return _parse(name, split, table, table.features, f"{spec} {part}")


def read_tfds(name: str, split: str) -> Examples | Questions:
    """Reads a split with `tensorflow-datasets`, which downloads and prepares it when asked for the first time.

    Raises:
      UserError: the library is missing, or as of `read_hub`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError('tfds needs TensorFlow Datasets: pip install "jaxdistill[tfds]"') from None
    part = _part(name, split)
    spec = {"imdb": "imdb_reviews", "squad": "squad/v1.1", "squad2": "squad/v2.0"}.get(
        name, f"glue/{_glue(name, split)}"
    )
    try:
        table, info = tfds.load(spec, split=part, shuffle_files=False, with_info=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: {part} of {spec} can't be read ({error})") from None
    return _parse(name, split, map(_decoded, tfds.as_numpy(table)), info.features, f"{spec} {part}")


def _glue(name: str, split: str) -> str:
    """The data set of a task's split among those of GLUE."""
    return "ax" if split == DIAGNOSTIC else name


def _part(name: str, split: str) -> str:
    if split == DIAGNOSTIC:
        return "test"
    return part_name(name, split).replace("dev", "validation")


def _decoded(value: Any) -> Any:
    """Bytes as text and arrays as lists, anywhere in a row."""
    if isinstance(value, dict):
        return {key: _decoded(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return _decoded(value.tolist())
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value


def _parse(
    name: str, split: str, table: Iterable[Mapping[str, Any]], features: Mapping[str, Any], where: str
) -> Examples | Questions:
    names = getattr(dict(features).get("label"), "names", None)
    if name in SQUAD:
        return questions_of(SQUAD[name], split, map(_question, table), where)
    if name == "imdb":
        rows = _rows(table, IMDB, names, where)
        return examples_of(IMDB, split, rows, Columns("text"), f"{where}, row", NUMBERS)
    task, texts = GLUE[name].task, GLUE[name].texts
    columns = Columns(texts[0], "".join(texts[1:]), id="idx")
    return examples_of(task, split, _rows(table, task, names, where), columns, f"{where}, row")


def _rows(
    table: Iterable[Mapping[str, Any]], task: Task, names: list[str] | None, where: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows, with classes by their names; a label of -1, which a row of a test split has, is none."""
    if task.kind == "classes" and not names:
        raise UserError(f"{where} has numbers without names (no ClassLabel) as labels: they could be any classes")
    for number, row in enumerate(table, 1):
        label = row.get("label", -1)
        given = {} if label == -1 else {"label": names[label] if names else label}
        yield number, {key: value for key, value in row.items() if key != "label"} | given


def _question(row: Mapping[str, Any]) -> Question:
    answers = row["answers"]
    return Question(row["id"], row["question"], row["context"], tuple(answers["text"]), tuple(answers["answer_start"]))
