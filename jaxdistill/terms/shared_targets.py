"""Soft targets between two vocabularies: over the pieces that both have, of words that both cut alike."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import bert, losses
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.terms.following import Following
from jaxdistill.terms.term import Array, Models, Outputs, Sums
from jaxdistill.tree import Tree


@dataclasses.dataclass(frozen=True)
class SharedTargets(Following):
    """T²·KL of the softmaxes at T over the pieces that both vocabularies have, each renormalised over these.

    Mean over the masked pieces of words that every vocabulary in play cuts alike; masks must be of whole words. No
    paper that we know of has it for masked language models.

    Attributes:
      temperature: T; T² keeps the gradient in proportion when T changes.
    """

    temperature: float = 2.0

    align = "words"
    mixed = None

    @property
    def model(self) -> str:
        """The view that must not be mixed: only the teacher's own vocabulary is scored."""
        return self.teacher

    def check(self, models: Models) -> None:
        """Raises UserError when a head is missing or the temperature makes no sense."""
        super().check(models)
        if not 0 < self.temperature < math.inf:
            raise UserError(f"soft targets with temperature={self.temperature}: it must be above 0")
        for name in (self.teacher, self.student):
            if not models[name].mlm:
                raise UserError(f"soft targets need an MLM head, which {name!r} does not have: set mlm=True")

    def constants(self, vocabularies: Mapping[str, Vocabulary]) -> dict[str, np.ndarray]:
        """The ids of the shared pieces under each vocabulary, in the same order; specials are left out.

        Raises:
          UserError: there is none.
        """
        teacher, student = vocabularies[self.teacher], vocabularies[self.student]
        specials = {student.pieces[number] for number in student.specials}
        own = {piece: number for number, piece in enumerate(teacher.pieces)}
        both = [(own[p], number) for number, p in enumerate(student.pieces) if p in own and p not in specials]
        if not both:
            raise UserError(f"the vocabularies of {self.teacher!r} and {self.student!r} have no piece in common")
        return {
            name: np.array(ids, np.int32)
            for name, ids in zip(("teacher", "student"), zip(*both, strict=True), strict=True)
        }

    def want(self) -> dict[str, frozenset[str]]:
        """The MLM transform at the masked positions."""
        return self.wants("predictions")

    def count(self, batch: Tree) -> Array:
        """Masked pieces of words that are cut alike."""
        return jnp.sum(batch[self.student]["same"])

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed divergence; at how many pieces both agree on the best; the share of such targets among all."""
        views = [batch[name] for name in (self.teacher, self.student)]
        teacher, student = (_place(view) for view in views)
        twins = student[:, :, None] == teacher[:, None, :]
        twins &= views[1]["same"][:, :, None] & (views[0]["targets"] >= 0)[:, None, :]
        vectors = jnp.einsum("bij,bjh->bih", twins.astype(jnp.float32), outputs[self.teacher].predictions)
        scores = []
        for name, role, found in (
            ("teacher", self.teacher, vectors),
            ("student", self.student, outputs[self.student].predictions),
        ):
            own, ids = params[role], bridge[name]
            scores.append(bert.logits(found, own["embeddings"]["word"][ids], own["mlm"]["bias"][ids]))
        target, real = jax.lax.stop_gradient(scores[0]), views[1]["same"]
        nats = losses.divergence(target, scores[1], self.temperature)
        alike = jnp.argmax(target, -1) == jnp.argmax(scores[1], -1)
        whole = jnp.sum(real.astype(jnp.float32)), jnp.sum((views[1]["targets"] >= 0).astype(jnp.float32))
        agreement = jnp.sum(jnp.where(real & alike, 1.0, 0.0))
        return jnp.sum(jnp.where(real, nats, 0.0)), {"agreement": agreement, "share": whole}


def _place(view: Mapping[str, Array]) -> Array:
    """A number for each slot that says which piece of which word it is, the same in every view, [batch, slots]."""
    words, length = view["words"], view["words"].shape[1]
    first = jnp.cumsum(words[:, :, None] == jnp.arange(length)[None, None], axis=1)
    ordinal = jnp.take_along_axis(first, jnp.maximum(words, 0)[:, :, None], axis=2)[:, :, 0]
    return jnp.take_along_axis(words * length + ordinal, view["positions"], axis=1)
