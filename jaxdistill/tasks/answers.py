"""How SQuAD scores answers: exact match and F1 after normalisation, and the threshold for giving no answer.

The rules are those of the official evaluation of SQuAD 2.0 (arXiv 1806.03822). That of 1.1 (arXiv 1606.05250) gives
the same unless an answer is nothing but articles and punctuation. Figures are fractions of 1.
"""

import collections
import re
import string
from collections.abc import Mapping

import numpy as np

from jaxdistill.errors import UserError
from jaxdistill.tasks.task import Questions

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(answer: str) -> str:
    """An answer in lower case, without ASCII punctuation and English articles, its words one space apart."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact(gold: str, predicted: str) -> float:
    """1.0 where two answers are the same once normalised, else 0.0."""
    return float(normalise(gold) == normalise(predicted))


def f1(gold: str, predicted: str) -> float:
    """F1 of the words, as bags, of two normalised answers; if one is empty, 1.0 where the other is too, else 0.0."""
    gold_words, words = normalise(gold).split(), normalise(predicted).split()
    if not gold_words or not words:
        return float(gold_words == words)
    common = (collections.Counter(gold_words) & collections.Counter(words)).total()
    return 2 * common / (len(gold_words) + len(words))


def score_answers(
    questions: Questions,
    predicted: Mapping[str, str],
    no_answer: Mapping[str, float] | None = None,
    *,
    threshold: float = 0.0,
) -> dict[str, float]:
    """Exact match and F1, each against the best of a question's right answers.

    Args:
      questions: with their right answers.
      predicted: an answer to each, by id; "" where there is none. Where `no_answer` is given, the best that the context
        has to offer: an answer that was taken back already cannot be found again by a higher threshold.
      no_answer: how much each question rather has no answer, by id: above the threshold, its answer counts as "". Of no
        use, and not looked at, where every question has an answer, as in SQuAD 1.1.
      threshold: of `exact` and `f1`; BERT's is 0.0, a better one is found on a development set.

    Returns:
      `exact` and `f1`. Where some questions have no answer, also `NoAns_exact` and `NoAns_f1` of these, `HasAns_exact`
      and `HasAns_f1` of the others, if any. With `no_answer`, also the best that a threshold can reach, and which one:
      `best_exact`, `best_exact_thresh`, `best_f1`, `best_f1_thresh`. (The official search also stops among questions of
      equal `no_answer`, where no threshold can, and calls the threshold 0.0 where it is best to answer nothing: ours is
      then a number below all.)

    Raises:
      UserError: there are no questions or no right answers to them, or a question's prediction is missing.
    """
    if questions.answers is None or not len(questions):
        raise UserError(f"{questions.task.name}: split {questions.split!r} has no right answers to score against")
    possible = np.array([bool(answers) for answers in questions.answers])
    if possible.all():
        no_answer = None
    for what, given in {"predicted answer": predicted, "no-answer score": no_answer}.items():
        missing = [key for key in questions.ids if given is not None and key not in given]
        if missing:
            raise UserError(
                f"{questions.task.name}: {len(missing)} of {len(questions)} questions have no {what}, the first is "
                f"{missing[0]}: were they given for another file?"
            )
    found = {"exact": np.zeros(len(questions)), "f1": np.zeros(len(questions))}
    for row, (key, answers) in enumerate(zip(questions.ids, questions.answers, strict=True)):
        golds = [answer for answer in answers if normalise(answer)] or [""]
        found["exact"][row] = max(exact(gold, predicted[key]) for gold in golds)
        found["f1"][row] = max(f1(gold, predicted[key]) for gold in golds)
    best = {}
    if no_answer is not None:
        reluctance = np.array([no_answer[key] for key in questions.ids], np.float64)
        for name, scores in found.items():
            best[f"best_{name}"], best[f"best_{name}_thresh"] = _best_threshold(scores, possible, reluctance)
        found = {name: np.where(reluctance > threshold, ~possible, scores) for name, scores in found.items()}
    total = {name: float(scores.mean()) for name, scores in found.items()}
    if not possible.all():
        for part, rows in {"HasAns": possible, "NoAns": ~possible}.items():
            total |= {f"{part}_{name}": float(scores[rows].mean()) for name, scores in found.items() if rows.any()}
    return total | best


def _best_threshold(scores: np.ndarray, possible: np.ndarray, no_answer: np.ndarray) -> tuple[float, float]:
    """The best mean score over all thresholds, and the lowest threshold that reaches it.

    Args:
      scores: of the answers, if given, [questions].
      possible: the question has an answer, bool [questions].
      no_answer: how much each question rather has none, [questions].
    """
    order = np.argsort(no_answer, kind="stable")
    totals = np.cumsum(np.concatenate([[np.sum(~possible)], (scores - ~possible)[order]]))
    thresholds = np.concatenate([[np.nextafter(no_answer[order[0]], -np.inf)], no_answer[order]])
    totals[:-1][thresholds[:-1] == thresholds[1:]] = -np.inf
    best = int(np.argmax(totals))
    return float(totals[best] / len(scores)), float(thresholds[best])
