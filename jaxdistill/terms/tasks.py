"""The losses of a task: the right classes, scores or answers, and those that a fine-tuned teacher gives."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.errors import UserError
from jaxdistill.terms.following import Following
from jaxdistill.terms.term import Array, Models, Outputs, Sums, Weight, check_models, check_weight
from jaxdistill.tree import Tree

Kind = Literal["classes", "score", "spans"]


def _check_kind(models: Models, name: str, kind: str) -> None:
    if kind not in ("classes", "score", "spans"):
        raise UserError(f"a task of {kind!r}: choose classes, score or spans")
    shape = models[name]
    if not (shape.spans if kind == "spans" else shape.classifier):
        raise UserError(f"{name!r} has no head for {kind}: set {'spans' if kind == 'spans' else 'classifier'}")
    if kind == "score" and len(shape.classifier) != 1:
        raise UserError(f"{name!r} tells {len(shape.classifier)} classes apart: a score is of one")


def _spans(outputs: Tree, batch: Tree) -> Array:
    """Scores of starts and ends as [batch, 2, length]; padding can be neither."""
    return jnp.where(batch["mask"][:, None], jnp.swapaxes(outputs.spans, 1, 2), -1e9)


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """The loss of fine-tuning (Devlin et al., arXiv 1810.04805), mean over the rows.

    Cross-entropy of the right class; the squared error of a score; of an answer, half the sum of the cross-entropies
    of its start and its end.

    Attributes:
      model: the view.
      kind: of the task.
      weight: of the term.
    """

    model: str = "student"
    kind: Kind = "classes"
    weight: Weight = 1.0

    mixed = None

    def check(self, models: Models) -> None:
        """Raises UserError when the model has no head for the task."""
        check_weight(self.weight)
        check_models(models, type(self).__name__, self.model)
        _check_kind(models, self.model, self.kind)

    def init(self, key: Array, params: Tree) -> dict:
        """No helper parameters."""
        return {}

    def want(self) -> dict[str, frozenset[str]]:
        """What its head says, which outputs always have."""
        return {self.model: frozenset()}

    def count(self, batch: Tree) -> Array:
        """Rows that are not empty."""
        return jnp.sum(batch[self.model]["mask"][:, 0])

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed loss; of classes also how many were right."""
        view, found = batch[self.model], outputs[self.model]
        if self.kind == "score":
            error = jnp.square(found.classes[:, 0] - view["score"])
            return jnp.sum(jnp.where(view["mask"][:, 0], error, 0.0)), {}
        if self.kind == "spans":
            nats, _ = losses.cross_entropy(_spans(found, view), view["spans"])
            return jnp.sum(nats) / 2, {}
        nats, right = losses.cross_entropy(found.classes, view["classes"])
        return jnp.sum(nats), {"accuracy": jnp.sum(right)}


@dataclasses.dataclass(frozen=True)
class TaskTargets(Following):
    """T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)) of the task's scores, mean over the rows (arXiv 1503.02531).

    Of answers, half the sum over start and end; of a score, the squared difference, where T plays no part. At T = 1
    its gradient is that of TinyBERT's −softmax(z_t)·log softmax(z_s) (arXiv 1909.10351). PKD's code divides by rows ×
    classes instead.

    Attributes:
      kind: of the task.
      temperature: T.
    """

    kind: Kind = "classes"
    temperature: float = 1.0

    def check(self, models: Models) -> None:
        """Raises UserError when a head is missing, classes differ, or the temperature makes no sense."""
        super().check(models)
        if not 0 < self.temperature < math.inf:
            raise UserError(f"soft targets with temperature={self.temperature}: it must be above 0")
        for name in (self.teacher, self.student):
            _check_kind(models, name, self.kind)
        teacher, student = (models[name].classifier for name in (self.teacher, self.student))
        if teacher != student:
            raise UserError(f"the teacher's classes are {teacher}, the student's {student}: both must be the task's")

    def count(self, batch: Tree) -> Array:
        """Rows that are not empty."""
        return jnp.sum(batch[self.student]["mask"][:, 0])

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed divergence; of classes also how often both have the same best (`agreement`)."""
        real, found = batch[self.student]["mask"][:, 0], outputs[self.student]
        given = jax.lax.stop_gradient(outputs[self.teacher])
        if self.kind == "score":
            error = jnp.square(found.classes[:, 0] - given.classes[:, 0])
            return jnp.sum(jnp.where(real, error, 0.0)), {}
        if self.kind == "spans":
            target, scores = (_spans(x, batch[self.student]) for x in (given, found))
            nats = jnp.sum(losses.divergence(target, scores, self.temperature), axis=-1) / 2
            return jnp.sum(jnp.where(real, nats, 0.0)), {}
        nats = losses.divergence(given.classes, found.classes, self.temperature)
        same = jnp.argmax(given.classes, -1) == jnp.argmax(found.classes, -1)
        return jnp.sum(jnp.where(real, nats, 0.0)), {"agreement": jnp.sum(jnp.where(real & same, 1.0, 0.0))}
