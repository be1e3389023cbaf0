"""What GLUE's server takes: a zip with a file of predictions for each test set."""

import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from jaxdistill import files
from jaxdistill.errors import UserError
from jaxdistill.tasks.glue import DIAGNOSTIC, GLUE
from jaxdistill.tasks.task import Task

PARTS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX")
"""What the server calls its test sets; AX is the diagnostic set, answered by a model of MNLI."""


def part_of(name: str, split: str) -> str:
    """The one of `PARTS` that the test split of a task is.

    Raises:
      UserError: the server has no such test set.
    """
    if name not in GLUE or not split.startswith("test"):
        raise UserError(f"{name} {split} is no test set of GLUE's server: those are test splits of {', '.join(GLUE)}")
    if name == "mnli":
        return {"test": "MNLI-m", "test_mismatched": "MNLI-mm", DIAGNOSTIC: "AX"}[split]
    return GLUE[name].folder


def write_submission(
    path: str | os.PathLike, predictions: Mapping[str, tuple[Task, Sequence[str], np.ndarray]]
) -> None:
    """Writes a submission to GLUE's server, whole or not at all. The server scores nothing unless all parts are there.

    Args:
      path: the zip file to write.
      predictions: of some of `PARTS`, the task, the ids of its test file, and for each a number of a class or a score.

    Raises:
      UserError: a part is unknown; its predictions are not one for each id, or an id is there twice; a number is of no
        class of the task, a score is not finite.
    """
    unknown = [part for part in predictions if part not in PARTS]
    if unknown:
        raise UserError(f"GLUE's server knows no {', '.join(unknown)}, only {', '.join(PARTS)}")
    texts = {part: _text(part, *predictions[part]) for part in PARTS if part in predictions}
    with files.atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for part, text in texts.items():
            entry = zipfile.ZipInfo(f"{part}.tsv", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)


def _text(part: str, task: Task, ids: Sequence[str], predicted: np.ndarray) -> str:
    if len(ids) != len(predicted) or len(set(ids)) != len(ids):
        raise UserError(f"{part}: {len(predicted)} predictions of {len(set(ids))} different ids: give one for each")
    if task.kind == "score":
        if not np.isfinite(predicted).all():
            raise UserError(f"{part}: a prediction is not a finite number")
        # The server's scores are of 0 to 5, with three places.
        answers = [f"{score:.3f}" for score in np.clip(predicted, 0, 5)]
    else:
        if not np.isin(predicted, np.arange(len(task.labels))).all():
            raise UserError(f"{part}: a prediction is none of the classes 0 to {len(task.labels) - 1}")
        numbered = GLUE[task.name].numbered
        answers = [str(int(number)) if numbered else task.labels[number] for number in predicted]
    rows = (f"{name}\t{answer}\n" for name, answer in zip(ids, answers, strict=True))
    return "index\tprediction\n" + "".join(rows)
