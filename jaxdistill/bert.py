"""BERT as a pure function: one scanned encoder, an optional pooler, an MLM head on gathered positions.

Devlin et al. 2019 (arXiv 1810.04805). Parameters are a nested plain dict; those of the layers are stacked on a
leading axis, kernels are (in, out), and `AXES` names every parameter's axes. Computation runs in `BertConfig.dtype`;
parameters, normalisations, softmaxes and logits are float32.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill.attention import attention_kernel, attention_scores, fused_attention
from jaxdistill.bert_config import BertConfig
from jaxdistill.dropout import dropout
from jaxdistill.errors import UserError

Array = jax.Array


class Outputs(NamedTuple):
    """What a BERT computed; what was not asked for is None.

    Attributes:
      last: hidden states of the last layer, [batch, length, hidden].
      embeddings: output of the embedding layer, [batch, length, hidden].
      hidden: hidden states of every layer, [layers, batch, length, hidden].
      scores: attention scores QKᵀ/√d before mask and softmax, [layers, batch, heads, length, length], float32.
      first: hidden states of [CLS] in every layer, [layers, batch, hidden].
      pooled: the pooler's, [batch, hidden].
      classes: scores of the classifier's classes, [batch, classes], float32.
      spans: scores of an answer's start and end at every position, [batch, length, 2], float32.
      predictions: the MLM transform at the positions asked for, [batch, predictions, hidden].
      transformed: the MLM transform everywhere, [batch, length, hidden].
      top: what a cache has in the place of logits: the best pieces, [batch, length or predictions, k].
      chances: and the logarithms of their chances and of that of all others, [..., k + 1].
    """

    last: Array
    embeddings: Array
    hidden: Array | None = None
    scores: Array | None = None
    first: Array | None = None
    pooled: Array | None = None
    classes: Array | None = None
    spans: Array | None = None
    predictions: Array | None = None
    transformed: Array | None = None
    top: Array | None = None
    chances: Array | None = None


BY_LAYER = frozenset({"hidden", "scores", "first"})
"""Those that have the layers first."""

AXES = (
    (r"embeddings/word", ("vocab", "hidden")),
    (r"embeddings/position", ("positions", "hidden")),
    (r"embeddings/type", ("types", "hidden")),
    (r"layers/(query|key|value|attention_out)/kernel", ("layers", "hidden", "hidden")),
    (r"layers/ffn_in/kernel", ("layers", "hidden", "ffn")),
    (r"layers/ffn_in/bias", ("layers", "ffn")),
    (r"layers/ffn_out/kernel", ("layers", "ffn", "hidden")),
    (r"layers/.*/(bias|scale)", ("layers", "hidden")),
    (r"(mlm/transform|pooler)/kernel", ("hidden", "hidden")),
    (r"(nsp|classifier|spans)/kernel", ("hidden", "classes")),
    (r"(nsp|classifier|spans)/bias", ("classes",)),
    (r"mlm/bias", ("vocab",)),
    (r".*/(bias|scale)", ("hidden",)),
)
"""Logical axes of every parameter, by name: the first match holds."""


def gelu(x: Array) -> Array:
    """The exact GELU, x·Φ(x), computed in float32."""
    wide = x.astype(jnp.float32)
    # jax.nn.gelu has erfc in the place of 1 + erf: 20.0 ms for 17.7, both ways on [1024, 3072], on two CPU cores.
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def logits(predictions: Array, table: Array, bias: Array) -> Array:
    """Scores of every row of a word table: predictions [..., hidden], table [vocab, hidden] → float32 [..., vocab]."""
    table = table.astype(predictions.dtype)
    scores = jnp.einsum("...h,vh->...v", predictions, table, preferred_element_type=jnp.float32)
    return scores + jnp.expand_dims(bias, range(scores.ndim - 1))


class _Layer(nn.Module):
    config: BertConfig
    want: frozenset[str]

    @nn.compact
    def __call__(self, hidden, index, mask, seeds):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=_initializer)
        split = (*hidden.shape[:2], config.heads, config.hidden // config.heads)
        query = dense(config.hidden, name="query")(hidden).reshape(split)
        key = dense(config.hidden, name="key")(hidden).reshape(split)
        value = dense(config.hidden, name="value")(hidden).reshape(split)
        scores = None
        if config.attention == "fused":
            context = fused_attention(query, key, value, mask, attention_kernel(config))
        else:
            scores = attention_scores(query, key)
            bias = jnp.where(mask, 0.0, jnp.finfo(jnp.float32).min)[:, None, None, :]
            probabilities = nn.softmax(scores + bias, axis=-1).astype(dtype)
            probabilities = dropout(probabilities, seeds, 3 * index + 1, config.attention_dropout)
            context = jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
        attended = dense(config.hidden, name="attention_out")(context.reshape(hidden.shape))
        attended = dropout(attended, seeds, 3 * index + 2, config.dropout)
        hidden = _norm(config, "attention_norm")(hidden + attended).astype(dtype)
        inner = gelu(dense(config.ffn, name="ffn_in")(hidden))
        outer = dropout(dense(config.hidden, name="ffn_out")(inner), seeds, 3 * index + 3, config.dropout)
        hidden = _norm(config, "ffn_norm")(hidden + outer).astype(dtype)
        kept = {"hidden": hidden, "first": hidden[:, 0], "scores": scores}
        return hidden, {name: value for name, value in kept.items() if name in self.want}


_POOLING = {"tanh": jnp.tanh, "relu": nn.relu, "tanh-relu": lambda x: nn.relu(jnp.tanh(x))}

DEVIATION = 0.02
"""Standard deviation of tables and kernels at a random start (Devlin et al.)."""

_initializer = nn.initializers.truncated_normal(DEVIATION)


def _norm(config, name):
    return nn.LayerNorm(epsilon=config.eps, dtype=jnp.float32, use_fast_variance=False, name=name)


class _Embeddings(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, ids, types, words, seeds):
        config = self.config
        table = self.param("word", _initializer, (config.vocab, config.hidden))
        position = self.param("position", _initializer, (config.positions, config.hidden))
        summed = (table[ids] if words is None else words) + position[None, : ids.shape[1]]
        if config.types:
            kinds = self.param("type", _initializer, (config.types, config.hidden))
            summed = summed + (kinds[None, :1] if types is None else kinds[types])
        normed = _norm(config, "norm")(summed).astype(config.dtype)
        return dropout(normed, seeds, 0, config.dropout)


class _MaskedLM(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, hidden):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        self.param("bias", nn.initializers.zeros, (config.vocab,))
        hidden = nn.Dense(config.hidden, dtype=dtype, kernel_init=_initializer, name="transform")(hidden)
        return _norm(config, "norm")(gelu(hidden)).astype(dtype)


class Bert(nn.Module):
    """One BERT of the shape that `config` says; `unroll` layers are laid out at a time by the scan over layers."""

    config: BertConfig
    unroll: int = 1

    @nn.compact
    def __call__(
        self,
        ids: Array,
        mask: Array,
        *,
        types: Array | None = None,
        words: Array | None = None,
        positions: Array | None = None,
        dropout_seeds: Array | None = None,
        want: frozenset[str] = frozenset(),
    ) -> Outputs:
        """Computes hidden states and what was asked for.

        Args:
          ids: word pieces, int32 [batch, length]; length at most `config.positions`.
          mask: True where a piece is real, bool [batch, length]; with fused attention those are a row's first.
          types: token types, int32 [batch, length]; all 0 when None.
          words: vectors that take the place of the rows of the word table, [batch, length, hidden].
          positions: where to run the MLM transform, int32 [batch, predictions]; needs `config.mlm`.
          dropout_seeds: `dropout.row_seeds`, uint32 [batch]; None runs without dropout.
          want: of `hidden`, `first`, `scores` and `transformed` (needs `config.mlm`), what the outputs hold; the others
            they hold anyway, where the model has the head.

        Raises:
          UserError: the input is longer than the position table, or scores are wanted from fused attention.
        """
        config = self.config
        if ids.shape[1] > config.positions:
            raise UserError(f"an input of length {ids.shape[1]}, but the model has {config.positions} positions")
        if config.attention == "fused" and "scores" in want:
            raise UserError("a term asks for attention scores, which fused attention never forms: use attention=plain")
        embedded = _Embeddings(config, name="embeddings")(ids, types, words, dropout_seeds)
        # Only matrix products are kept for the backward pass: it takes less memory in about the same time.
        layers = nn.scan(
            nn.remat(_Layer, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=config.layers,
            unroll=self.unroll,
        )(config, want, name="layers")
        last, kept = layers(embedded, jnp.arange(config.layers, dtype=jnp.uint32), mask, dropout_seeds)
        pooled = classes = spans = predictions = transformed = None
        dense = functools.partial(nn.Dense, dtype=jnp.dtype(config.dtype), kernel_init=_initializer)
        if config.pooler:
            pooled = _POOLING[config.pooling](dense(config.hidden, name="pooler")(last[:, 0]))
            if config.nsp and self.is_initializing():
                dense(2, name="nsp")(pooled)
        if config.classifier:
            given = dropout(pooled, dropout_seeds, 3 * config.layers + 1, config.dropout)
            classes = dense(len(config.classifier), name="classifier")(given).astype(jnp.float32)
        if config.spans:
            spans = dense(2, name="spans")(last).astype(jnp.float32)
        if config.mlm and (positions is not None or "transformed" in want or self.is_initializing()):
            head = _MaskedLM(config, name="mlm")
            places = jnp.zeros((ids.shape[0], 1), jnp.int32) if positions is None else positions
            if "transformed" in want:
                transformed = head(last)
                predictions = jnp.take_along_axis(transformed, places[:, :, None], axis=1)
            else:
                predictions = head(jnp.take_along_axis(last, places[:, :, None], axis=1))
        return Outputs(
            last,
            embedded,
            **kept,
            pooled=pooled,
            classes=classes,
            spans=spans,
            predictions=predictions,
            transformed=transformed,
        )


def rows_at_a_time(length: int) -> int:
    """Rows that these functions take at a time on a CPU, a power of two: of 128 pieces 2, of 16 pieces 16.

    32 rows of 128 ran at a fifth of the speed of 2 (docs/benchmarks.md), 2 rows of 16 at less than half of that of 16.
    """
    return 1 << max(256 // length, 1).bit_length() - 1


def predict(
    config: BertConfig, params: dict, ids: Array, mask: Array, positions: Array, types: Array | None = None
) -> Array:
    """Scores of every row of the word table at positions [batch, predictions]: float32 [batch, predictions, vocab]."""

    def scores(rows):
        outputs = Bert(config).apply({"params": params}, rows[0], rows[1], positions=rows[2], types=rows[3])
        return logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])

    return _some_rows_at_a_time(scores, (ids, mask, positions, types))


def judge(
    config: BertConfig,
    params: dict,
    ids: Array,
    mask: Array,
    types: Array,
    want: frozenset[str] = frozenset(),
) -> dict[str, Array]:
    """What the head of a task says, if there is one, and what else is wanted; the rows first.

    Returns:
      `classes`, float32 [batch, classes], or `spans`, float32 [batch, length, 2]; of `first` [batch, layers, hidden],
      `last`, `embeddings` [batch, length, hidden], `hidden` [batch, layers, length, hidden] and `scores` [batch,
      layers, heads, length, length] what is wanted.
    """

    def said(rows):
        outputs = Bert(config).apply({"params": params}, rows[0], rows[1], types=rows[2], want=want)
        found = {name: getattr(outputs, name) for name in (*want, *["classes"] * bool(config.classifier))}
        found |= {"spans": outputs.spans} if config.spans else {}
        return found | {name: jnp.swapaxes(found[name], 0, 1) for name in found.keys() & BY_LAYER}

    return _some_rows_at_a_time(said, (ids, mask, types))


def encode(config: BertConfig, params: dict, ids: Array, mask: Array) -> Array:
    """Hidden states after the last layer: [batch, length, hidden]."""
    return _some_rows_at_a_time(lambda rows: Bert(config).apply({"params": params}, *rows).last, (ids, mask))


def _some_rows_at_a_time(function, rows: tuple[Array, ...]):
    count, length = rows[0].shape
    some = rows_at_a_time(length)
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or count % some:
        return function(rows)
    found = jax.lax.map(function, jax.tree.map(lambda x: x.reshape(-1, some, *x.shape[1:]), rows))
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), found)


def init(config: BertConfig, key: Array) -> dict:
    """Random parameters: truncated normal 0.02 for tables and kernels, zeros and ones for biases and scales."""
    ids = jnp.zeros((1, 1), jnp.int32)
    return jax.jit(Bert(config).init)(key, ids, ids == 0)["params"]


@functools.cache
def shapes(config: BertConfig) -> dict:
    """The parameters' shapes and types as a tree of `jax.ShapeDtypeStruct`; nothing is computed."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def parameter_count(config: BertConfig) -> int:
    """How many numbers the parameters hold."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config)))


def flops(config: BertConfig, length: int, predictions: int, vocab: int | None = None) -> int:
    """Floating-point operations of the matrix products in one row's forward pass (a multiply-add is two).

    A training step takes three times as many; element-wise work and embedding look-ups are left out.

    Args:
      config: the model.
      length: positions in the row.
      predictions: positions at which the MLM head runs.
      vocab: classes scored at each of them; the model's own vocabulary when None.
    """
    d, f = config.hidden, config.ffn
    layer = length * (8 * d * d + 4 * d * f) + 4 * length * length * d
    head = predictions * (2 * d * d + 2 * d * (config.vocab if vocab is None else vocab)) if config.mlm else 0
    tops = 2 * d * (d * config.pooler + len(config.classifier) + 2 * length * config.spans)
    return config.layers * layer + head + tops
