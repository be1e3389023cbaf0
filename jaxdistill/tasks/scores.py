"""A task's own metrics, as fractions of 1, and what they come to over seeds."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics

from jaxdistill.errors import UserError
from jaxdistill.tasks.task import Task

_Metric = Callable[[np.ndarray, np.ndarray], float]


def score(task: Task, labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The task's metrics, in its order.

    Of classes: `accuracy`; `f1`, that of class 1; `macro_f1`, the mean F1 of the classes that occur among labels or
    predictions; `matthews`, Matthews' correlation. Of scores: `pearson` and `spearman`. A correlation with something
    constant is not defined and counts as 0.0, and so does the F1 of a class that neither holds.

    Args:
      task: of kind `classes` or `score`.
      labels: the right numbers of classes, int32 [examples], or scores, float32 [examples].
      predicted: the same of the model.

    Raises:
      UserError: there is nothing to score, or a predicted score is not finite.
      ValueError: the two differ in length, or the task's kind has no such metric.
    """
    known = _METRICS.get(task.kind, {})
    if not task.metrics or any(name not in known for name in task.metrics):
        raise ValueError(f"metrics {task.metrics} of kind {task.kind!r}: there are {list(known)}")
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"labels are {labels.shape}, predictions {predicted.shape}: both must be [examples]")
    if not len(labels):
        raise UserError(f"{task.name}: there is no example to score: give a split that has some")
    if task.kind == "score":
        labels, predicted = labels.astype(np.float64), predicted.astype(np.float64)
        if not np.isfinite(predicted).all():
            raise UserError(
                f"{task.name}: {np.sum(~np.isfinite(predicted))} of {len(predicted)} predicted scores are not finite: "
                "the model's training has diverged; train it with a smaller learning rate"
            )
    return {name: float(known[name](labels, predicted)) for name in task.metrics}


def _unless_constant(correlation: _Metric) -> _Metric:
    def defined(labels, predicted):
        return correlation(labels, predicted) if np.ptp(labels) and np.ptp(predicted) else 0.0

    return defined


def _f1(average: str) -> _Metric:
    return lambda labels, predicted: metrics.f1_score(labels, predicted, average=average, zero_division=0.0)


_METRICS: Mapping[str, Mapping[str, _Metric]] = {
    "classes": {
        "accuracy": metrics.accuracy_score,
        "f1": _f1("binary"),
        "macro_f1": _f1("macro"),
        "matthews": _unless_constant(metrics.matthews_corrcoef),
    },
    "score": {
        "pearson": _unless_constant(lambda labels, predicted: stats.pearsonr(labels, predicted).statistic),
        "spearman": _unless_constant(lambda labels, predicted: stats.spearmanr(labels, predicted).statistic),
    },
}


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """What one metric comes to over seeds.

    Args:
      values: the metric under each seed, at least one.

    Returns:
      `mean`, `median`, `min`, `max` and `interval`: half the width of the mean's 95 % interval by Student's t, None
      with one seed.
    """
    count, interval = len(values), None
    if count > 1:
        interval = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "interval": interval,
        "min": min(values),
        "max": max(values),
    }
