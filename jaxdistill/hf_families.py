"""The models of `transformers` that are read and written: BERT, and DistilBERT, without token types or pooler.

Each of our parameters has the name of `BertForMaskedLM`'s or `DistilBertForMaskedLM`'s, or of the class with its head
(`ForPreTraining`, `ForSequenceClassification`, `ForQuestionAnswering`). Kernels are (in, out) here and (out, in) there;
layers are stacked here and numbered there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdistill.bert import BertConfig
from jaxdistill.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
    """How `transformers` names the parameters of one kind of model and writes its config, used in both directions.

    Attributes:
      name: what people call it.
      names: our name of a parameter → theirs, `{}` for the number of the layer.
      copies: their tensors that repeat one of ours, the tied decoder → our name.
      heads: optional part of a config → how the names of its tensors start.
      sizes: field of `BertConfig` → key of config.json.
      rates: field of `BertConfig` → key, and its value where a config lacks it.
      always: field of `BertConfig` → the value that all models of the family have; no key says it.
      honoured: key → the only value that is read; it is written too.
      formerly: the same for keys that only older versions of transformers write.
      idle: further keys that are written, which change nothing here.
    """

    name: str
    names: Mapping[str, str]
    copies: Mapping[str, str]
    heads: Mapping[str, str]
    sizes: Mapping[str, str]
    rates: Mapping[str, tuple[str, float]]
    always: Mapping[str, Any]
    honoured: Mapping[str, Any]
    formerly: Mapping[str, Any]
    idle: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The `model_type` of its configs."""
        return self.name.lower()

    @property
    def stem(self) -> str:
        """How its classes begin."""
        return self.name.replace("BERT", "Bert")

    @property
    def prefix(self) -> str:
        """How its encoder's tensors begin beside a head; in a folder of the encoder alone they lack it."""
        return f"{self.kind}."

    def architecture(self, config: BertConfig) -> str:
        """The class of `transformers` whose folder a model is written as."""
        heads = {"nsp": "PreTraining", "mlm": "MaskedLM", "classifier": CLASSIFIER, "spans": SPANS}
        return self.stem + next((f"For{name}" for head, name in heads.items() if getattr(config, head)), "Model")


CLASSIFIER, SPANS = "SequenceClassification", "QuestionAnswering"
"""How the classes with these heads end."""


def class_of(content: Any) -> str:
    """The class of `transformers` that the content of a config.json names, or ""."""
    named = content.get("architectures") if isinstance(content, dict) else None
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def family_of(config: BertConfig) -> Family:
    """The family that a model is written as: DistilBERT where it can express the model, else BERT.

    A DistilBERT has a pooler below its classifier only, and it ends with a relu; a BERT's ends with a tanh.

    Raises:
      UserError: neither can.
    """
    pooled = not config.pooler or (bool(config.classifier) and config.pooling == "relu")
    if pooled and all(getattr(config, name) == value for name, value in DISTILBERT.always.items()):
        return DISTILBERT
    if config.pooler and config.pooling != "tanh":
        raise UserError(
            f"`transformers` has no {(config.types and 'BERT') or 'DistilBERT'} whose pooler ends with "
            f"{config.pooling}: train it with pooling {'tanh' if config.types else 'relu'} to export it"
        )
    return BERT


def _names(tables: Mapping[str, str], modules: Mapping[str, str]) -> dict[str, str]:
    """Our name → theirs: of tables as they are, of modules for their kernel or scale and their bias."""
    names = dict(tables)
    for ours, theirs in modules.items():
        names[f"{ours}/{'scale' if ours.endswith('norm') else 'kernel'}"] = f"{theirs}.weight"
        names[f"{ours}/bias"] = f"{theirs}.bias"
    return names


BERT = Family(
    name="BERT",
    names=_names(
        {
            "embeddings/word": "bert.embeddings.word_embeddings.weight",
            "embeddings/position": "bert.embeddings.position_embeddings.weight",
            "embeddings/type": "bert.embeddings.token_type_embeddings.weight",
            "mlm/bias": "cls.predictions.bias",
        },
        {
            "embeddings/norm": "bert.embeddings.LayerNorm",
            "layers/query": "bert.encoder.layer.{}.attention.self.query",
            "layers/key": "bert.encoder.layer.{}.attention.self.key",
            "layers/value": "bert.encoder.layer.{}.attention.self.value",
            "layers/attention_out": "bert.encoder.layer.{}.attention.output.dense",
            "layers/attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
            "layers/ffn_in": "bert.encoder.layer.{}.intermediate.dense",
            "layers/ffn_out": "bert.encoder.layer.{}.output.dense",
            "layers/ffn_norm": "bert.encoder.layer.{}.output.LayerNorm",
            "pooler": "bert.pooler.dense",
            "mlm/transform": "cls.predictions.transform.dense",
            "mlm/norm": "cls.predictions.transform.LayerNorm",
            "nsp": "cls.seq_relationship",
            "classifier": "classifier",
            "spans": "qa_outputs",
        },
    ),
    copies={"cls.predictions.decoder.weight": "embeddings/word", "cls.predictions.decoder.bias": "mlm/bias"},
    heads={
        "mlm": "cls.predictions.",
        "pooler": "bert.pooler.",
        "nsp": "cls.seq_relationship.",
        "classifier": "classifier.",
        "spans": "qa_outputs.",
    },
    sizes={
        "vocab": "vocab_size",
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "ffn": "intermediate_size",
        "positions": "max_position_embeddings",
        "types": "type_vocab_size",
    },
    rates={
        "dropout": ("hidden_dropout_prob", 0.1),
        "attention_dropout": ("attention_probs_dropout_prob", 0.1),
        "eps": ("layer_norm_eps", 1e-12),
    },
    always={},
    honoured={
        "hidden_act": "gelu",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    },
    formerly={"position_embedding_type": "absolute"},
    idle={"classifier_dropout": None, "initializer_range": 0.02, "use_cache": True},
)

DISTILBERT = Family(
    name="DistilBERT",
    names=_names(
        {
            "embeddings/word": "distilbert.embeddings.word_embeddings.weight",
            "embeddings/position": "distilbert.embeddings.position_embeddings.weight",
            "mlm/bias": "vocab_projector.bias",
        },
        {
            "embeddings/norm": "distilbert.embeddings.LayerNorm",
            "layers/query": "distilbert.transformer.layer.{}.attention.q_lin",
            "layers/key": "distilbert.transformer.layer.{}.attention.k_lin",
            "layers/value": "distilbert.transformer.layer.{}.attention.v_lin",
            "layers/attention_out": "distilbert.transformer.layer.{}.attention.out_lin",
            "layers/attention_norm": "distilbert.transformer.layer.{}.sa_layer_norm",
            "layers/ffn_in": "distilbert.transformer.layer.{}.ffn.lin1",
            "layers/ffn_out": "distilbert.transformer.layer.{}.ffn.lin2",
            "layers/ffn_norm": "distilbert.transformer.layer.{}.output_layer_norm",
            "mlm/transform": "vocab_transform",
            "mlm/norm": "vocab_layer_norm",
            "pooler": "pre_classifier",
            "classifier": "classifier",
            "spans": "qa_outputs",
        },
    ),
    copies={"vocab_projector.weight": "embeddings/word"},
    heads={"mlm": "vocab_", "pooler": "pre_classifier.", "classifier": "classifier.", "spans": "qa_outputs."},
    sizes={
        "vocab": "vocab_size",
        "hidden": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "ffn": "hidden_dim",
        "positions": "max_position_embeddings",
    },
    rates={"dropout": ("dropout", 0.1), "attention_dropout": ("attention_dropout", 0.1)},
    always={"types": 0, "eps": 1e-12},
    honoured={"activation": "gelu", "tie_word_embeddings": True},
    formerly={"tie_weights_": True},
    idle={
        "initializer_range": 0.02,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,  # a folder holds the table of sinusoids too
    },
)

FAMILIES = (BERT, DISTILBERT)
