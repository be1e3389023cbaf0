"""A Hugging Face folder's names and config.json, from the table of its family and back."""

import dataclasses
import pathlib
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jaxdistill
from jaxdistill import bert, tree
from jaxdistill.bert import BertConfig
from jaxdistill.bert_config import SCORE
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.files import read_json
from jaxdistill.hf_families import CLASSIFIER, FAMILIES, SPANS, Family, class_of, family_of

MARK = "jaxdistill_version"
"""The key by which a config.json says that it is an export of ours."""


def parse_config(path: pathlib.Path, **heads: Any) -> tuple[BertConfig, Family]:
    """The shape that a `config.json` describes, with the heads asked for as `BertConfig` has them, and its family.

    Raises:
      UserError: it is not one, or describes a model that we can't honour.
    """
    content = _content(path)
    if content.get("auto_map"):
        raise UserError(f"{path} asks to run code of its own (auto_map): only plain BERT models are read")
    kind = content.get("model_type", "bert")
    family = next((family for family in FAMILIES if family.kind == kind), None)
    if family is None:
        known = " and ".join(repr(family.kind) for family in FAMILIES)
        raise UserError(f"{path}: model_type is {kind!r}, but only {known} can be read")
    for key, value in {**family.honoured, **family.formerly}.items():
        if content.get(key, value) != value:
            raise UserError(f"{path}: {key} is {content[key]!r}, but only {value!r} can be read")
    content = {"max_position_embeddings": 512, "type_vocab_size": 2} | content
    for key in family.sizes.values():
        if key not in content:
            raise UserError(f"{path} lacks {key}: is it a {family.name} model's?")
        if not isinstance(content[key], int) or isinstance(content[key], bool):
            raise UserError(f"{path}: {key} is {content[key]!r}, which is not a whole number")
    rates = {ours: content.get(key, default) for ours, (key, default) in family.rates.items()}
    for ours, rate in rates.items():
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate < 1:
            raise UserError(f"{path}: {family.rates[ours][0]} is {rate!r}, which is not a number from 0 to 1")
    sizes = {ours: content[key] for ours, key in family.sizes.items()}
    try:
        return BertConfig(**sizes, **rates, **family.always, **heads), family
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _content(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent} has no {path.name}: it is no model folder")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    return content


def is_fine_tuned(path: pathlib.Path) -> bool:
    """Whether a `config.json` is of a model with a classifier or spans.

    Raises:
      UserError: it is not one.
    """
    return class_of(_content(path)).endswith((CLASSIFIER, SPANS))


def parse_task_heads(path: pathlib.Path) -> dict[str, Any]:
    """The heads of the fine-tuned model that a `config.json` describes, as `BertConfig` has them.

    Raises:
      UserError: it says nothing of a classifier or of spans, or names its classes badly.
    """
    content = _content(path)
    named = class_of(content)
    if named.endswith(SPANS):
        return {"mlm": False, "spans": True}
    if not named.endswith(CLASSIFIER):
        raise UserError(
            f"{path} is of {named or 'no class'}: a fine-tuned one ends with {CLASSIFIER} or {SPANS}. "
            "Fine-tune it first, with `jaxdistill finetune`"
        )
    names = content.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    numbers = map(str, range(len(names))) if isinstance(names, dict) else ()
    if not names or set(names) != set(numbers) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: id2label is {names!r}; it must name every class from 0 on")
    pooling = "relu" if content.get("model_type") == "distilbert" else "tanh"
    labels = tuple(names[str(number)] for number in range(len(names)))
    return {"mlm": False, "pooler": True, "pooling": pooling, "classifier": labels if len(labels) > 1 else (SCORE,)}


class Expected(NamedTuple):
    """Hugging Face's names of one of our parameters (one a layer), our whole shape, and the shape of each of theirs."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    each: tuple[int, ...]


def expected(config: BertConfig, family: Family, fresh: Collection[str] = ()) -> dict[str, Expected]:
    """Our names of a model's parameters, but for its fresh heads → what a folder of it holds."""
    found = {}
    for ours, leaf in tree.flatten(bert.shapes(config)).items():
        if ours.split("/")[0] in fresh:
            continue
        stacked = ours.startswith("layers/")
        names = tuple(family.names[ours].format(layer) for layer in range(config.layers if stacked else 1))
        each = leaf.shape[1:] if stacked else leaf.shape
        found[ours] = Expected(names, leaf.shape, each[::-1] if ours.endswith("/kernel") else each)
    return found


def canonical(name: str, family: Family) -> str:
    """The name that today's class with all heads gives a tensor."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    parts = {theirs.split(".")[1] for theirs in family.names.values() if theirs.startswith(family.prefix)}
    return f"{family.prefix}{name}" if name.split(".")[0] in parts else name


def config_json(config: BertConfig, vocabulary: Vocabulary | None, dtype: str) -> dict[str, Any]:
    """The content of `config.json` as `save_pretrained` writes it, and our mark."""
    family = family_of(config)
    shape = dataclasses.replace(config, types=config.types or 2)  # a BERT there has token types
    content = {key: getattr(shape, ours) for ours, key in family.sizes.items()}
    content |= {key: getattr(shape, ours) for ours, (key, _) in family.rates.items()}
    content |= {
        **family.honoured,
        **family.idle,
        "model_type": family.kind,
        "architectures": [family.architecture(config)],
        "dtype": dtype,
        "pad_token_id": 0 if vocabulary is None else vocabulary.pad,
        "bos_token_id": None,
        "eos_token_id": None,
        MARK: jaxdistill.__version__,
    }
    if config.classifier:
        names = config.classifier if len(config.classifier) > 1 else ("LABEL_0",)  # as `transformers` names a score
        content["id2label"] = {str(number): name for number, name in enumerate(names)}
        content["label2id"] = {name: number for number, name in enumerate(names)}
    return dict(sorted(content.items()))
