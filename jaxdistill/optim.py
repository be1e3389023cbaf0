"""Optimizers by name of parameter: AdamW and LAMB from optax's parts, one per tree that trains."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxdistill import tree
from jaxdistill.errors import UserError

EXEMPT = r"(.*/)?[^/]*(bias|scale)"
"""Names of parameters without weight decay and without LAMB's trust ratio: biases and LayerNorm."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How one tree is updated.

    Attributes:
      name: `adamw` or `lamb` (You et al., arXiv 1904.00962).
      learning_rate: the peak.
      warmup: share of the steps over which the rate rises from 0.
      decay: `linear` to 0 at the last step, or `constant` after the warm-up.
      weight_decay: on kernels and tables, never on biases and LayerNorm.
      clip: largest global norm of the tree's gradient; 0 does not clip.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.

    Raises:
      UserError: a number makes no sense.
    """

    name: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = 1e-4
    warmup: float = 0.1
    decay: Literal["linear", "constant"] = "linear"
    weight_decay: float = 0.01
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6

    def __post_init__(self):
        if self.name not in ("adamw", "lamb"):
            raise UserError(f"optimizer {self.name!r}: choose adamw or lamb")
        if self.decay not in ("linear", "constant"):
            raise UserError(f"decay {self.decay!r}: choose linear or constant")
        for field, fits, bounds in (
            ("learning_rate", self.learning_rate >= 0, "at least 0"),
            ("warmup", 0 <= self.warmup <= 1, "a share of the steps, from 0 to 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("clip", self.clip >= 0, "a norm, or 0 for none"),
            ("b1", 0 <= self.b1 < 1, "at least 0 and below 1"),
            ("b2", 0 <= self.b2 < 1, "at least 0 and below 1"),
            ("eps", self.eps >= 0, "at least 0"),
        ):
            if not fits:
                raise UserError(f"{field}={getattr(self, field)}: it must be {bounds}")


def schedule(settings: Optimizer, steps: int) -> Callable[[Any], Any]:
    """The learning rate at a step counted from 0: warm-up from rate/warm-up steps, then linear to 0 or constant."""
    warm = round(settings.warmup * steps)

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        rising = (step + 1) / max(warm, 1)
        falling = (steps - step) / max(steps - warm, 1) if settings.decay == "linear" else 1.0
        return settings.learning_rate * jnp.clip(jnp.where(step < warm, rising, falling), 0.0, 1.0)

    return rate


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """LAMB's ratio ‖w‖/‖u‖, for each layer of a stack on its own; 1 for biases, LayerNorm and zero norms."""

    def ratio(name, update, parameter):
        if re.fullmatch(EXEMPT, name):
            return update
        axes = tuple(range(1, update.ndim)) if name.startswith("layers/") else None
        norms = [jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True)) for x in (parameter, update)]
        usable = (norms[0] > 0) & (norms[1] > 0)
        return update * jnp.where(usable, norms[0] / jnp.where(usable, norms[1], 1.0), 1.0)

    def update(updates, state, params):
        flat = tree.flatten(params)
        return tree.map_names(lambda name, leaf: ratio(name, leaf, flat[name]), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _chain(settings: Optimizer, steps: int, decayed: bool) -> optax.GradientTransformation:
    parts = [optax.clip_by_global_norm(settings.clip)] if settings.clip else []
    parts.append(optax.scale_by_adam(settings.b1, settings.b2, settings.eps))
    if settings.weight_decay and decayed:
        mask = lambda params: tree.map_names(lambda name, _: not re.fullmatch(EXEMPT, name), params)  # noqa: E731
        parts.append(optax.add_decayed_weights(settings.weight_decay, mask))
    if settings.name == "lamb":
        parts.append(scale_by_trust_ratio())
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule(settings, steps)))


def make(optimizers: Mapping[str, Optimizer], steps: int) -> dict[str, optax.GradientTransformation]:
    """One optax transformation per tree that trains, by its role; the bridge is never decayed."""
    return {role: _chain(settings, steps, role != tree.BRIDGE) for role, settings in optimizers.items()}


def update(
    transforms: Mapping[str, optax.GradientTransformation], gradients: dict, state: dict, trained: dict
) -> tuple[dict, dict, dict[str, jax.Array]]:
    """Clips and applies each tree's gradient on its own.

    Returns:
      The new trees, the new optimizer states, and each tree's gradient norm before clipping.
    """
    new_trained, new_state, norms = {}, {}, {}
    for role in trained:
        norms[role] = optax.tree.norm(gradients[role])
        updates, new_state[role] = transforms[role].update(gradients[role], state[role], trained[role])
        new_trained[role] = optax.apply_updates(trained[role], updates)
    return new_trained, new_state, norms
