"""Where a model's parameters start: at random, or from a Hugging Face folder or hub id."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxdistill import bert
from jaxdistill.errors import UserError


@dataclasses.dataclass(frozen=True)
class Random:
    """Truncated normal 0.02, as BERT starts."""

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape."""
        return bert.init(config, key)


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
        from jaxdistill.hf import read_hf

        found = read_hf(self.source, revision=self.revision, mlm=config.mlm, pooler=config.pooler)
        for name in ("vocab", "hidden", "layers", "heads", "ffn", "positions", "types"):
            if getattr(found.config, name) != getattr(config, name):
                raise UserError(
                    f"{self.source} has {name}={getattr(found.config, name)}, the model of this run "
                    f"{name}={getattr(config, name)}: start from a model of the same shape"
                )
        return jax.tree.map(jnp.asarray, found.params)


Start = Random | FromHuggingFace
