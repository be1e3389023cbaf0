"""Dropout's draws: their rate, scale, independence and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.dropout import dropout, row_seeds


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_has_its_rate_and_scale(rate):
    x = jnp.ones((64, 50, 40))
    seeds = row_seeds(3, 7, jnp.arange(64), 0)
    dropped = np.asarray(dropout(x, seeds, 5, rate))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / (1 - rate))}
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs((dropped == 0).mean() - rate) < 4 * deviation
    for axis in ((1, 2), (0, 2), (0, 1)):  # no row, position or column has a rate of its own
        shares = (dropped == 0).mean(axis=axis)
        spread = np.sqrt(rate * (1 - rate) / (x.size / shares.size))
        assert np.abs(shares - rate).max() < 5 * spread


def test_dropout_draws_are_independent_of_each_other():
    rows = jnp.arange(64)
    shape = (64, 2000)

    def mask(seed=3, step=7, stream=0, site=5):
        return np.asarray(dropout(jnp.ones(shape), row_seeds(seed, step, rows, stream), site, 0.5)) == 0

    base = mask()
    for other in (mask(seed=4), mask(step=8), mask(stream=1), mask(site=6), np.roll(base, 1, 0), np.roll(base, 1, 1)):
        agreement = (base == other).mean()
        assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(base.size)


def test_dropout_passes_the_gradient_it_let_through():
    x = jax.random.normal(jax.random.key(0), (4, 30))
    seeds = row_seeds(0, 0, jnp.arange(4), 0)
    gradient = jax.grad(lambda x: dropout(x, seeds, 1, 0.3).sum())(x)
    assert np.array_equal(gradient == 0, dropout(x, seeds, 1, 0.3) == 0)
    np.testing.assert_allclose(gradient[gradient != 0], 1 / 0.7, rtol=1e-6)


def test_no_seeds_or_no_rate_is_no_dropout():
    x = jnp.arange(6.0).reshape(2, 3)
    assert dropout(x, None, 0, 0.5) is x
    assert dropout(x, row_seeds(0, 0, jnp.arange(2), 0), 0, 0.0) is x
