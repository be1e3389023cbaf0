"""SQuAD 1.1 (arXiv 1606.05250) and 2.0 (arXiv 1806.03822), and their JSON files."""

import operator
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jaxdistill import files
from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import clean, find_file
from jaxdistill.tasks.task import Questions, Task

SQUAD = {
    "squad": Task("squad", "spans", (), ("f1", "exact"), pair=True),
    "squad2": Task("squad2", "spans", (), ("f1", "exact", "best_f1", "best_exact"), pair=True),
}

VERSIONS = {"squad": "1.1", "squad2": "2.0"}


class Question(NamedTuple):
    """A question about a context, with its answers and the characters of the context at which they start."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def questions_of(task: Task, split: str, rows: Iterable[Question], where: str) -> Questions:
    """Checks questions and puts them together.

    Args:
      task: one of `SQUAD`.
      split: `train` or `dev`.
      rows: the questions.
      where: what they were read from, for messages.

    Raises:
      UserError: there are none; a question is empty, occurs twice or has an answer that is not where it is said to be
        in the context; or one without an answer is in SQuAD 1.1.
    """
    rows = list(rows)
    seen = set()
    for row in rows:
        place = f"{where}: question {row.id}"
        if row.id in seen:
            raise UserError(f"{place} is there twice: drop one of the two")
        seen.add(row.id)
        if not row.question.strip():
            raise UserError(f"{place} is empty: drop it")
        if not row.answers and task.name == "squad":
            raise UserError(f"{place} has no answer, as in SQuAD 2.0: ask for the task squad2, or drop the question")
        for answer, start in zip(row.answers, row.starts, strict=True):
            if not answer or start < 0 or not row.context.startswith(answer, start):
                raise UserError(f"{place}: its context does not have the answer {answer!r} at character {start}")
    if not rows:
        raise UserError(f"{where} holds no questions")
    ids, questions, contexts, answers, starts = zip(*rows, strict=True)
    return Questions(task, split, ids, questions, contexts, answers, starts)


def read_squad(name: str, split: str, source: pathlib.Path) -> Questions:
    """Reads a split from SQuAD's own files.

    Args:
      name: `squad` or `squad2`.
      split: `train` or `dev`.
      source: the folder of train-v1.1.json, dev-v1.1.json (v2.0 of SQuAD 2.0), or one file whose name begins with
        the split's.

    Raises:
      UserError: the file is not there, is not SQuAD's, is of the other version, or as of `questions_of`.
    """
    version = VERSIONS[name]
    if not source.is_file():
        path = find_file(source, (f"{split}-v{version}.json", f"{split}*v{version}.json", f"{split}*.json"))
    elif source.name.startswith(split):
        path = source
    else:
        raise UserError(f"{source} is not read as the {split} split: name its folder, with a {split}*.json in it")
    rows = []
    try:
        for row in _questions(files.read_json(path)):
            rows.append(row)
    except (KeyError, TypeError, AttributeError) as error:
        after = f" after question {rows[-1].id}" if rows else ""
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is not laid out as SQuAD's files are{after} ({what})") from None
    if name == "squad2" and all(row.answers for row in rows):
        raise UserError(f"{path} has an answer to every question, as in SQuAD 1.1: ask for the task squad")
    return questions_of(SQUAD[name], split, rows, str(path))


def _questions(content: dict) -> Iterator[Question]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = [] if asked.get("is_impossible") else asked["answers"]
                yield Question(
                    str(asked["id"]),
                    clean(asked["question"]),
                    clean(paragraph["context"]),
                    tuple(clean(answer["text"]) for answer in answers),
                    tuple(operator.index(answer["answer_start"]) for answer in answers),
                )
