"""IMDb's film reviews: the folder of the original download, or two tables."""

import pathlib

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import Fields, find_file, read_fields
from jaxdistill.tasks.tables import Columns, examples_of
from jaxdistill.tasks.task import Examples, Task

IMDB = Task("imdb", "classes", ("negative", "positive"), ("accuracy",))

NUMBERS = {"neg": 0, "pos": 1, "negative": 0, "positive": 1, "0": 0, "1": 1}
"""What the classes are called in files and data sets of IMDb."""


def read_imdb(split: str, source: pathlib.Path) -> Examples:
    """Reads a split of IMDb.

    Args:
      split: `train` or `test`.
      source: the original folder (aclImdb, with train/neg/*.txt and so on), or a folder with tables of the columns
        `sentence` and `label`, train.tsv, test.csv.gz or the like.

    Raises:
      UserError: nothing of the kind is there, or a row is damaged.
    """
    if source.is_file():
        raise UserError(f"{source} is a file: name the folder that holds IMDb's train and test")
    folder = source / "aclImdb" if (source / "aclImdb").is_dir() else source
    if (folder / split).is_dir():
        return examples_of(IMDB, split, _reviews(folder / split), Columns(), f"{folder / split}, review", NUMBERS)
    path = find_file(folder, [f"{split}.{end}" for end in ("tsv", "tsv.gz", "csv", "csv.gz", "jsonl", "jsonl.gz")])
    return examples_of(IMDB, split, read_fields(path), Columns(), f"{path}, line", NUMBERS)


def _reviews(folder: pathlib.Path) -> Fields:
    """The reviews of a split's folder, by class and by their numbers, which their names begin with."""
    number = 0
    for label in ("neg", "pos"):
        paths = list((folder / label).glob("*.txt"))
        if not paths:
            raise UserError(f"{folder / label} holds no reviews (*.txt): fetch IMDb again")
        for path in sorted(paths, key=_order):
            number += 1
            try:
                yield number, {"sentence": path.read_text(encoding="utf-8"), "label": label}
            except UnicodeDecodeError as error:
                raise UserError(f"{path} is not UTF-8 text: {error}") from None


def _order(path: pathlib.Path) -> tuple[int, str]:
    number = path.stem.partition("_")[0]
    return (int(number) if number.isdecimal() else 0, path.name)
