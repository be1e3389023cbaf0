"""How Hugging Face names BERT's parameters and writes its config: one table each, used in both directions.

Each of our parameters has the name of `BertForMaskedLM`'s (`BertForPreTraining`'s, for pooler and next-sentence head).
Kernels are (in, out) here and (out, in) there; layers are stacked here and numbered there.
"""

import pathlib
import re
from typing import Any, NamedTuple

import jaxdistill
from jaxdistill import bert, tree
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.files import read_json

_LAYER = "bert.encoder.layer.{}."
_MODULES = (
    ("embeddings/norm", "bert.embeddings.LayerNorm"),
    ("layers/query", _LAYER + "attention.self.query"),
    ("layers/key", _LAYER + "attention.self.key"),
    ("layers/value", _LAYER + "attention.self.value"),
    ("layers/attention_out", _LAYER + "attention.output.dense"),
    ("layers/attention_norm", _LAYER + "attention.output.LayerNorm"),
    ("layers/ffn_in", _LAYER + "intermediate.dense"),
    ("layers/ffn_out", _LAYER + "output.dense"),
    ("layers/ffn_norm", _LAYER + "output.LayerNorm"),
    ("pooler", "bert.pooler.dense"),
    ("mlm/transform", "cls.predictions.transform.dense"),
    ("mlm/norm", "cls.predictions.transform.LayerNorm"),
    ("nsp", "cls.seq_relationship"),
)
NAMES = {
    "embeddings/word": "bert.embeddings.word_embeddings.weight",
    "embeddings/position": "bert.embeddings.position_embeddings.weight",
    "embeddings/type": "bert.embeddings.token_type_embeddings.weight",
    "mlm/bias": "cls.predictions.bias",
}
"""Our name → Hugging Face's, `{}` for the number of the layer."""
for _ours, _theirs in _MODULES:
    NAMES[f"{_ours}/{'scale' if _ours.endswith('norm') else 'kernel'}"] = f"{_theirs}.weight"
    NAMES[f"{_ours}/bias"] = f"{_theirs}.bias"

COPIES = {"cls.predictions.decoder.weight": "embeddings/word", "cls.predictions.decoder.bias": "mlm/bias"}
"""Tensors that repeat one of ours: Hugging Face's tied decoder."""

HEADS = {"mlm": "cls.predictions.", "pooler": "bert.pooler.", "nsp": "cls.seq_relationship."}
"""Optional part of a config → how the names of its tensors start."""

_SIZES = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_RATES = {
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "eps": ("layer_norm_eps", 1e-12),
}
_HONOURED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",  # versions 5 of transformers write it no more
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
MARK = "jaxdistill_version"
"""The key by which a config.json says that it is an export of ours."""


def parse_config(path: pathlib.Path, mlm: bool, pooler: bool, nsp: bool = False) -> BertConfig:
    """The shape that a `config.json` describes, with the heads asked for.

    Raises:
      UserError: it is not one, or describes a model that we can't honour.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    if content.get("auto_map"):
        raise UserError(f"{path} asks to run code of its own (auto_map): only plain BERT models are read")
    for key, value in _HONOURED.items():
        if content.get(key, value) != value:
            raise UserError(f"{path}: {key} is {content[key]!r}, but only {value!r} can be read")
    content = {"max_position_embeddings": 512, "type_vocab_size": 2} | content
    for key in _SIZES.values():
        if key not in content:
            raise UserError(f"{path} lacks {key}: is it a BERT model's?")
        if not isinstance(content[key], int) or isinstance(content[key], bool):
            raise UserError(f"{path}: {key} is {content[key]!r}, which is not a whole number")
    rates = {ours: content.get(key, default) for ours, (key, default) in _RATES.items()}
    for ours, rate in rates.items():
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate < 1:
            raise UserError(f"{path}: {_RATES[ours][0]} is {rate!r}, which is not a number from 0 to 1")
    sizes = {ours: content[key] for ours, key in _SIZES.items()}
    try:
        return BertConfig(**sizes, **rates, mlm=mlm, pooler=pooler, nsp=nsp)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


class Expected(NamedTuple):
    """Hugging Face's names of one of our parameters (one a layer), our whole shape, and the shape of each of theirs."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    each: tuple[int, ...]


def expected(config: BertConfig) -> dict[str, Expected]:
    """Our names of a model's parameters → what a folder of it holds."""
    found = {}
    for ours, leaf in tree.flatten(bert.shapes(config)).items():
        stacked = ours.startswith("layers/")
        names = tuple(NAMES[ours].format(layer) for layer in range(config.layers if stacked else 1))
        each = leaf.shape[1:] if stacked else leaf.shape
        found[ours] = Expected(names, leaf.shape, each[::-1] if ours.endswith("/kernel") else each)
    return found


def canonical(name: str) -> str:
    """The name that today's `BertForPreTraining` gives a tensor."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def architecture(config: BertConfig) -> str:
    """The class of `transformers` whose folder a model is written as."""
    return "BertForPreTraining" if config.nsp else "BertForMaskedLM" if config.mlm else "BertModel"


def config_json(config: BertConfig, vocabulary: Vocabulary | None, dtype: str) -> dict[str, Any]:
    """The content of `config.json` as `save_pretrained` writes it, and our mark."""
    content = {key: getattr(config, ours) for ours, key in _SIZES.items()}
    content |= {key: getattr(config, ours) for ours, (key, _) in _RATES.items()}
    content |= {key: value for key, value in _HONOURED.items() if key != "position_embedding_type"}
    content |= {
        "type_vocab_size": config.types or 2,
        "architectures": [architecture(config)],
        "dtype": dtype,
        "pad_token_id": 0 if vocabulary is None else vocabulary.pad,
        "bos_token_id": None,
        "eos_token_id": None,
        "classifier_dropout": None,
        "initializer_range": 0.02,
        "use_cache": True,
        MARK: jaxdistill.__version__,
    }
    return dict(sorted(content.items()))
