"""What a loss term is.

A term is anything with the attributes of `BatchTerm` or of `ParameterTerm`, such as a frozen dataclass; these two are
for typing and are no base classes. The step divides the sum of a term on a batch by its count over the whole global
batch, so accumulation, padding and sharding change nothing but rounding; a term on parameters is added once per step.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, Protocol

import jax
import jax.numpy as jnp

from jaxdistill import bert
from jaxdistill.errors import UserError
from jaxdistill.tree import Tree

Array = jax.Array
Models = Mapping[str, bert.BertConfig]
Outputs = Mapping[str, bert.Outputs]
Sums = tuple[Array, dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A weight that changes: `first` up to step `begin`, `last` from step `end` on, in between along a line or cosine.

    Raises:
      UserError: the numbers make no sense.
    """

    first: float
    last: float
    begin: int
    end: int
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self):
        if self.shape not in ("linear", "cosine"):
            raise UserError(f"a weight along a {self.shape!r}: choose linear or cosine")
        if not 0 <= self.begin < self.end:
            steps = f"from step {self.begin} to {self.end}"
            raise UserError(f"a weight that changes {steps}: steps count from 0, and the end comes later")
        for value in (self.first, self.last):
            check_number(value)

    def __call__(self, step: Array) -> Array:
        """The weight at a step, float32."""
        share = jnp.clip((step - self.begin) / (self.end - self.begin), 0.0, 1.0)
        if self.shape == "cosine":
            share = (1 - jnp.cos(jnp.pi * share)) / 2
        return self.first + (self.last - self.first) * share


Weight = float | Ramp


def weight_at(weight: Weight, step: Array) -> Array | float:
    """A weight at a step, counted from 0."""
    return weight(step) if isinstance(weight, Ramp) else weight


def check_number(weight: float) -> None:
    """Raises UserError for a weight that is negative or not finite."""
    if not 0 <= weight < math.inf:
        raise UserError(f"weight {weight}: it must be a number of at least 0")


def check_weight(weight: Weight) -> None:
    """Raises UserError for a weight that no loss can have; a ramp was checked when it was built."""
    if not isinstance(weight, Ramp):
        check_number(weight)


def check_models(models: Models, what: str, *names: str) -> None:
    """Raises UserError when a term names a model that there is not."""
    for name in names:
        if name not in models:
            raise UserError(f"{what} names the model {name!r}; the models are {sorted(models)}")


class _Term(Protocol):
    @property
    def weight(self) -> Weight:
        """What its mean, or its value, is multiplied by in the loss."""

    def check(self, models: Models) -> None:
        """Raises UserError when it can't be used with these models."""

    def init(self, key: Array, params: Tree) -> dict:
        """Its helper parameters, kept in `params["bridge"][name]`; {} when it has none."""


class BatchTerm(_Term, Protocol):
    """A term on a batch.

    It may have `want()`: which views it reads, and of each which of `hidden`, `scores` and `transformed`; `model` and
    `mixed`: when the view `model` is mixed, `mixed` must be the experiment's, else None; `aligned()`: two views
    that must be the same pieces with the same masks, unless `align` is not `pieces`; and `constants(vocabularies)`,
    arrays from the vocabularies by view, which come with its helper parameters.
    """

    def count(self, batch: Tree) -> Array:
        """Its denominator, from the batch alone."""

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """A float32 sum, and by name further sums over the same count or (sum, count); `bridge` are its helpers."""


class ParameterTerm(_Term, Protocol):
    """A term on parameters alone."""

    def parameters(self, params: Tree, bridge: Tree) -> Sums:
        """A value, and metrics by name; `bridge` are its helper parameters."""


Term = BatchTerm | ParameterTerm
