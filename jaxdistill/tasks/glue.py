"""The nine tasks of GLUE (arXiv 1804.07461), and the files of its own download."""

import pathlib
from dataclasses import dataclass, replace

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import find_file, read_tsv
from jaxdistill.tasks.tables import Columns, examples_of
from jaxdistill.tasks.task import Examples, Task


@dataclass(frozen=True)
class Glue:
    """One of GLUE's tasks.

    Attributes:
      folder: the folder of its files, also the name of its file in a submission.
      task: the task; its classes have the names and the order that they have in `datasets`.
      columns: the columns of its files; `id` is of the test file, where GLUE's server needs it.
      texts: the columns of its texts in `datasets` and in `tensorflow-datasets`.
      numbered: its files and submissions have the numbers of classes, not their names.
    """

    folder: str
    task: Task
    columns: Columns
    texts: tuple[str, ...]
    numbered: bool = False


_PAIR = ("sentence1", "sentence2")
_F1 = ("f1", "accuracy")
_ACCURACY = ("accuracy",)

_TASKS = (
    Glue(
        "CoLA",
        Task("cola", "classes", ("unacceptable", "acceptable"), ("matthews",)),
        Columns("sentence", id="index"),
        ("sentence",),
        numbered=True,
    ),
    Glue(
        "SST-2",
        Task("sst2", "classes", ("negative", "positive"), _ACCURACY),
        Columns("sentence", id="index"),
        ("sentence",),
        numbered=True,
    ),
    Glue(
        "MRPC",
        Task("mrpc", "classes", ("not_equivalent", "equivalent"), _F1, pair=True),
        Columns("#1 String", "#2 String", "Quality", "index"),
        _PAIR,
        numbered=True,
    ),
    Glue(
        "STS-B",
        Task("stsb", "score", (), ("pearson", "spearman"), pair=True),
        Columns(*_PAIR, "score", "index", kind="score"),
        _PAIR,
    ),
    Glue(
        "QQP",
        Task("qqp", "classes", ("not_duplicate", "duplicate"), _F1, pair=True),
        Columns("question1", "question2", "is_duplicate", "id"),
        ("question1", "question2"),
        numbered=True,
    ),
    Glue(
        "MNLI",
        Task("mnli", "classes", ("entailment", "neutral", "contradiction"), _ACCURACY, pair=True),
        Columns(*_PAIR, "gold_label", "index"),
        ("premise", "hypothesis"),
    ),
    Glue(
        "QNLI",
        Task("qnli", "classes", ("entailment", "not_entailment"), _ACCURACY, pair=True),
        Columns("question", "sentence", "label", "index"),
        ("question", "sentence"),
    ),
    Glue(
        "RTE",
        Task("rte", "classes", ("entailment", "not_entailment"), _ACCURACY, pair=True),
        Columns(*_PAIR, "label", "index"),
        _PAIR,
    ),
    Glue(
        "WNLI",
        Task("wnli", "classes", ("not_entailment", "entailment"), _ACCURACY, pair=True),
        Columns(*_PAIR, "label", "index"),
        _PAIR,
        numbered=True,
    ),
)

GLUE = {glue.task.name: glue for glue in _TASKS}

DIAGNOSTIC = "test_diagnostic"
"""The split of MNLI that GLUE calls AX: unlabelled pairs of its own, answered by a model of MNLI."""

_COLA_HEADER = ("source", "label", "mark", "sentence")
"""CoLA's train and dev files alone have no header."""

_QQP_BROKEN = 3
"""Lines of QQP's official train.tsv with too few fields: questions that hold a newline. All readers leave them out:
the file has 363,849 lines of data, the hub 363,846 rows."""


def part_name(name: str, split: str) -> str:
    """What GLUE calls a split: MNLI's dev and test are each in two parts, of which the matched one is meant."""
    return f"{split}_matched" if name == "mnli" and split in ("dev", "test") else split


def read_glue(name: str, split: str, source: pathlib.Path) -> Examples:
    """Reads a split from GLUE's own files.

    Args:
      name: one of `GLUE`.
      split: `train`, `dev`, `test`; also `dev_mismatched`, `test_mismatched` and `DIAGNOSTIC` of MNLI.
      source: the task's folder, or the one that holds it; for `DIAGNOSTIC` the one that holds all of them.

    Raises:
      UserError: the file is not there, or a row of it is damaged or is not of this task.
    """
    glue = GLUE[name]
    if source.is_file():
        raise UserError(f"{source} is a file: name the folder of {name}'s files, or the one that holds {glue.folder}/")
    folder = source / glue.folder if (source / glue.folder).is_dir() else source
    part = part_name(name, split)
    if split == DIAGNOSTIC:
        folder = next((inside for inside in (source / "AX", source / "diagnostic") if inside.is_dir()), source)
        path = find_file(folder, ("diagnostic.tsv", "AX.tsv"))
    else:
        path = find_file(folder, (f"{part}.tsv", f"{part}.tsv.gz", f"{part}_*.tsv"))
    test = split.startswith("test")
    rows = read_tsv(
        path,
        header=_COLA_HEADER if name == "cola" and not test else None,
        broken=_QQP_BROKEN if (name, split) == ("qqp", "train") else 0,
    )
    columns = glue.columns if test else replace(glue.columns, id="")
    numbers = {str(number): number for number in range(len(glue.task.labels))} if glue.numbered else None
    return examples_of(glue.task, split, rows, columns, f"{path}, line", numbers)
