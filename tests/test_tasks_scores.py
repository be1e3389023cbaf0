import math

import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.tasks.scores import score, summary
from jaxdistill.tasks.task import Task

CLASSES = ("accuracy", "f1", "macro_f1", "matthews")
PAIRS = Task("pairs", "classes", ("no", "yes"), CLASSES)
THREE = Task("three", "classes", ("a", "b", "c"), ("macro_f1", "accuracy", "matthews"))
SIMILAR = Task("similar", "score", (), ("pearson", "spearman"))


def of(task, labels, predicted):
    kind = np.int32 if task.kind == "classes" else np.float32
    return score(task, np.array(labels, kind), np.array(predicted, kind))


def test_two_classes_by_hand():
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
    labels, predicted = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    got = of(PAIRS, labels, predicted)
    assert list(got) == list(CLASSES) and all(type(value) is float for value in got.values())
    assert got["accuracy"] == pytest.approx(7 / 10)
    assert got["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert got["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert got["matthews"] == pytest.approx((3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


def test_more_classes_by_plain_loops():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    predicted = np.where(draw.random(60) < 0.5, labels, draw.integers(0, 3, 60))
    got = of(THREE, labels, predicted)
    table = [[sum((labels == t) & (predicted == p)) for p in range(3)] for t in range(3)]
    each = [2 * table[c][c] / (sum(table[c]) + sum(row[c] for row in table)) for c in range(3)]
    assert list(got) == ["macro_f1", "accuracy", "matthews"]
    assert got["macro_f1"] == pytest.approx(sum(each) / 3)
    assert got["accuracy"] == pytest.approx(sum(table[c][c] for c in range(3)) / 60)
    # Gorodkin's correlation of several classes: the correlation of one-hot labels with one-hot predictions
    truth, guess = np.eye(3)[labels], np.eye(3)[predicted]
    truth, guess = truth - truth.mean(0), guess - guess.mean(0)
    assert got["matthews"] == pytest.approx((truth * guess).sum() / math.sqrt((truth**2).sum() * (guess**2).sum()))


def test_scores_by_hand():
    # Ranks with the mean for ties: labels 1 2 3.5 3.5, predictions 2 1 3 4.
    got = of(SIMILAR, [0.0, 1.0, 4.0, 4.0], [1.0, 0.5, 2.0, 9.0])
    labels, predicted = np.array([0.0, 1, 4, 4]) - 2.25, np.array([1.0, 0.5, 2, 9]) - 3.125
    assert got["pearson"] == pytest.approx(
        (labels * predicted).sum() / math.sqrt((labels**2).sum() * (predicted**2).sum())
    )
    ranks, others = np.array([1, 2, 3.5, 3.5]) - 2.5, np.array([2, 1, 3, 4]) - 2.5
    assert got["spearman"] == pytest.approx((ranks * others).sum() / math.sqrt((ranks**2).sum() * (others**2).sum()))


def test_what_is_constant_correlates_with_nothing():
    assert of(SIMILAR, [1, 2, 3], [2.5, 2.5, 2.5]) == {"pearson": 0.0, "spearman": 0.0}
    assert of(SIMILAR, [2.0], [2.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert of(PAIRS, [0, 1], [0, 0]) == pytest.approx({"accuracy": 0.5, "f1": 0, "macro_f1": 1 / 3, "matthews": 0})
    assert of(PAIRS, [0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0, "macro_f1": 1.0, "matthews": 0.0}
    assert of(PAIRS, [1, 1], [1, 1]) == {"accuracy": 1.0, "f1": 1.0, "macro_f1": 1.0, "matthews": 0.0}


def test_bad_input():
    with pytest.raises(UserError, match="no example"):
        of(PAIRS, [], [])
    with pytest.raises(UserError, match=r"1 of 2 predicted scores are not finite.*diverged"):
        of(SIMILAR, [1, 2], [1, math.nan])
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        of(PAIRS, [0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match=r"pearson.*classes.*accuracy"):
        of(Task("odd", "classes", ("no", "yes"), ("pearson",)), [0, 1], [0, 1])


def test_a_summary_by_hand():
    # Student's t at 97.5 % with two degrees of freedom, from a printed table: 4.303; the deviation is 1.
    got = summary([3.0, 1.0, 2.0])
    assert got == {"mean": 2.0, "median": 2.0, "interval": pytest.approx(4.303 / math.sqrt(3), rel=1e-4)} | {
        "min": 1.0,
        "max": 3.0,
    }
    assert summary([1.0, 2.0, 4.0, 9.0])["median"] == 3.0
    assert summary([0.5]) == {"mean": 0.5, "median": 0.5, "interval": None, "min": 0.5, "max": 0.5}
