"""Attention scores of the student that follow the teacher's."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxdistill.terms.following import Following
from jaxdistill.terms.maps import Kind, layer_map
from jaxdistill.terms.term import Array, Models, Outputs, Sums
from jaxdistill.terms.words import Align, check_align, in_both, pooling
from jaxdistill.tree import Tree


@dataclasses.dataclass(frozen=True)
class AttentionScores(Following):
    """TinyBERT's (1/h)·Σ MSE of the scores QKᵀ/√d before the softmax (arXiv 1909.10351), summed over mapped layers.

    Mean over pairs of a real query and a real key only; the authors' code averages over padding too, which is the same
    where there is none.

    Attributes:
      layers: which teacher layer each student layer follows.
      align: see `HiddenStates`; by word, scores of its pieces as a query and as a key are taken together.
    """

    layers: Kind = "uniform"
    align: Align = "pieces"

    def check(self, models: Models) -> None:
        """Raises UserError when heads differ in number, or depths can't be mapped."""
        super().check(models)
        check_align(self.align)
        self.check_equal(models, "heads", "Give the student as many heads, or leave the attention term out")
        layer_map(self.layers, models[self.teacher].layers, models[self.student].layers)

    def want(self) -> dict[str, frozenset[str]]:
        """The attention scores of every layer."""
        return self.wants("scores")

    def _real(self, batch: Tree) -> Array:
        if self.align == "pieces":
            return batch[self.student]["mask"]
        return in_both(batch, self.teacher, self.student)

    def count(self, batch: Tree) -> Array:
        """Pairs of real positions of one row, or of words, in the batch; float32, for they are many."""
        return jnp.sum(jnp.square(jnp.sum(self._real(batch), axis=1).astype(jnp.float32)))

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed squares, mean over heads."""
        teacher, student = outputs[self.teacher].scores, outputs[self.student].scores
        teacher = teacher[jnp.asarray(layer_map(self.layers, len(teacher), len(student)))]
        if self.align != "pieces":
            pools = [pooling(batch[name], self.align) for name in (self.teacher, self.student)]
            teacher, student = (
                jnp.einsum("bvl,nbhlm,bwm->nbhvw", pool, x, pool)
                for pool, x in zip(pools, (teacher, student), strict=True)
            )
        real = self._real(batch)
        pairs = (real[:, :, None] & real[:, None, :])[None, :, None]
        squares = jnp.where(pairs, jnp.square(student - jax.lax.stop_gradient(teacher)), 0.0)
        return jnp.sum(squares) / student.shape[2], {}
