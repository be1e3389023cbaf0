"""Soft targets: the student's distribution over the vocabulary follows the teacher's."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxdistill import bert, losses
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed
from jaxdistill.terms.following import Following
from jaxdistill.terms.term import Array, Models, Outputs, Sums
from jaxdistill.tree import Tree


@dataclasses.dataclass(frozen=True)
class SoftTargets(Following):
    """T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)), summed over the vocabulary; mean over positions (arXiv 1503.02531).

    DistilBERT (arXiv 1910.01108) takes all real positions. Logits are formed for some positions of each row at a time,
    forward and backward, so the whole tensor of them never exists.

    Attributes:
      temperature: T; T² keeps the gradient in proportion when T changes.
      masked_only: the masked positions instead of all real ones.
      mixed: the teacher reads the student's pieces through `Mixed`, and is scored over them.
      chunk: positions of each row whose logits are formed together.
    """

    temperature: float = 2.0
    masked_only: bool = False
    mixed: Mixed | None = None
    chunk: int = 16

    @property
    def model(self) -> str:
        """The view that `mixed` is about."""
        return self.teacher

    def check(self, models: Models) -> None:
        """Raises UserError when the vocabularies differ, a head is missing or a number makes no sense."""
        super().check(models)
        if not 0 < self.temperature < math.inf or self.chunk < 1:
            raise UserError(f"soft targets with temperature={self.temperature}, chunk={self.chunk}: both are above 0")
        for name in (self.teacher, self.student):
            if not models[name].mlm:
                raise UserError(f"soft targets need an MLM head, which {name!r} does not have: set mlm=True")
        if self.mixed is None:
            self.check_equal(models, "vocab", "A teacher that reads mixed input can be scored over the student's")

    def want(self) -> dict[str, frozenset[str]]:
        """The MLM transform, at the masked positions or everywhere."""
        return self.wants() if self.masked_only else self.wants("transformed")

    def count(self, batch: Tree) -> Array:
        """Real positions in the batch, or masked ones."""
        return jnp.sum(self._real(batch))

    def _real(self, batch: Tree) -> Array:
        view = batch[self.student]
        return view["targets"] >= 0 if self.masked_only else view["mask"]

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed divergence, and at how many positions both have the same best piece (`agreement`)."""
        real, where = self._real(batch), "predictions" if self.masked_only else "transformed"
        head = _head(params, self.student)
        found, vectors = outputs[self.teacher], getattr(outputs[self.student], where)

        @jax.checkpoint
        def whole(vectors, real, teacher_vectors):
            scores = bert.logits(vectors, *head)
            target = jax.lax.stop_gradient(bert.logits(teacher_vectors, *self.teacher_head(params)))
            nats = losses.divergence(target, scores, self.temperature)
            return _sums(real, nats, jnp.argmax(target, -1) == jnp.argmax(scores, -1))

        @jax.checkpoint
        def cached(vectors, real, top, chances):
            scores = bert.logits(vectors, *head)
            nats = losses.top_divergence(top, chances, scores, self.temperature)
            return _sums(real, nats, top[..., 0] == jnp.argmax(scores, -1))

        sums, given = (whole, [getattr(found, where)]) if found.top is None else (cached, [found.top, found.chances])

        def body(totals, part):
            return jax.tree.map(jnp.add, totals, sums(*part)), None

        parts = [cut(x, self.chunk) for x in (vectors, real, *given)]
        (nats, same), _ = jax.lax.scan(body, (jnp.zeros(()), jnp.zeros(())), parts)
        return nats, {"agreement": same}

    def teacher_head(self, params: Tree) -> tuple[Array, Array]:
        """The table and bias that the teacher is scored with."""
        if self.mixed is not None:
            return self.mixed.table(params), self.mixed.bias(params)
        return _head(params, self.teacher)

    def top(self, params: Tree, outputs: bert.Outputs, count: int) -> tuple[Array, Array]:
        """For a cache: the teacher's best pieces, and the logarithms of their chances and of that of all others.

        Returns:
          int32 [batch, positions, count] and float32 [batch, positions, count + 1], at the term's temperature.
        """
        vectors, head = outputs.predictions if self.masked_only else outputs.transformed, self.teacher_head(params)

        def best(vectors):
            logs = jax.nn.log_softmax(bert.logits(vectors, *head) / self.temperature)
            chances, top = jax.lax.top_k(logs, count)
            rest = jnp.put_along_axis(logs, top, -jnp.inf, axis=-1, inplace=False)
            return top, jnp.concatenate([chances, jax.nn.logsumexp(rest, axis=-1, keepdims=True)], axis=-1)

        whole = [
            jnp.swapaxes(x, 0, 1).reshape(x.shape[1], -1, x.shape[3])[:, : vectors.shape[1]]
            for x in jax.lax.map(best, cut(vectors, self.chunk))
        ]
        return whole[0], whole[1]


def _head(params: Tree, name: str) -> tuple[Array, Array]:
    return params[name]["embeddings"]["word"], params[name]["mlm"]["bias"]


def _sums(real: Array, nats: Array, same: Array) -> tuple[Array, Array]:
    return jnp.sum(jnp.where(real, nats, 0.0)), jnp.sum(jnp.where(real & same, 1.0, 0.0))


def cut(x: Array, chunk: int) -> Array:
    """[batch, length, ...] → [pieces, batch, chunk, ...], padded with zeros; rows stay on their devices."""
    chunk = min(chunk, x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk), *[(0, 0)] * (x.ndim - 2)))
    return jnp.swapaxes(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 0, 1)
