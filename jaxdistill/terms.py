"""Loss terms that a config can name.

A term is anything with the attributes of `BatchTerm` or of `ParameterTerm`, such as a frozen dataclass; these two are
for typing and are no base classes. The step divides the sum of a term on a batch by its count over the whole global
batch, so accumulation, padding and sharding change nothing but rounding; a term on parameters is added once per step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from jaxdistill import bert, losses, tree
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed

Array = jax.Array
Models = Mapping[str, bert.BertConfig]
Sums = tuple[Array, dict[str, Array]]


class _Term(Protocol):
    @property
    def weight(self) -> float:
        """What its mean, or its value, is multiplied by in the loss."""

    def check(self, models: Models) -> None:
        """Raises UserError when it can't be used with these models."""

    def init(self, key: Array, params: Mapping[str, Any]) -> dict:
        """Its helper parameters, kept in `params["bridge"][name]`; {} when it has none."""


class BatchTerm(_Term, Protocol):
    """A term on a batch.

    It may have `want()` (which of `hidden` and `scores` it reads, by model), and `model` and `mixed`: when `model` is
    the one that reads a mixed view, `mixed` must be the experiment's, else None.
    """

    def count(self, batch: Mapping[str, Any]) -> Array:
        """Its denominator, from the batch alone."""

    def __call__(
        self, params: Mapping[str, Any], outputs: Mapping[str, bert.Outputs], batch: Mapping[str, Any]
    ) -> Sums:
        """A float32 sum, and further sums over the same count by name."""


class ParameterTerm(_Term, Protocol):
    """A term on parameters alone."""

    def parameters(self, params: Mapping[str, Any], bridge: Mapping[str, Any]) -> Sums:
        """A value, and metrics by name; `bridge` are its helper parameters."""


Term = BatchTerm | ParameterTerm


def uniform_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Teacher layers (from 0) that the student's layers follow, evenly spread: g(m) = m·N/M (TinyBERT, section 3).

    Raises:
      UserError: M does not divide N.
    """
    if teacher_layers % student_layers:
        raise UserError(
            f"{teacher_layers} teacher layers cannot be spread evenly over {student_layers} student layers: "
            f"choose a student depth that divides {teacher_layers}"
        )
    step = teacher_layers // student_layers
    return tuple(step * (layer + 1) - 1 for layer in range(student_layers))


@dataclasses.dataclass(frozen=True)
class MaskedLM:
    """Cross-entropy of the masked positions of one model's view, in nats; mean over the global batch.

    With `mixed`, each position is scored only against the vocabulary its word was cut with (1909.11687: two softmaxes).
    """

    model: str
    weight: float = 1.0
    mixed: Mixed | None = None

    def check(self, models: Models) -> None:
        """Raises UserError when the model is missing or has no MLM head."""
        if self.model not in models:
            raise UserError(f"a masked-LM term names the model {self.model!r}; the models are {sorted(models)}")
        if not models[self.model].mlm:
            raise UserError(f"a masked-LM term needs an MLM head, which {self.model!r} does not have: set mlm=True")

    def init(self, key: Array, params: Mapping[str, Any]) -> dict:
        """No helper parameters: the map of a mixed view belongs to `Mixed`."""
        return {}

    def want(self) -> dict[str, frozenset[str]]:
        """Which of `hidden` and `scores` it reads, by model."""
        return {self.model: frozenset()}

    def count(self, batch: Mapping[str, Any]) -> Array:
        """Masked positions in the batch."""
        return jnp.sum(batch[self.model]["targets"] >= 0)

    def __call__(
        self, params: Mapping[str, Any], outputs: Mapping[str, bert.Outputs], batch: Mapping[str, Any]
    ) -> Sums:
        """The summed cross-entropy, and how many positions were right (`accuracy`)."""
        view, own = batch[self.model], params[self.model]
        predictions, targets = outputs[self.model].predictions, view["targets"]
        scores = bert.logits(predictions, own["embeddings"]["word"], own["mlm"]["bias"])
        if self.mixed is None:
            nats, right = losses.cross_entropy(scores, targets)
        else:
            other = view["target_source"] == 1
            bias = params[tree.BRIDGE]["mixed"]["output_bias"]
            other_scores = bert.logits(predictions, self.mixed.table(params), bias)
            own_nats, own_right = losses.cross_entropy(scores, jnp.where(other, -1, targets))
            other_nats, other_right = losses.cross_entropy(other_scores, jnp.where(other, targets, -1))
            nats, right = own_nats + other_nats, own_right + other_right
        return jnp.sum(nats), {"accuracy": jnp.sum(right)}


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
    weight: float = 1.0
    vectors: bool = False
    embeddings: bool = False
    teacher: str = "teacher"
    student: str = "student"

    def check(self, models: Models) -> None:
        """Raises UserError when a model is missing, or the student's depth does not divide the teacher's."""
        if self.direction not in ("down", "up"):
            raise UserError(f"projection direction {self.direction!r}: choose down or up")
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"projection weight {self.weight}: it must be a number of at least 0")
        for role in (self.teacher, self.student):
            if role not in models:
                raise UserError(f"a projection names the model {role!r}; the models are {sorted(models)}")
        uniform_map(models[self.teacher].layers, models[self.student].layers)

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
                big = big[jnp.asarray(uniform_map(*depths))]
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
