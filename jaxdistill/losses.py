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


def divergence(teacher: Array, student: Array, temperature: float) -> Array:
    """T²·KL(softmax(teacher/T) ‖ softmax(student/T)) over the last axis of logits [..., classes]: float32 [...]."""
    teacher, student = (jax.nn.log_softmax(x.astype(jnp.float32) / temperature) for x in (teacher, student))
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)


def top_divergence(top: Array, chances: Array, student: Array, temperature: float) -> Array:
    """`divergence` with the teacher's best classes each on its own and all others as one class: float32 [...].

    Args:
      top: the teacher's best classes, int [..., k].
      chances: logarithms of its softmax at this temperature, of these and of all others together, [..., k + 1].
      student: logits [..., classes].
      temperature: of both.
    """
    student, chances = student.astype(jnp.float32) / temperature, chances.astype(jnp.float32)
    top = top.astype(jnp.int32)
    rest = jnp.put_along_axis(student, top, -jnp.inf, axis=-1, inplace=False)
    own = jnp.concatenate(
        [jnp.take_along_axis(student, top, axis=-1), jax.nn.logsumexp(rest, axis=-1, keepdims=True)], axis=-1
    )
    own = own - jax.nn.logsumexp(student, axis=-1, keepdims=True)
    return temperature**2 * jnp.sum(jnp.exp(chances) * (chances - own), axis=-1)


def squared_distance(states: Array, target: Array, mask: Array) -> Array:
    """Squares [stack, batch, length, hidden], mean over the width, summed where mask [batch, length] holds: float32."""
    squares = jnp.mean(jnp.square(states.astype(jnp.float32) - target.astype(jnp.float32)), axis=-1)
    return jnp.sum(jnp.where(mask[None], squares, 0.0))


def unit(x: Array) -> Array:
    """Vectors of length 1 along the last axis, float32; a zero vector stays, with a gradient of 0."""
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
