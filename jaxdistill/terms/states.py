"""Hidden states of the student that follow the teacher's."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdistill import losses
from jaxdistill.errors import UserError
from jaxdistill.terms.following import Following
from jaxdistill.terms.maps import Kind, layer_map
from jaxdistill.terms.term import Array, Models, Outputs, Sums
from jaxdistill.terms.words import Align, check_align, in_both, pooling
from jaxdistill.tree import Tree

_WIDER = "HiddenStates learns a map between widths"


@dataclasses.dataclass(frozen=True)
class HiddenStates(Following):
    """TinyBERT's MSE(H_s·W_h, H_t) of mapped layers and MSE(E_s·W_e, E_t) of the embeddings (arXiv 1909.10351).

    Mean over real positions and the teacher's width, summed over the layers. The learned maps widen the student's
    states, and are thrown away after training.

    Attributes:
      layers: which teacher layer each student layer follows; None leaves the layers out.
      embeddings: the output of the embedding layer too.
      released: one map with a bias for everything, as in the authors' code; the paper has W_h and W_e, without biases.
      align: `pieces` compares position by position. Where the views cut words otherwise, `first` compares the states
        of each word's first piece, `mean` their means over its pieces; masks must then be of whole words.
    """

    layers: Kind | None = "uniform"
    embeddings: bool = True
    released: bool = False
    align: Align = "pieces"

    def check(self, models: Models) -> None:
        """Raises UserError when depths can't be mapped, or nothing is left to follow."""
        super().check(models)
        if self.layers is None and not self.embeddings:
            raise UserError("hidden states to follow without layers and without embeddings: choose one at least")
        check_align(self.align)
        if self.layers is not None:
            layer_map(self.layers, models[self.teacher].layers, models[self.student].layers)

    def init(self, key: Array, params: Tree) -> dict:
        """The maps: `kernel` [student width, teacher width] of `layers` and `embeddings`, or of `all` with a `bias`."""
        shape = tuple(params[name]["embeddings"]["word"].shape[1] for name in (self.student, self.teacher))
        xavier = jax.nn.initializers.glorot_uniform()
        if self.released:
            return {"all": {"kernel": xavier(key, shape), "bias": jnp.zeros(shape[1])}}
        keys = dict(zip(("layers", "embeddings"), jax.random.split(key), strict=True))
        used = {"layers": self.layers is not None, "embeddings": self.embeddings}
        return {name: {"kernel": xavier(keys[name], shape)} for name in used if used[name]}

    def want(self) -> dict[str, frozenset[str]]:
        """The hidden states of every layer, the output of the embedding layer, or both."""
        return self.wants(*["hidden"] * (self.layers is not None), *["embeddings"] * self.embeddings)

    def _real(self, batch: Tree) -> Array:
        if self.align == "pieces":
            return batch[self.student]["mask"]
        return in_both(batch, self.teacher, self.student)

    def count(self, batch: Tree) -> Array:
        """Real positions in the batch, or words that both views have pieces of."""
        return jnp.sum(self._real(batch))

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed squares, also of `layers` and `embeddings` on their own."""
        teacher, student = outputs[self.teacher], outputs[self.student]
        pairs = {}
        if self.layers is not None:
            chosen = jnp.asarray(layer_map(self.layers, len(teacher.hidden), len(student.hidden)))
            pairs["layers"] = teacher.hidden[chosen], student.hidden
        if self.embeddings:
            pairs["embeddings"] = teacher.embeddings[None], student.embeddings[None]
        found, real = {}, self._real(batch)
        if self.align != "pieces":
            pools = [pooling(batch[name], self.align) for name in (self.teacher, self.student)]
            pairs = {
                name: [jnp.einsum("bwl,nblh->nbwh", pool, x) for pool, x in zip(pools, both, strict=True)]
                for name, both in pairs.items()
            }
        for name, (target, states) in pairs.items():
            learned = bridge["all" if self.released else name]
            mapped = states.astype(jnp.float32) @ learned["kernel"]
            if self.released:
                mapped = mapped + learned["bias"][None, None, None]
            found[name] = losses.squared_distance(mapped, jax.lax.stop_gradient(target), real)
        return sum(found.values(), jnp.zeros(())), found


@dataclasses.dataclass(frozen=True)
class CosineStates(Following):
    """DistilBERT's 1 − cos of the last hidden states, mean over real positions (arXiv 1910.01108); of equal widths."""

    def check(self, models: Models) -> None:
        """Raises UserError when widths differ."""
        super().check(models)
        self.check_equal(models, "hidden", _WIDER)

    def want(self) -> dict[str, frozenset[str]]:
        """The last hidden states."""
        return self.wants("last")

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed distances."""
        target, states = jax.lax.stop_gradient(outputs[self.teacher].last), outputs[self.student].last
        cosine = jnp.sum(losses.unit(target) * losses.unit(states), axis=-1)
        return jnp.sum(jnp.where(batch[self.student]["mask"], 1 - cosine, 0.0)), {}


@dataclasses.dataclass(frozen=True)
class Patience(Following):
    """PKD's ‖h_s/‖h_s‖ − h_t/‖h_t‖‖² of the [CLS] states, summed over student layers 1 ... k−1 (arXiv 1908.09355).

    Mean over the examples; the authors' code takes the mean over layers and width too, so its β is larger by
    (k − 1)·width.

    Attributes:
      layers: `skip` follows teacher layers m·N/k, `last` the ones below the teacher's last.
      normalised: compare directions; False compares the states themselves.
    """

    layers: Literal["skip", "last"] = "skip"
    normalised: bool = True

    def _map(self, teacher_layers: int, student_layers: int) -> tuple[int, ...]:
        return layer_map("uniform" if self.layers == "skip" else "top", teacher_layers, student_layers)[:-1]

    def check(self, models: Models) -> None:
        """Raises UserError when widths differ or depths can't be mapped."""
        super().check(models)
        self.check_equal(models, "hidden", _WIDER)
        if self.layers not in ("skip", "last"):
            raise UserError(f"patience with layers={self.layers!r}: choose skip or last")
        if not self._map(models[self.teacher].layers, models[self.student].layers):
            raise UserError("patience compares all layers of the student but its last: give it 2 layers at least")

    def want(self) -> dict[str, frozenset[str]]:
        """The [CLS] states of every layer."""
        return self.wants("first")

    def count(self, batch: Tree) -> Array:
        """Examples in the batch."""
        return jnp.sum(batch[self.student]["mask"][:, 0])

    def __call__(self, params: Tree, outputs: Outputs, batch: Tree, bridge: Tree) -> Sums:
        """The summed squares."""
        teacher, student = outputs[self.teacher].first, outputs[self.student].first
        chosen = jnp.asarray(self._map(len(teacher), len(student)))
        target, states = (x.astype(jnp.float32) for x in (teacher[chosen], student[:-1]))
        if self.normalised:
            target, states = losses.unit(target), losses.unit(states)
        squares = jnp.sum(jnp.square(states - jax.lax.stop_gradient(target)), axis=(0, 2))
        return jnp.sum(jnp.where(batch[self.student]["mask"][:, 0], squares, 0.0)), {}
