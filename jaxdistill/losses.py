"""Losses as pure functions: arrays in, float32 out."""

import jax
import jax.numpy as jnp

Array = jax.Array


def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Negative log-likelihood in nats, and whether the target has the highest score.

    Args:
      logits: [..., classes].
      targets: class numbers, int [...]; negative where there is nothing to predict.

    Returns:
      Two float32 arrays [...], both 0 where there is no target.
    """
    logits = logits.astype(jnp.float32)
    real = targets >= 0
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    nats = jnp.where(real, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)
    return nats, jnp.where(real & (chosen >= jnp.max(logits, axis=-1)), 1.0, 0.0)


def project(left: Array, kernels: Array, right: Array) -> Array:
    """Multiplies left · kernel · right for every kernel of a stack, in full float32 precision.

    Args:
      left: [a, i].
      kernels: [stack, i, j].
      right: [j, b].

    Returns:
      [stack, a, b].
    """
    half = jnp.einsum("lij,jb->lib", kernels, right, precision="highest")
    return jnp.einsum("ai,lib->lab", left, half, precision="highest")


def mean_squares(x: Array) -> Array:
    """For a stack of variables [stack, ...], the mean of squares of each: float32 [stack]."""
    return jnp.mean(jnp.square(x.astype(jnp.float32)), axis=tuple(range(1, x.ndim)))
