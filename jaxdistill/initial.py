"""Where a model's parameters start: at random, or from a Hugging Face folder or hub id."""

import dataclasses
import hashlib
import pathlib
import warnings

import jax
import jax.numpy as jnp

from jaxdistill import bert, files, hf_files
from jaxdistill.errors import UserError
from jaxdistill.hf import read_hf


@dataclasses.dataclass(frozen=True)
class Random:
    """Truncated normal 0.02, as BERT starts."""

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape."""
        return bert.init(config, key)

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
