"""Soft targets: the student's distribution over the vocabulary follows the teacher's."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jaxdistill import bert, losses
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed
from jaxdistill.terms import chunks
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
        if not 0 < self.temperature < math.inf:
            raise UserError(f"soft targets with temperature={self.temperature}: it must be above 0")
        if self.chunk < 1:
            raise UserError(f"soft targets in chunks of {self.chunk} positions: take at least 1")
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
        where = "predictions" if self.masked_only else "transformed"
        found, parts = outputs[self.teacher], {"real": self._real(batch)}
        if found.top is None:
            function, shared = _whole, self.teacher_head(params)
            parts["vectors"] = getattr(found, where)
        else:
            function, shared = _cached, ()
            parts |= {"top": found.top, "chances": found.chances}
        nats, same = chunks.summed(
            functools.partial(function, self.temperature),
            self.chunk,
            _head(params, self.student),
            getattr(outputs[self.student], where),
            jax.lax.stop_gradient({"shared": shared, "parts": parts}),
        )
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

        found = jax.lax.map(best, chunks.cut(vectors, self.chunk))
        top, chances = (chunks.join(x, vectors.shape[1]) for x in found)
        return top, chances


def _head(params: Tree, name: str) -> tuple[Array, Array]:
    return params[name]["embeddings"]["word"], params[name]["mlm"]["bias"]


def _whole(temperature: float, head: tuple, vectors: Array, given: Tree) -> tuple[Array, Array]:
    """The teacher's logits are formed beside the student's."""
    scores, target = bert.logits(vectors, *head), bert.logits(given["parts"]["vectors"], *given["shared"])
    nats = losses.divergence(target, scores, temperature)
    return _sums(given, nats, jnp.argmax(target, -1) == jnp.argmax(scores, -1))


def _cached(temperature: float, head: tuple, vectors: Array, given: Tree) -> tuple[Array, Array]:
    """The teacher's best pieces were kept."""
    scores, parts = bert.logits(vectors, *head), given["parts"]
    nats = losses.top_divergence(parts["top"], parts["chances"], scores, temperature)
    return _sums(given, nats, parts["top"][..., 0] == jnp.argmax(scores, -1))


def _sums(given: Tree, nats: Array, same: Array) -> tuple[Array, Array]:
    real = given["parts"]["real"]
    return jnp.sum(jnp.where(real, nats, 0.0)), jnp.sum(jnp.where(real & same, 1.0, 0.0))
