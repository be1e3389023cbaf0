"""Where a model's parameters start: at random, or from a Hugging Face folder or hub id."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import bert, files, hf_files
from jaxdistill.errors import UserError
from jaxdistill.hf import read_hf

_WORDS = 0.05
"""Deviation of the word table: at BERT's 0.02, Adam's first steps drown what it started with."""
_POSITIONS = 0.12
"""Root mean square of the position table: above the words', so that scores are of positions first."""
_GAIN = 3.6
"""Over size^¼, so that a neighbour's score is the same for heads of any size."""


def neighbour_heads(params: dict, heads: int) -> dict:
    """Turns BERT's start into one whose first-layer heads look at the positions −1, +1, −2, +2, ... from their own.

    A small BERT answers with the commonest word until it has found its neighbours, which outlasts a training of minutes
    (docs/results.md). Here positions are sinusoids (Vaswani et al., arXiv 1706.03762), a range of frequencies for each
    head; a step to a neighbour is then a rotation, which is added to the queries, and the identity to the keys. Only
    the word and position tables and these two kernels change.

    Args:
      params: from `bert.init`.
      heads: attention heads; their size must be even.
    """
    tables, layers = params["embeddings"], params["layers"]
    positions, width = tables["position"].shape
    pairs = width // 2
    frequency = np.geomspace(1.5, np.pi / positions, pairs).reshape(-1, heads).T.ravel()
    offset = np.array([(head // 2 + 1) * (-1 if head % 2 == 0 else 1) for head in range(heads)])
    turn = frequency * np.repeat(offset, pairs // heads)
    angle = np.arange(positions)[:, None] * frequency
    waves = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(positions, width)
    gain = _GAIN / (width // heads) ** 0.25
    even, odd = np.arange(0, width, 2), np.arange(1, width, 2)
    rotation = np.zeros((width, width))
    rotation[even, even] = rotation[odd, odd] = np.cos(turn)
    rotation[odd, even], rotation[even, odd] = np.sin(turn), -np.sin(turn)
    added = {"query": gain * rotation, "key": gain * np.eye(width)}
    moved = {
        name: layers[name] | {"kernel": layers[name]["kernel"].at[0].add(matrix)} for name, matrix in added.items()
    }
    table = {
        "word": tables["word"] * (_WORDS / bert.DEVIATION),
        "position": jnp.asarray(_POSITIONS * 2**0.5 * waves, jnp.float32),
    }
    return params | {"embeddings": tables | table, "layers": layers | moved}


@dataclasses.dataclass(frozen=True)
class Random:
    """Truncated normal 0.02, as BERT starts.

    Attributes:
      neighbours: start with `neighbour_heads`, for short training.
    """

    neighbours: bool = False

    def check(self, config: bert.BertConfig) -> None:
        """Raises UserError when heads of an odd size are to start with neighbours."""
        size = config.hidden // config.heads
        if self.neighbours and size % 2:
            raise UserError(f"{config.heads} heads of size {size}: to start with neighbours their size must be even")

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape."""
        self.check(config)
        params = bert.init(config, key)
        return neighbour_heads(params, config.heads) if self.neighbours else params

    def pin(self, commit: str | None) -> "Random":
        """Nothing to pin."""
        return self

    def contents(self) -> str:
        """Nothing is read, so there is nothing to hash."""
        return ""


@dataclasses.dataclass(frozen=True)
class FromHuggingFace:
    """The weights of a model folder or hub id, pinned to a revision.

    Attributes:
      source: a folder or a hub id.
      revision: a commit of the hub's repository; None for a folder.
    """

    source: str
    revision: str | None = None

    def check(self, config: bert.BertConfig) -> None:
        """Nothing yet: the shapes are compared when the weights are read."""

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape; a head that the source lacks starts at random.

        Raises:
          UserError: the source has another shape.
        """
        seed = int(jax.random.bits(key, dtype=jnp.uint32))
        found = read_hf(self.source, revision=self.revision, mlm=config.mlm, pooler=config.pooler, seed=seed)
        if found.fresh:
            heads = " and ".join(found.fresh)
            warnings.warn(f"{self.source} has no weights for {heads}: fresh ones start at random", stacklevel=2)
        for name in ("vocab", "hidden", "layers", "heads", "ffn", "positions", "types", "eps"):
            if getattr(found.config, name) != getattr(config, name):
                raise UserError(
                    f"{self.source} has {name}={getattr(found.config, name)}, the model of this run "
                    f"{name}={getattr(config, name)}: start from a model of the same shape"
                )
        return jax.tree.map(jnp.asarray, found.params)

    def pin(self, commit: str | None) -> "FromHuggingFace":
        """With the hub's commit as its revision: the one asked for, else the given one, else the newest."""
        if pathlib.Path(self.source).is_dir():
            return self
        _, found = hf_files.locate(self.source, self.revision or commit, ["config.json"])
        return dataclasses.replace(self, revision=found)

    def contents(self) -> str:
        """A hash over a folder's weights; empty for the hub, where the revision says it."""
        folder = pathlib.Path(self.source)
        if not folder.is_dir():
            return ""
        hf_files.tensors(folder, self.source)  # Raises now, not when training starts, if the weights can't be read.
        weights = sorted(folder.glob("*.safetensors"))
        return hashlib.sha256("".join(files.sha256(path) for path in weights).encode()).hexdigest() if weights else ""


Start = Random | FromHuggingFace


def recorded(fields: Mapping[str, Any]) -> Start:
    """The start that a run's manifest names."""
    kinds = {kind.__name__: kind for kind in (Random, FromHuggingFace)}
    return kinds[fields["type"]](**{name: value for name, value in fields.items() if name != "type"})
