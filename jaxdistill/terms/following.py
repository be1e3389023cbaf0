"""What terms have in common in which one view, the student's, follows another, the teacher's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxdistill.errors import UserError
from jaxdistill.terms.term import Array, Models, Weight, check_models, check_weight


@dataclasses.dataclass(frozen=True)
class Following:
    """A mean over the real positions of two views of the same pieces with the same masks, without helper parameters.

    The teacher gets no gradient.
    """

    teacher: str = "teacher"
    student: str = "student"
    weight: Weight = 1.0

    def check(self, models: Models) -> None:
        """Raises UserError when a model is missing or the weight makes no sense."""
        check_weight(self.weight)
        check_models(models, type(self).__name__, self.teacher, self.student)

    def check_equal(self, models: Models, field: str, otherwise: str) -> None:
        """Raises UserError, which ends with `otherwise`, when a number of the two models' shapes differs."""
        teacher, student = (getattr(models[name], field) for name in (self.teacher, self.student))
        if teacher != student:
            raise UserError(
                f"{type(self).__name__} needs equal {field}: {self.teacher!r} has {teacher:,}, {self.student!r} "
                f"{student:,}. {otherwise}"
            )

    def init(self, key: Array, params: Mapping[str, Any]) -> dict:
        """No helper parameters."""
        return {}

    def wants(self, *names: str) -> dict[str, frozenset[str]]:
        """The same of both views."""
        return dict.fromkeys((self.teacher, self.student), frozenset(names))

    def want(self) -> dict[str, frozenset[str]]:
        """Nothing but what outputs always have."""
        return self.wants()

    def aligned(self) -> tuple[str, str]:
        """The two views, which must be the same pieces with the same masks."""
        return self.teacher, self.student

    def count(self, batch: Mapping[str, Any]) -> Array:
        """Real positions in the batch."""
        return jnp.sum(batch[self.student]["mask"])
