"""Dropout whose draws are hashes of a seed for each row, the site and the element.

A row keeps its draws whatever the micro-batch, the device or the process that computes it, and the backward pass draws
them again instead of storing them.
"""

import functools
import math

import jax
import jax.numpy as jnp

Array = jax.Array


def hash32(x: Array) -> Array:
    """A bijective hash of uint32 words (the constants of lowbias32, bias 0.17)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def row_seeds(seed: Array | int, step: Array | int, rows: Array, stream: int) -> Array:
    """Seeds of dropout, uint32 [batch], for global row numbers [batch] at a step; a stream is one model."""
    x = hash32(jnp.asarray(seed, jnp.uint32) + jnp.uint32(0x9E3779B9) * jnp.uint32(stream + 1))
    return hash32(hash32(x ^ jnp.asarray(step, jnp.uint32)) + hash32(rows.astype(jnp.uint32)))


def dropout(x: Array, seeds: Array | None, site: Array | int, rate: float) -> Array:
    """Inverted dropout whose draws are a function of (row seed, site, element) alone.

    Args:
      x: [batch, ...].
      seeds: uint32 [batch], or None for no dropout.
      site: which of the model's dropouts this is.
      rate: the share set to zero.
    """
    if seeds is None or not rate:
        return x
    return _dropout(x, hash32(seeds ^ hash32(jnp.asarray(site, jnp.uint32) + jnp.uint32(0x5BD1E995))), rate)


def _drop(x: Array, seeds: Array, rate: float) -> Array:
    inner = x.shape[1:]
    counter = jax.lax.iota(jnp.uint32, math.prod(inner)).reshape(inner)
    rows = seeds.reshape((-1,) + (1,) * len(inner))
    keep = hash32(rows + counter[None] * jnp.uint32(0x9E3779B9)) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropout(x, seeds, rate):
    return _drop(x, seeds, rate)


_dropout.defvjp(
    lambda x, seeds, rate: (_drop(x, seeds, rate), seeds),
    lambda rate, seeds, gradient: (_drop(gradient, seeds, rate), None),
)
