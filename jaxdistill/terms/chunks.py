"""Sums over positions, some of each row at a time, so that logits of all positions never exist together."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdistill.tree import Tree

Array = jax.Array


def cut(x: Array, chunk: int) -> Array:
    """[batch, length, ...] → [chunks, batch, chunk, ...], padded with zeros; rows stay on their devices."""
    chunk = min(chunk, x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % chunk), *[(0, 0)] * (x.ndim - 2)))
    return jnp.swapaxes(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 0, 1)


def join(x: Array, length: int) -> Array:
    """Undoes `cut`."""
    return jnp.swapaxes(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def summed(function: Callable[..., tuple[Array, Array]], chunk: int, head: Tree, vectors: Array, given: Tree) -> tuple:
    """`function(head, vectors, given)`, two sums over positions of which the first has a gradient, chunk by chunk.

    The gradient is taken with each chunk's value, while its logits are there, so they are formed once and not kept.

    Args:
      function: closes over no traced arrays.
      chunk: positions of each row at a time.
      head: what `vectors` become logits with; has a gradient.
      vectors: [batch, length, hidden]; has a gradient.
      given: `shared`, the same for all chunks, and `parts`, arrays [batch, length, ...]; neither has a gradient.
    """

    def body(totals, part):
        found = function(head, part[0], {"shared": given["shared"], "parts": part[1]})
        return jax.tree.map(jnp.add, totals, found), None

    zero = jnp.zeros(())
    return jax.lax.scan(body, (zero, zero), _cut_all(chunk, vectors, given))[0]


def _forward(function, chunk, head, vectors, given):
    def body(carry, part):
        totals, by_head = carry
        found, (of_head, of_vectors) = jax.value_and_grad(function, argnums=(0, 1), has_aux=True)(
            head, part[0], {"shared": given["shared"], "parts": part[1]}
        )
        return jax.tree.map(jnp.add, (totals, by_head), (found, of_head)), of_vectors

    zero = jnp.zeros(())
    start = ((zero, zero), jax.tree.map(jnp.zeros_like, head))
    (totals, by_head), by_vectors = jax.lax.scan(body, start, _cut_all(chunk, vectors, given))
    return totals, (by_head, join(by_vectors, vectors.shape[1]))


def _backward(function, chunk, gradients, pulled):
    return *jax.tree.map(lambda x: (pulled[0] * x).astype(x.dtype), gradients), None


def _cut_all(chunk: int, vectors: Array, given: Tree) -> tuple[Array, Tree]:
    return jax.tree.map(lambda x: cut(x, chunk), (vectors, given["parts"]))


summed.defvjp(_forward, _backward)
