"""The losses of tasks against torch and plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxdistill.bert import BertConfig, Outputs
from jaxdistill.errors import UserError
from jaxdistill.terms import TaskLoss, TaskTargets

ROWS, LENGTH = 5, 7
DRAW = np.random.default_rng(0)
MASK = np.arange(LENGTH) < np.array([7, 5, 0, 3, 6])[:, None]
REAL = MASK[:, 0]
SPANS = np.array([[1, 3], [0, 0], [-1, -1], [2, 2], [5, 5]], np.int32)
VIEW = {
    "mask": MASK,
    "classes": np.array([2, 0, -1, 1, 1], np.int32),
    "score": np.array([1.5, 4.0, 0.0, 2.0, 0.5], np.float32),
    "spans": SPANS,
}
BATCH = {"student": VIEW, "teacher": VIEW}
BERT = BertConfig(vocab=9, hidden=4, layers=2, heads=2, ffn=8, mlm=False, pooler=True, classifier=("a", "b", "c"))


def said(classes):
    return {
        name: Outputs(
            None,
            None,
            classes=DRAW.normal(0, 2, (ROWS, classes)).astype(np.float32),
            spans=DRAW.normal(0, 2, (ROWS, LENGTH, 2)).astype(np.float32),
        )
        for name in ("student", "teacher")
    }


CLASSES, SCORE = said(3), said(1)


def value(term, outputs):
    return float(term({}, outputs, BATCH, {})[0])


def tensors(outputs, name):
    return {who: torch.from_numpy(np.array(getattr(found, name))) for who, found in outputs.items()}


def starts_and_ends(outputs):
    """Torch's scores of starts and ends of each real row, padding left out, and the row."""
    for row in np.flatnonzero(REAL):
        for end in range(2):
            yield row, end, {who: x[row, MASK[row], end] for who, x in tensors(outputs, "spans").items()}


def test_the_losses_of_fine_tuning_are_torch_s():
    found = tensors(CLASSES, "classes")["student"]
    expected = functional.cross_entropy(
        found, torch.from_numpy(VIEW["classes"]).long(), ignore_index=-1, reduction="sum"
    )
    assert value(TaskLoss(), CLASSES) == pytest.approx(float(expected), rel=1e-5)
    right = (found.argmax(-1).numpy() == VIEW["classes"])[REAL].sum()
    assert float(TaskLoss()({}, CLASSES, BATCH, {})[1]["accuracy"]) == right
    found = tensors(SCORE, "classes")["student"][REAL, 0]
    expected = functional.mse_loss(found, torch.from_numpy(VIEW["score"][REAL]), reduction="sum")
    assert value(TaskLoss(kind="score"), SCORE) == pytest.approx(float(expected), rel=1e-5)
    expected = sum(
        float(functional.cross_entropy(scores["student"][None], torch.tensor([int(SPANS[row, end])])))
        for row, end, scores in starts_and_ends(CLASSES)
    )
    assert value(TaskLoss(kind="spans"), CLASSES) == pytest.approx(expected / 2, rel=1e-5)
    assert int(TaskLoss().count(BATCH)) == 4


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_soft_targets_are_torch_s(temperature):
    def divergence(student, teacher):
        logs = [functional.log_softmax(x.double() / temperature, -1) for x in (student, teacher)]
        return temperature**2 * float(functional.kl_div(*logs, log_target=True, reduction="sum"))

    found = tensors(CLASSES, "classes")
    expected = divergence(found["student"][REAL], found["teacher"][REAL])
    assert value(TaskTargets(temperature=temperature), CLASSES) == pytest.approx(expected, rel=1e-4)
    expected = sum(divergence(x["student"], x["teacher"]) for *_, x in starts_and_ends(CLASSES)) / 2
    assert value(TaskTargets(kind="spans", temperature=temperature), CLASSES) == pytest.approx(expected, rel=1e-4)
    found = tensors(SCORE, "classes")
    expected = float(((found["student"] - found["teacher"])[REAL] ** 2).sum())
    assert value(TaskTargets(kind="score"), SCORE) == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:reduction. 'mean'")
def test_the_code_of_patient_distillation_divides_by_the_classes_too():
    """Its F.kl_div takes the mean over all entries: our mean over the rows with a weight of 1 / classes."""
    found = {name: x[REAL] for name, x in tensors(CLASSES, "classes").items()}
    released = functional.kl_div(
        functional.log_softmax(found["student"] / 5.0, -1),
        functional.softmax(found["teacher"] / 5.0, -1),
        reduction="mean",
    )
    term = TaskTargets(temperature=5.0)
    ours = value(term, CLASSES) / int(term.count(BATCH))
    assert ours / 3 == pytest.approx(5.0**2 * float(released), rel=1e-5)


def test_at_temperature_1_the_gradient_is_tinybert_s():
    def ours(x):
        return TaskTargets()({}, CLASSES | {"student": CLASSES["student"]._replace(classes=x)}, BATCH, {})[0]

    student, teacher = (torch.from_numpy(np.array(CLASSES[name].classes)) for name in ("student", "teacher"))
    student.requires_grad_()
    cross = -(functional.softmax(teacher, -1) * functional.log_softmax(student, -1)).sum(-1)
    cross[torch.from_numpy(REAL)].sum().backward()
    np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(CLASSES["student"].classes)), student.grad, atol=1e-6)


@pytest.mark.parametrize("kind", ["classes", "score", "spans"])
def test_empty_rows_and_the_teacher_have_no_gradient(kind):
    outputs = SCORE if kind == "score" else CLASSES

    def total(found):
        every = {name: outputs[name]._replace(**part) for name, part in found.items()}
        both = TaskLoss(kind=kind), TaskTargets(kind=kind, temperature=3.0)
        return sum(term({}, every, BATCH, {})[0] for term in both)

    given = {name: {"classes": jnp.asarray(x.classes), "spans": jnp.asarray(x.spans)} for name, x in outputs.items()}
    found = jax.grad(total)(given)
    used = found["student"]["spans" if kind == "spans" else "classes"]
    assert np.isfinite(used).all() and np.any(used[0]) and not np.any(used[2])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["teacher"]))


def test_what_does_not_fit_is_refused():
    models = {"student": BERT, "teacher": BERT}
    bare = dataclasses.replace(BERT, classifier=())
    other = dataclasses.replace(BERT, classifier=("a", "c", "b"))
    for term, changed, match in (
        (TaskLoss(), {"student": bare}, "'student' has no head for classes"),
        (TaskLoss(kind="spans"), {}, "'student' has no head for spans"),
        (TaskLoss(kind="score"), {}, "tells 3 classes apart"),
        (TaskLoss(kind="words"), {}, "choose classes, score or spans"),
        (TaskLoss(weight=-1.0), {}, "at least 0"),
        (TaskTargets(), {"teacher": other}, "both must be the task's"),
        (TaskTargets(temperature=0.0), {}, "above 0"),
    ):
        with pytest.raises(UserError, match=match):
            term.check(models | changed)
