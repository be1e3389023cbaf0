import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_models import STUDENT, random_params

from jaxdistill import optim, tree
from jaxdistill.errors import UserError
from jaxdistill.optim import Optimizer

KINDS = r"embeddings/(word|norm/scale)|layers/(query/.*|ffn_out/kernel|attention_norm/scale)|mlm/bias"
PARAMS = tree.split(random_params(STUDENT, 1), lambda name: bool(re.fullmatch(KINDS, name)))[0]
STEPS = 10


def gradients(seed: int, scale: float = 0.1) -> dict:
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (draw.normal(size=x.shape) * scale).astype(np.float32), PARAMS)


def run(settings: Optimizer, role: str = "student", params=PARAMS, count: int = 3, scale: float = 0.1):
    """Parameters after some updates of one tree."""
    transforms = optim.make({role: settings}, STEPS)
    trained, state = {role: params}, {role: transforms[role].init(params)}
    step = jax.jit(lambda *arguments: optim.update(transforms, *arguments))
    for seed in range(count):
        trained, state, _ = step({role: gradients(seed, scale)}, state, trained)
    return trained[role]


def exempt(name: str) -> bool:
    return name.split("/")[-1] in ("bias", "scale")


def close(found, expected, rtol=2e-5):
    found, expected = tree.flatten(found), tree.flatten(expected)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=1e-7, err_msg=name)


def lamb(parameter, gradient, settings, rate, name, norm):
    """LAMB's first step for one variable (You et al., algorithm 2) in float64; the moments start at 0."""
    w, g = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64) * min(1.0, settings.clip / norm)
    first, second = (1 - settings.b1) * g, (1 - settings.b2) * g**2
    r = first / (1 - settings.b1) / (np.sqrt(second / (1 - settings.b2)) + settings.eps)
    if exempt(name):
        return w - rate * r
    u = r + settings.weight_decay * w
    return w - rate * np.sqrt((w**2).sum()) / np.sqrt((u**2).sum()) * u


def test_one_step_of_lamb_is_that_of_the_paper_for_each_layer():
    settings = Optimizer("lamb", 0.02, warmup=0.0, weight_decay=0.05, clip=0.5)
    found, grads = tree.flatten(run(settings, count=1)), tree.flatten(gradients(0))
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    assert norm > settings.clip
    for name, parameter in tree.flatten(PARAMS).items():
        if name.startswith("layers/"):
            pairs = zip(parameter, grads[name], strict=True)
            expected = np.stack([lamb(w, g, settings, 0.02, name, norm) for w, g in pairs])
        else:
            expected = lamb(parameter, grads[name], settings, 0.02, name, norm)
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6, err_msg=name)


def unstacked(params) -> dict:
    """Every layer's variables on their own, as in a model that does not scan."""
    flat = {}
    for name, leaf in tree.flatten(params).items():
        if name.startswith("layers/"):
            flat |= {f"layer{index}/{name}": leaf[index] for index in range(len(leaf))}
        else:
            flat[name] = leaf
    return flat


def test_lamb_on_stacked_layers_is_optax_on_the_layers_one_by_one():
    settings = Optimizer("lamb", 0.02, warmup=0.3, weight_decay=0.05, clip=0.5)

    def kernels(params):
        return {name: not exempt(name) for name in params}

    reference = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.scale_by_adam(0.9, 0.999, 1e-6),
        optax.add_decayed_weights(0.05, kernels),
        optax.masked(optax.scale_by_trust_ratio(), kernels),
        optax.scale_by_learning_rate(lambda step: 0.02 * jnp.asarray([1 / 3, 2 / 3, 1.0])[step]),
    )
    params = unstacked(PARAMS)
    state = reference.init(params)
    for seed in range(3):
        updates, state = jax.jit(reference.update)(unstacked(gradients(seed)), state, params)
        params = optax.apply_updates(params, updates)
    close(unstacked(run(settings)), params)


def test_adamw_is_that_of_optax_with_a_mask():
    settings = Optimizer("adamw", 0.01, warmup=0.0, decay="constant", weight_decay=0.1, clip=0.0, b2=0.98, eps=1e-5)
    reference = optax.adamw(
        0.01, 0.9, 0.98, 1e-5, weight_decay=0.1, mask=lambda params: tree.map_names(lambda n, _: not exempt(n), params)
    )
    params, state = PARAMS, reference.init(PARAMS)
    for seed in range(3):
        updates, state = reference.update(gradients(seed), state, params)
        params = optax.apply_updates(params, updates)
    close(run(settings), params)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_decay_is_for_kernels_and_tables_of_models_alone(name):
    settings = Optimizer(name, 0.1, warmup=0.0, decay="constant", weight_decay=0.5)
    for parameter, leaf in tree.flatten(run(settings, count=1, scale=0.0)).items():
        assert np.array_equal(leaf, tree.flatten(PARAMS)[parameter]) == exempt(parameter), parameter
    close(run(settings, "bridge", count=1, scale=0.0), PARAMS, rtol=0)


def test_names_without_decay_or_trust_ratio():
    params = {"a": {"kernel": np.full((2, 2), 3.0), "bias": np.full(2, 3.0)}, "scale": np.full(2, 3.0)}
    params |= {"mixed": {"output_bias": np.full(2, 3.0)}, "zero": {"kernel": np.zeros((2, 2))}}
    updates = jax.tree.map(lambda x: np.full(x.shape, 0.5), params)
    found, _ = optim.scale_by_trust_ratio().update(updates, optax.EmptyState(), params)
    means = {name: float(np.mean(leaf)) for name, leaf in tree.flatten(found).items()}
    assert means == {"a/kernel": 3.0, "a/bias": 0.5, "scale": 0.5, "mixed/output_bias": 0.5, "zero/kernel": 0.5}
    found, _ = optim.scale_by_trust_ratio().update(jax.tree.map(np.zeros_like, updates), optax.EmptyState(), params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found)), "a zero update has no ratio and stays zero"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {0: 0.1, 1: 0.2, 9: 1.0, 10: 1.0, 55: 0.5, 99: 1 / 90, 100: 0.0, 150: 0.0}),
        ({"decay": "constant"}, {0: 0.1, 9: 1.0, 10: 1.0, 55: 1.0, 99: 1.0}),
        ({"warmup": 0.0}, {0: 1.0, 50: 0.5, 99: 0.01}),
        ({"warmup": 1.0}, {0: 0.01, 49: 0.5, 99: 1.0}),
    ],
    ids=str,
)
def test_schedule_at_steps_computed_by_hand(settings, expected):
    rate = optim.schedule(Optimizer("lamb", 0.002, **{"warmup": 0.1} | settings), 100)
    for step, share in expected.items():
        assert float(rate(step)) == pytest.approx(0.002 * share, rel=1e-6), step


def test_each_tree_is_clipped_on_its_own():
    settings = {role: Optimizer("adamw", 0.01, 0.0, clip=1.0) for role in ("student", "teacher", "bridge")}
    transforms = optim.make(settings, STEPS)
    trained = {role: {"kernel": jnp.ones(4)} for role in settings}
    state = {role: transforms[role].init(trained[role]) for role in settings}
    grads = {
        "student": {"kernel": jnp.full(4, 0.25)},
        "teacher": {"kernel": jnp.full(4, 1e4)},
        "bridge": {"kernel": jnp.full(4, 3.0)},
    }
    _, after, norms = optim.update(transforms, grads, state, trained)
    assert {role: float(norm) for role, norm in norms.items()} == {"student": 0.5, "teacher": 2e4, "bridge": 6.0}
    moments = {role: float(optax.tree.get(after[role], "mu")["kernel"][0]) for role in settings}
    assert moments == pytest.approx({"student": 0.025, "teacher": 0.05, "bridge": 0.05}), "0.1 of the clipped gradient"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"name": "sgd"}, "choose adamw or lamb"),
        ({"decay": "cosine"}, "choose linear or constant"),
        ({"learning_rate": -1.0}, "^learning_rate=-1.0: it must be at least 0$"),
        ({"learning_rate": float("nan")}, "^learning_rate=nan: it must be at least 0$"),
        ({"warmup": 1.5}, "^warmup=1.5: it must be a share of the steps, from 0 to 1$"),
        ({"clip": -1.0}, "^clip=-1.0: it must be a norm, or 0 for none$"),
        ({"clip": float("nan")}, "^clip=nan"),
        ({"weight_decay": -0.1}, "^weight_decay=-0.1: it must be at least 0$"),
        ({"b1": 1.0}, "^b1=1.0: it must be at least 0 and below 1$"),
        ({"b2": -0.1}, "^b2=-0.1: it must be at least 0 and below 1$"),
        ({"eps": -1e-8}, "^eps=-1e-08: it must be at least 0$"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings, match):
    with pytest.raises(UserError, match=match):
        Optimizer(**settings)
