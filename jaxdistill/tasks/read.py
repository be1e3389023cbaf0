"""Tasks by their names: what each is, and its splits, wherever they are kept."""

import pathlib

from jaxdistill.errors import UserError
from jaxdistill.tasks.glue import DIAGNOSTIC, GLUE, read_glue
from jaxdistill.tasks.hub import is_dataset, read_hub, read_tfds
from jaxdistill.tasks.imdb import IMDB, read_imdb
from jaxdistill.tasks.squad_json import SQUAD, read_squad
from jaxdistill.tasks.tables import parse_columns, read_table, table_task
from jaxdistill.tasks.task import Examples, Questions, Task

TASKS = (*GLUE, "imdb", *SQUAD)

_SPLITS = {
    "mnli": ("train", "dev", "dev_mismatched", "test", "test_mismatched", DIAGNOSTIC),
    "imdb": ("train", "test"),
    "squad": ("train", "dev"),
    "squad2": ("train", "dev"),
}


def splits_of(name: str) -> tuple[str, ...]:
    """The splits that a task is published with; of a user's own, the training file and the dev file."""
    return _SPLITS.get(name, ("train", "dev", "test") if name in GLUE else ("train", "dev"))


def find_task(name: str, columns: str = "") -> Task:
    """What a task is.

    Args:
      name: one of `TASKS`, or the path of a user's own training file (.tsv, .csv, .jsonl, or .gz of these).
      columns: which columns of a user's own file hold what, as in `tables.parse_columns`.

    Raises:
      UserError: there is no such task or file, or the file is damaged.
    """
    if name in GLUE:
        return GLUE[name].task
    if name in SQUAD:
        return SQUAD[name]
    return IMDB if name == "imdb" else table_task(_own(name), parse_columns(columns))


def is_pair(name: str, columns: str = "") -> bool:
    """Whether an example of a task is of two texts; a user's own file need not be there."""
    return find_task(name).pair if name in TASKS else bool(parse_columns(columns).second)


def read_split(name: str, split: str, source: str = "", columns: str = "", dev: str = "") -> Examples | Questions:
    """Reads a split of a task. One split is never read for another.

    Args:
      name: as of `find_task`.
      split: one of `splits_of(name)`.
      source: where a task of `TASKS` is: a folder of its own files or of `datasets`; "" or "hub" for the hub, or
        "hf:OWNER/NAME" for a copy there with the same columns; "tfds" for `tensorflow-datasets`.
      columns: which columns of a user's own files hold what, as in `tables.parse_columns`.
      dev: the dev file of a user's own.

    Raises:
      UserError: the task has no such split, its files are not there, or a row is damaged or of another task.
    """
    if split not in splits_of(name):
        raise UserError(f"{name} has no split {split!r}: its splits are {', '.join(splits_of(name))}")
    if name not in TASKS:
        if split == "dev" and not dev:
            raise UserError(f"{name} is a training file: name a dev file with the same columns too")
        path, parsed = _own(name), parse_columns(columns)
        if source:
            raise UserError(f"source={source}: {name} is a file of your own, which needs no other source")
        return read_table(path if split == "train" else pathlib.Path(dev), table_task(path, parsed), split, parsed)
    if columns or dev:
        raise UserError(f"columns and a dev file are for files of your own: {name} has its own")
    if source == "tfds":
        return read_tfds(name, split)
    if source in ("", "hub"):
        return read_hub(name, split)
    if source.startswith("hf:"):
        return read_hub(name, split, source.removeprefix("hf:"))
    folder = pathlib.Path(source)
    if not folder.exists():
        raise UserError(
            f"{folder.absolute()} does not exist: as --source, name a folder of {name}'s files, hf:OWNER/NAME or tfds"
        )
    if is_dataset(folder):
        return read_hub(name, split, source)
    if name in GLUE:
        return read_glue(name, split, folder)
    return read_squad(name, split, folder) if name in SQUAD else read_imdb(split, folder)


def _own(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if not path.is_file():
        place = "" if path.is_absolute() else f" in {pathlib.Path.cwd()}"
        raise UserError(f"{name} is no task, and no file{place}: the tasks are {', '.join(TASKS)}")
    return path
