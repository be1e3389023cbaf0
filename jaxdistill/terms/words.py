"""Two views by word, where each cuts the words in its own way; masks are of whole words, the same in both."""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from jaxdistill.errors import UserError
from jaxdistill.terms.term import Array

Align = Literal["pieces", "first", "mean"]


def check_align(align: Align) -> None:
    """Raises UserError for an alignment that there is not."""
    if align not in ("pieces", "first", "mean"):
        raise UserError(f"align={align!r}: choose pieces, first or mean")


def pooling(view: Mapping[str, Array], align: Align) -> Array:
    """Weights of the pieces of each word: of its first one, or all in equal parts.

    Args:
      view: with `words`, the place of each piece's word, -1 for specials, int32 [batch, length].
      align: `first` or `mean`.

    Returns:
      float32 [batch, words, length], with room for as many words as positions; 0 for words without pieces.
    """
    words = view["words"]
    own = words[:, None, :] == jnp.arange(words.shape[1])[None, :, None]
    if align == "first":
        return (own & (jnp.cumsum(own, axis=-1) == 1)).astype(jnp.float32)
    return own / jnp.maximum(jnp.sum(own, axis=-1, keepdims=True), 1).astype(jnp.float32)


def in_both(batch: Mapping[str, Any], *views: str) -> Array:
    """Words of which every view has a piece, bool [batch, words]."""
    found = [jnp.any(pooling(batch[view], "first") > 0, axis=-1) for view in views]
    return jnp.logical_and(*found)
