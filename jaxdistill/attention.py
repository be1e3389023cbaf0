"""What attention computes: scores, and the fused operation that never shows them."""

import math
import re

import jax
import jax.numpy as jnp

from jaxdistill.bert_config import BertConfig

Array = jax.Array


def attention_scores(query: Array, key: Array) -> Array:
    """QKᵀ/√d for query and key [batch, length, heads, size]: float32 [batch, heads, length, length]."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    return scores / math.sqrt(query.shape[-1])


def attention_kernel(config: BertConfig) -> str:
    """What computes the attention of a model here: `plain`; for fused attention `cudnn` where it can, else `xla`.

    cuDNN's flash attention never forms the scores. It takes 16-bit numbers and heads whose size is a multiple of 8, at
    most 128, on NVIDIA chips from Ampere on. We had none: that path was not run, only this choice and the same call
    with XLA were tested.
    """
    if config.attention == "plain":
        return "plain"
    size = config.hidden // config.heads
    if jax.default_backend() != "gpu" or config.dtype != "bfloat16" or size % 8 or size > 128:
        return "xla"
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))  # AMD's are no numbers
    return "cudnn" if re.fullmatch(r"([89]|\d\d)\.\d", capability) else "xla"


def fused_attention(query: Array, key: Array, value: Array, mask: Array, kernel: str) -> Array:
    """Attention as one operation of jax's: softmax(QKᵀ/√d)·V over the real positions, 0 at the others.

    Args:
      query: [batch, length, heads, size].
      key: the same shape.
      value: the same shape.
      mask: True where a piece is real, which must be a row's first positions, bool [batch, length].
      kernel: `xla` or `cudnn`.
    """
    lengths = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(
        query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation=kernel
    )
