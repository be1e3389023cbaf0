import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def draws(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def nats_of(logits, target) -> float:
    """−log softmax(logits)[target] of one position, as plain Python."""
    most = max(float(x) for x in logits)
    return math.log(sum(math.exp(float(x) - most) for x in logits)) + most - float(logits[target])


def slopes(function, x, step=1e-4):
    """Central differences of a float64 function of one array."""
    x = np.asarray(x, np.float64)
    found = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        found[index] = (function(up) - function(down)) / (2 * step)
    return found


LOGITS, TARGETS = draws(2, 3, 7, scale=3.0), np.array([[0, 6, -1], [3, -1, 2]], np.int32)


def loop(logits, targets=TARGETS) -> float:
    return sum(nats_of(logits[place], targets[place]) for place in np.ndindex(*targets.shape) if targets[place] >= 0)


def test_cross_entropy_is_that_of_a_plain_loop():
    nats, right = losses.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(TARGETS))
    assert nats.dtype == right.dtype == jnp.float32
    for place in np.ndindex(2, 3):
        target = TARGETS[place]
        assert nats[place] == pytest.approx(nats_of(LOGITS[place], target) if target >= 0 else 0.0, rel=1e-5)
        assert bool(right[place]) == (target >= 0 and LOGITS[place].argmax() == target)


def test_gradient_of_cross_entropy_is_that_of_finite_differences():
    gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.asarray(TARGETS))[0].sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient, slopes(loop, LOGITS), atol=2e-6)
    assert not np.any(gradient[0, 2]) and not np.any(gradient[1, 1]), "no target, no gradient"


def test_cross_entropy_of_large_scores_is_finite():
    logits = jnp.asarray([[1e30, -1e30, 0.0], [-50.0, -50.0, -50.0]], jnp.float32)
    (nats, right), gradient = (
        losses.cross_entropy(logits, jnp.asarray([0, 1])),
        jax.grad(lambda x: losses.cross_entropy(x, jnp.asarray([0, 1]))[0].sum())(logits),
    )
    np.testing.assert_allclose(nats, [0.0, math.log(3)], rtol=1e-5)
    assert right.tolist() == [1.0, 1.0] and np.isfinite(gradient).all()


def test_cross_entropy_of_half_precision_is_computed_in_float32():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    nats, _ = losses.cross_entropy(half, jnp.asarray(TARGETS))
    assert nats.dtype == jnp.float32
    assert nats.sum() == pytest.approx(loop(np.asarray(half, np.float64)), rel=1e-5)


LEFT, KERNELS, RIGHT = draws(2, 3, seed=1), draws(4, 3, 5, seed=2), draws(5, 6, seed=3)


def projected(left, kernels, right):
    """left · kernel · right by four nested loops over a stack."""
    out = np.zeros((len(kernels), left.shape[0], right.shape[1]))
    for layer, a, b in np.ndindex(*out.shape):
        for i, j in np.ndindex(*kernels.shape[1:]):
            out[layer, a, b] += float(left[a, i]) * float(kernels[layer, i, j]) * float(right[j, b])
    return out


def test_project_is_that_of_a_plain_loop():
    found = losses.project(*map(jnp.asarray, (LEFT, KERNELS, RIGHT)))
    np.testing.assert_allclose(found, projected(LEFT, KERNELS, RIGHT), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradient_of_project_is_that_of_finite_differences(which):
    arguments = [LEFT, KERNELS, RIGHT]

    def total(x, project=projected):
        changed = [*arguments[:which], x, *arguments[which + 1 :]]
        return (project(*changed) ** 2).sum()

    gradient = jax.grad(lambda x: total(x, losses.project))(jnp.asarray(arguments[which]))
    expected = slopes(total, arguments[which])
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_mean_squares_is_one_mean_for_each_of_a_stack():
    found = losses.mean_squares(jnp.asarray(KERNELS))
    assert found.dtype == jnp.float32
    for layer, kernel in enumerate(KERNELS):
        assert found[layer] == pytest.approx(sum(float(x) ** 2 for x in kernel.flat) / 15, rel=1e-5)
    gradient = jax.grad(lambda x: losses.mean_squares(x).sum())(jnp.asarray(KERNELS))
    np.testing.assert_allclose(gradient, 2 * KERNELS / 15, rtol=1e-5)
