"""Shared projections between the parameters of teacher and student."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdistill import bert, losses, tree
from jaxdistill.errors import UserError
from jaxdistill.terms.maps import layer_map
from jaxdistill.terms.term import Array, Models, Sums, Weight, check_models, check_weight

_PARTS = (
    (r"embeddings/word|mlm/bias|(pooler|nsp)/.*", None),
    (r"embeddings/(position|type)", "embeddings"),
    (r".*/kernel", "kernels"),
    (r".*", "vectors"),
)
"""Which part of a projection a parameter is, by name: the first match holds; kernels are always projected."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """Shared projections between the parameters of teacher and student (1909.11687, section 3.2).

    down: Σ ‖U θ_t V − θ_s‖²; up: Σ ‖θ_t − V θ_s U‖², over the kernels of the encoder layers and of the MLM transform,
    layer by layer. One pair of matrices per *shape class*, a pair of logical axes such as hidden→ffn, shared by all
    variables of the class. Text and formula of the paper differ in the number of elements; here it is the mean of
    squares of each variable, summed over variables. No gradient is stopped.

    Attributes:
      direction: `down` or `up`.
      weight: multiplies the sum.
      vectors: include biases and LayerNorm parameters (one matrix per width).
      embeddings: include position and token-type tables (one matrix, on the width).
    """

    direction: Literal["down", "up"]
    weight: Weight = 1.0
    vectors: bool = False
    embeddings: bool = False
    teacher: str = "teacher"
    student: str = "student"

    def check(self, models: Models) -> None:
        """Raises UserError when a model is missing, or the student's depth does not divide the teacher's."""
        if self.direction not in ("down", "up"):
            raise UserError(f"projection direction {self.direction!r}: choose down or up")
        check_weight(self.weight)
        check_models(models, "a projection", self.teacher, self.student)
        layer_map("uniform", models[self.teacher].layers, models[self.student].layers)

    def _shape_class(self, name: str) -> tuple[str, ...] | None:
        """The logical axes on which a parameter is projected; None when the term leaves it out."""
        part = tree.first_match(_PARTS, name)
        if part is None or not getattr(self, part, True):
            return None
        return tree.first_match(bert.AXES, name)[-2 if part == "kernels" else -1 :]

    def _pairs(self, params: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Array, Array]]:
        """(shape class, source stack, target stack) of every variable that both models have; the source is projected.

        What is no stack of layers is a stack of one; of tables, the rows that both have.
        """
        teacher, student = tree.flatten(params[self.teacher]), tree.flatten(params[self.student])
        depths = [len(flat["layers/query/kernel"]) for flat in (teacher, student)]
        pairs = []
        for name, small in student.items():
            axes = self._shape_class(name)
            if axes is None or name not in teacher:
                continue
            big = teacher[name]
            if name.startswith("layers/"):
                big = big[jnp.asarray(layer_map("uniform", *depths))]
            else:
                rows = min(len(big), len(small)) if name.startswith("embeddings/") and small.ndim == 2 else None
                big, small = big[None, :rows], small[None, :rows]
            pairs.append((axes, big, small) if self.direction == "down" else (axes, small, big))
        return pairs

    def init(self, key: Array, params: Mapping[str, Any]) -> dict:
        """Xavier-uniform matrices by shape class: `left` [target in, source in], `right` [source out, target out]."""
        xavier = jax.nn.initializers.glorot_uniform()
        bridge: dict[str, dict[str, Array]] = {}
        for axes, source, target in self._pairs(params):
            name = "_".join(axes)
            if name in bridge:
                continue
            left_key, right_key = jax.random.split(jax.random.fold_in(key, len(bridge)))
            bridge[name] = {"right": xavier(right_key, (source.shape[-1], target.shape[-1]))}
            if len(axes) == 2:
                bridge[name]["left"] = xavier(left_key, (target.shape[1], source.shape[1]))
        return bridge

    def parameters(self, params: Mapping[str, Any], bridge: Mapping[str, Any]) -> Sums:
        """The sum over variables of the mean squared residual, and what tells a fit from a collapse.

        Returns:
          The sum; per shape class, `explained` 1 − ‖residual‖²/‖target‖², `size` ‖projected‖/‖target‖ (both are 0 where
          the target is 0, as new biases are) and `norm` ‖target‖. `down` has a zero of its loss for every U and V, even
          0: when student and map shrink together, only the norm shows it.
        """
        total = jnp.zeros(())
        squares: dict[str, list[Array]] = {}
        for axes, source, target in self._pairs(params):
            name = "_".join(axes)
            matrices = bridge[name]
            if len(axes) == 2:
                projected = losses.project(matrices["left"], source, matrices["right"])
            else:
                projected = jnp.matmul(source, matrices["right"], precision="highest")
            residual = projected - target
            total = total + jnp.sum(losses.mean_squares(residual))
            parts = [jnp.sum(jnp.square(x)) for x in (residual, projected, target)]
            squares[name] = [a + b for a, b in zip(squares.get(name, [jnp.zeros(())] * 3), parts, strict=True)]
        metrics = {}
        for name, (residual, projected, target) in squares.items():
            whole = jnp.maximum(target, jnp.finfo(jnp.float32).tiny)
            metrics[f"explained/{name}"] = jnp.where(target > 0, 1 - residual / whole, 0.0)
            metrics[f"size/{name}"] = jnp.where(target > 0, jnp.sqrt(projected / whole), 0.0)
            metrics[f"norm/{name}"] = jnp.sqrt(target)
        return total, metrics
