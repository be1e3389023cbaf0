"""The shape of a BERT."""

import dataclasses
from collections.abc import Sequence

from jaxdistill.errors import UserError

SCORE = "score"
"""The name of the only class of a classifier that gives a score."""


def match(classes: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Where each of the wanted classes is among others, by name or else by name in any case; None if not all are."""
    for spelled in (str, str.casefold):
        names, asked = [spelled(name) for name in classes], [spelled(name) for name in wanted]
        if sorted(set(names)) == sorted(asked) and len(names) == len(asked):
            return [names.index(name) for name in asked]
    return None


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape of one BERT.

    Attributes:
      vocab: rows of the word-embedding table.
      hidden: width of the hidden states; `heads` must divide it.
      layers: encoder layers.
      heads: attention heads.
      ffn: width of the feed-forward layer.
      positions: rows of the position table, the longest input.
      types: rows of the token-type table; 0 leaves it out.
      mlm: has a masked-LM head (transform, bias; the decoder is the word table).
      pooler: has a pooler over [CLS].
      nsp: has a next-sentence head (needs the pooler).
      pooling: what the pooler ends with: `tanh` as BERT, `relu` as DistilBERT, or `tanh-relu` as TinyBERT's classifier.
      classifier: names of the classes that a head over the pooler tells apart; one name is a score; none is no head.
      spans: has a head that says where an answer starts and ends.
      dropout: rate on embeddings and sub-layer outputs.
      attention_dropout: rate on attention probabilities.
      eps: added to the variance in every LayerNorm.
      attention: `plain`, or `fused` (no attention dropout, no scores; `attention_kernel` says what computes it).
      dtype: type of the computation, `float32` or `bfloat16`.

    Raises:
      UserError: the numbers do not describe a BERT.
    """

    vocab: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int = 512
    types: int = 2
    mlm: bool = True
    pooler: bool = False
    nsp: bool = False
    pooling: str = "tanh"
    classifier: tuple[str, ...] = ()
    spans: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    eps: float = 1e-12
    attention: str = "plain"
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("vocab", "hidden", "layers", "heads", "ffn", "positions"):
            if getattr(self, name) < 1:
                raise UserError(f"a BERT with {name}={getattr(self, name)}: it must be at least 1")
        if self.hidden % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide the width {self.hidden}: choose a divisor")
        if self.types < 0:
            raise UserError(f"a BERT with types={self.types}: it must be 0 (no token types) or more")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not a rate: it must be at least 0 and below 1")
        if self.attention not in ("plain", "fused"):
            raise UserError(f"attention={self.attention!r}: choose plain or fused")
        if self.attention == "fused" and self.attention_dropout:
            raise UserError("fused attention has no dropout: set attention_dropout to 0, or attention to plain")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"dtype={self.dtype!r}: choose float32 or bfloat16")
        object.__setattr__(self, "classifier", tuple(self.classifier))
        if (self.nsp or self.classifier) and not self.pooler:
            raise UserError("a next-sentence head and a classifier read the pooler: set pooler=True too")
        if self.pooling not in ("tanh", "relu", "tanh-relu"):
            raise UserError(f"pooling={self.pooling!r}: choose tanh, relu or tanh-relu")
        if len(set(self.classifier)) < len(self.classifier):
            raise UserError(f"a classifier of {', '.join(self.classifier)}: a class is named twice")
