"""Where a model's parameters start: at random, or from the whole, layers, table or words of a Hugging Face model."""

import dataclasses
import hashlib
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import bert, files, hf_files, transplant
from jaxdistill.data.vocab import Vocabulary, read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.hf import find_tokenizer, heads_of, read_config, read_hf

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
      whole: refuse a source that lacks a head, for a teacher that does not train; by default heads start at random.
    """

    source: str
    revision: str | None = None
    whole: bool = dataclasses.field(default=False, kw_only=True)

    def check(self, config: bert.BertConfig) -> None:
        """Raises UserError when the source, by its config.json, has another shape."""
        found = self._shape(read_config(self.source, revision=self.revision), config)
        wrong = [
            f"{name} is {getattr(found, name)} there and {getattr(config, name)} here"
            for name in ("vocab", "hidden", "layers", "heads", "ffn", "positions", "types", "eps")
            if getattr(found, name) != getattr(config, name)
        ]
        if wrong:
            raise UserError(
                f"a model can't start from {self.source}: {', '.join(wrong)}; start from a model of the same shape"
            )

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape; a head that the source lacks starts at random.

        Raises:
          UserError: the source has another shape, or lacks a head and should not.
        """
        self.check(config)
        seed = int(jax.random.bits(key, dtype=jnp.uint32))
        how = {"seed": seed, "fresh_heads": not self.whole} | heads_of(config)
        found = read_hf(self.source, revision=self.revision, **how)
        if found.fresh:
            heads = " and ".join(found.fresh)
            warnings.warn(f"{self.source} has no weights for {heads}: fresh ones start at random", stacklevel=2)
        return jax.tree.map(jnp.asarray, self._take(found.params, config))

    def _shape(self, found: bert.BertConfig, config: bert.BertConfig) -> bert.BertConfig:
        """The shape of what a model of the shape `config` takes from a source of the shape `found`."""
        return found

    def _take(self, params: dict, config: bert.BertConfig) -> dict:
        """What a model takes of the source's parameters."""
        return params

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


@dataclasses.dataclass(frozen=True)
class FromLayers(FromHuggingFace):
    """Some layers of a model, and its tables, embedding LayerNorm and heads: a shallower student's start.

    As DistilBERT starts (arXiv 1910.01108) with the layers `terms.maps.spread`, and patient distillation (1908.09355)
    with the first ones. A student without token types leaves the source's out: they are dropped, as DistilBERT's are,
    and not added to the word table. One with fewer positions takes the first ones.

    Attributes:
      layers: the source's layer, counted from 0, for each layer of the model.
    """

    layers: tuple[int, ...] = dataclasses.field(kw_only=True)

    def _shape(self, found: bert.BertConfig, config: bert.BertConfig) -> bert.BertConfig:
        absent = [layer for layer in self.layers if not 0 <= layer < found.layers]
        if absent or not self.layers:
            raise UserError(f"layers {list(self.layers)} of {self.source}: it has 0 to {found.layers - 1}")
        return dataclasses.replace(
            found,
            layers=len(self.layers),
            positions=min(found.positions, config.positions),
            types=found.types if config.types else 0,
        )

    def _take(self, params: dict, config: bert.BertConfig) -> dict:
        tables = {name: table for name, table in params["embeddings"].items() if name != "type" or config.types}
        tables["position"] = tables["position"][: config.positions]
        layers = jax.tree.map(lambda stack: stack[list(self.layers)], params["layers"])
        return params | {"embeddings": tables, "layers": layers}


@dataclasses.dataclass(frozen=True)
class FromWords(FromHuggingFace):
    """A random start whose word table comes from a model with another vocabulary, such as a wider teacher.

    A piece starts as the mean of the source's rows of the pieces into which the source's tokenizer cuts it, brought to
    the model's width and to the scale of a random table (`transplant`); one that the source can't spell starts at
    random. Everything else is as in the random start with the same seed.

    Attributes:
      vocabulary: the model's vocab.txt or tokenizer folder.
      base: the random start.
    """

    vocabulary: str = dataclasses.field(kw_only=True)
    base: Random = dataclasses.field(default=Random(), kw_only=True)

    def check(self, config: bert.BertConfig) -> None:
        """Raises UserError when the source is narrower than the model, or the vocabulary is not the model's."""
        self.base.check(config)
        own, _ = self._vocabularies()
        found = read_config(self.source, revision=self.revision)
        if found.hidden < config.hidden:
            raise UserError(
                f"{self.source} is {found.hidden} wide, the model that is to start from its words {config.hidden}: "
                "take a narrower model or a wider source"
            )
        if own.size > config.vocab:
            raise UserError(f"{self.vocabulary} has {own.size} pieces, the model only {config.vocab} rows")

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape.

        Raises:
          UserError: see `check`; or the source can spell too few of the pieces.
        """
        self.check(config)
        params = self.base(config, key)
        tables = params["embeddings"]
        found = read_hf(self.source, revision=self.revision, mlm=False).params["embeddings"]["word"]
        word = transplant.word_table(np.asarray(tables["word"]), found, transplant.recut(*self._vocabularies()))
        return params | {"embeddings": tables | {"word": jnp.asarray(word)}}

    def _vocabularies(self) -> tuple[Vocabulary, Vocabulary]:
        """The model's and the source's."""
        theirs = find_tokenizer(self.source, revision=self.revision)
        return read_vocabulary(self.vocabulary), read_vocabulary(theirs)

    def contents(self) -> str:
        """A hash over a folder's weights and both vocabularies."""
        digests = [vocabulary.digest for vocabulary in self._vocabularies()]
        return hashlib.sha256("".join([super().contents(), *digests]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class FromTable(FromHuggingFace):
    """A random start but for the word table: that of a model of the same vocabulary and width.

    The table is taken as it stands; for a start with neighbours it is brought to the scale of that start's own.

    Attributes:
      base: the random start.
    """

    base: Random = dataclasses.field(default=Random(), kw_only=True)

    def check(self, config: bert.BertConfig) -> None:
        """Raises UserError when the source's table has another shape."""
        self.base.check(config)
        found = read_config(self.source, revision=self.revision)
        if (found.vocab, found.hidden) != (config.vocab, config.hidden):
            raise UserError(
                f"the word table of {self.source} is {found.vocab} x {found.hidden}, the model's {config.vocab} x "
                f"{config.hidden}: start from one of the same vocabulary and width"
            )

    def __call__(self, config: bert.BertConfig, key: jax.Array) -> dict:
        """Parameters of the given shape.

        Raises:
          UserError: the source has another vocabulary or width.
        """
        self.check(config)
        params = self.base(config, key)
        tables = params["embeddings"]
        word = jnp.asarray(read_hf(self.source, revision=self.revision, mlm=False).params["embeddings"]["word"])
        if self.base.neighbours:
            word *= jnp.sqrt(jnp.mean(tables["word"] ** 2) / jnp.mean(word**2))
        return params | {"embeddings": tables | {"word": word}}


Start = Random | FromHuggingFace


def recorded(fields: Mapping[str, Any]) -> Start:
    """The start that a run's manifest names."""
    kinds = {kind.__name__: kind for kind in (Random, FromHuggingFace, FromLayers, FromTable, FromWords)}
    values = {name: _value(value) for name, value in fields.items() if name != "type"}
    return kinds[fields["type"]](**values)


def _value(value: Any) -> Any:
    """A field from its JSON form."""
    if isinstance(value, Mapping):
        return recorded(value)
    return tuple(value) if isinstance(value, list) else value
