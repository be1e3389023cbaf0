"""A model that reads two vocabularies: its own, and another model's through an affine map of that model's table.

Zhao et al. (arXiv 1909.11687) train the teacher on text in which each word is cut with either vocabulary. The paper
does not say how a student piece enters the teacher; here, as in the authors' later mixed-vocabulary work, the student's
row goes through a trained affine map, and the same mapped table is the teacher's output layer for student pieces. Each
masked position is scored against one vocabulary, never against their union.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdistill import bert, tree
from jaxdistill.errors import UserError

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Which model reads a mixed view, and whose vocabulary is mixed in.

    Attributes:
      reader: the model that reads both vocabularies (the teacher).
      other: the model whose vocabulary is mixed in (the student).
      shared: the other model's own word table is mapped (the coupling of the two models); False gives the reader a
        separate table for those pieces, for ablation.
    """

    reader: str = "teacher"
    other: str = "student"
    shared: Annotated[bool, "map the student's word table into the teacher, instead of a separate table"] = True

    def check(self, models: Mapping[str, bert.BertConfig]) -> None:
        """Raises UserError when a model is missing or has no MLM head."""
        for role in (self.reader, self.other):
            if role not in models:
                raise UserError(f"mixed input needs a model named {role!r}; the models are {sorted(models)}")
        if not models[self.reader].mlm:
            raise UserError(f"mixed input scores both vocabularies, but {self.reader!r} has no MLM head")

    def init(self, key: Array, params: Mapping[str, Any]) -> dict:
        """The bridge: a map (or table) whose rows start with the reader's mean row norm, and an output bias."""
        own = params[self.reader]["embeddings"]["word"]
        other = params[self.other]["embeddings"]["word"]
        target = jnp.mean(jnp.linalg.norm(own, axis=-1))
        bridge = {"output_bias": jnp.zeros(other.shape[0])}
        if not self.shared:
            table = jax.random.normal(key, (other.shape[0], own.shape[1]))
            return bridge | {"table": table * target / jnp.mean(jnp.linalg.norm(table, axis=-1))}
        kernel = jax.nn.initializers.glorot_uniform()(key, (other.shape[1], own.shape[1]))
        norm = jnp.mean(jnp.linalg.norm(jnp.matmul(other, kernel, precision="highest"), axis=-1))
        return bridge | {"map": {"kernel": kernel * target / norm, "bias": jnp.zeros(own.shape[1])}}

    def table(self, params: Mapping[str, Any]) -> Array:
        """The other vocabulary's rows as the reader sees them, [other vocabulary, hidden]."""
        bridge = params[tree.BRIDGE]["mixed"]
        if not self.shared:
            return bridge["table"]
        rows = params[self.other]["embeddings"]["word"]
        return rows @ bridge["map"]["kernel"] + bridge["map"]["bias"][None]

    def bias(self, params: Mapping[str, Any]) -> Array:
        """The output bias of the other vocabulary's pieces, [other vocabulary]."""
        return params[tree.BRIDGE]["mixed"]["output_bias"]

    def words(self, params: Mapping[str, Any], view: Mapping[str, Array]) -> Array:
        """Word vectors of a mixed view, [batch, length, hidden]: each id in the table that `source` names."""
        other = view["source"] == 1
        own = params[self.reader]["embeddings"]["word"][jnp.where(other, 0, view["ids"])]
        mapped = self.table(params)[jnp.where(other, view["ids"], 0)]
        return jnp.where(other[..., None], mapped, own)
