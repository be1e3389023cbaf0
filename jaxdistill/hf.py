"""Hugging Face BERT and DistilBERT folders in and out, without torch; every tensor is accounted for by name."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from jaxdistill import bert, hf_files, hf_names, tree
from jaxdistill.bert import BertConfig
from jaxdistill.bert_config import match
from jaxdistill.data.vocab import Vocabulary, read_vocabulary, write_tokenizer
from jaxdistill.errors import UserError
from jaxdistill.files import read_json, write_json, write_text
from jaxdistill.hf_families import BERT, Family, family_of
from jaxdistill.places import local

_OURS = (hf_files.WEIGHTS, "config.json", "README.md", *hf_files.TOKENIZER_FILES)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A BERT read from a Hugging Face folder.

    Attributes:
      config: its shape; `dropout`, `attention_dropout` and `eps` are the folder's.
      params: its parameters as `bert.py` names them, numpy float32.
      vocabulary: its tokenizer, or None when the folder holds none.
      source: the folder or hub id that was asked for.
      revision: the hub's commit, or None for a folder.
      set_aside: the folder's tensors that were knowingly not used.
      fresh: heads (`mlm`, `pooler`, `nsp`, `classifier`, `spans`) that the folder lacks and that start at random.
    """

    config: BertConfig
    params: dict[str, Any]
    vocabulary: Vocabulary | None
    source: str
    revision: str | None
    set_aside: tuple[str, ...]
    fresh: tuple[str, ...]


def read_config(source: str | os.PathLike, *, revision: str | None = None) -> BertConfig:
    """The shape of the model in a folder or on the hub, with the masked-LM head; its weights are not looked at.

    Args:
      source: a folder or a hub id.
      revision: the hub's branch, tag or commit.

    Raises:
      UserError: it can't be found, or it is a BERT that we can't honour.
    """
    folder, _ = hf_files.locate(source, revision, ["config.json"])
    config, _ = hf_names.parse_config(folder / "config.json", mlm=True)
    return config


def read_task_config(source: str | os.PathLike, *, revision: str | None = None) -> BertConfig:
    """The shape of a fine-tuned model, with the head of its task; its weights are not looked at.

    Args:
      source: a folder or a hub id.
      revision: the hub's branch, tag or commit.

    Raises:
      UserError: it can't be found, is not fine-tuned for classes, a score or spans, or we can't honour it.
    """
    folder, _ = hf_files.locate(source, revision, ["config.json"])
    path = folder / "config.json"
    config, _ = hf_names.parse_config(path, **hf_names.parse_task_heads(path))
    return config


def find_tokenizer(source: str | os.PathLike, *, revision: str | None = None) -> str:
    """The local folder with a model's tokenizer files, fetched from the hub if need be; no weights are fetched.

    Raises:
      UserError: it can't be found.
    """
    folder, _ = hf_files.locate(source, revision, hf_files.TOKENIZER_FILES)
    return str(folder)


def heads_of(config: BertConfig) -> dict[str, Any]:
    """The heads of a model, as `read_hf` takes them."""
    return {name: getattr(config, name) for name in ("mlm", "pooler", "pooling", "classifier", "spans")}


def check_same_pieces(one: str | os.PathLike, other: str | os.PathLike) -> None:
    """Raises UserError unless two models, folders or hub ids, have the same vocabulary."""
    vocabularies = [read_vocabulary(find_tokenizer(source)) for source in (one, other)]
    if vocabularies[0].digest != vocabularies[1].digest:
        raise UserError(
            f"{one} and {other} cut text differently ({vocabularies[0].size:,} and {vocabularies[1].size:,} pieces, or "
            "another case): one can follow the other on a task only with the same vocabulary"
        )


def read_hf(
    source: str | os.PathLike,
    *,
    revision: str | None = None,
    fresh_heads: bool = True,
    seed: int = 0,
    **heads: Any,
) -> Pretrained:
    """Reads a BERT or DistilBERT from a folder or the hub; every tensor is accounted for by name.

    Names with or without the `bert.` or `distilbert.` prefix, TensorFlow's `gamma` and `beta`, one file or shards, 16,
    32 or 64 bits are all read. Set aside by name: `position_ids`, and heads that are not asked for. A DistilBERT is a
    BERT with `types` 0 and `eps` 1e-12.

    Args:
      source: a folder or a hub id.
      revision: the hub's branch, tag or commit.
      fresh_heads: a head asked for that is absent starts at random; False raises.
      seed: of the heads that start at random.
      heads: those to read, as `BertConfig` has them: `mlm` (True when left out), `pooler`, `pooling`, `nsp`,
        `classifier`, `spans`. A classifier's classes are brought into the order asked for; one of others is absent.

    Raises:
      UserError: it can't be found or honoured; a tensor is missing, unknown, of another shape or type, not finite, or
        a tied copy differs from its source; the tokenizer does not fit.
    """
    wanted = ["config.json", hf_files.WEIGHTS, hf_files.INDEX, hf_files.SHARDS, *hf_files.TOKENIZER_FILES]
    folder, commit = hf_files.locate(source, revision, wanted)
    config, family = hf_names.parse_config(folder / "config.json", **heads)
    stored: dict[str, hf_files.Stored] = {}
    for tensor in hf_files.tensors(folder, source):
        name = hf_names.canonical(tensor.name, family)
        if name in stored:
            raise UserError(f"{source} holds both {stored[name].name} and {tensor.name}, which are the same tensor")
        stored[name] = tensor
    for copy, ours in family.copies.items():
        if family.names[ours] not in stored and copy in stored:
            stored[family.names[ours]] = stored.pop(copy)
    classes = _classes(folder) if config.classifier else ()
    order = match(classes, config.classifier)
    if order is None:
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith("classifier.")}
    fresh = tuple(
        head
        for head in BERT.heads
        if getattr(config, head)
        and not (head in family.heads and any(name.startswith(family.heads[head]) for name in stored))
    )
    if fresh and not fresh_heads:
        names = f" of the classes {', '.join(config.classifier)}" if "classifier" in fresh else ""
        there = f"; its classes are {', '.join(classes)} (id2label in its config.json)" if names and classes else ""
        way = ": take a masked-language model, as it was before its fine-tuning" if fresh == ("mlm",) else ""
        raise UserError(f"{source} has no {' and no '.join(fresh)} head{names}{there}{way}")
    expected = hf_names.expected(config, family, fresh)
    aside = _check_names(source, config, family, expected, stored)
    flat = _load(source, config, family, expected, stored)
    if config.classifier and "classifier" not in fresh:
        flat |= {name: flat[name][..., order] for name in ("classifier/kernel", "classifier/bias")}
    params = tree.unflatten(flat)
    if fresh:
        params |= _fresh(config, fresh, seed)
    return Pretrained(config, params, _vocabulary(folder, config), os.fspath(source), commit, aside, fresh)


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
    """The classes that a folder's config names; none when it is of no classifier."""
    try:
        return hf_names.parse_task_heads(folder / "config.json").get("classifier", ())
    except UserError:
        return ()


def _fresh(config: BertConfig, heads: Sequence[str], seed: int) -> dict[str, Any]:
    """Heads as `bert.init` starts them; jitted, so that the rest of the model is not made."""
    start = jax.jit(lambda key: {head: bert.init(config, key)[head] for head in heads})
    return jax.tree.map(np.asarray, start(jax.random.key(seed)))


def _check_names(source, config: BertConfig, family: Family, expected: Mapping, stored: Mapping) -> tuple[str, ...]:
    """The stored names to set aside.

    Raises:
      UserError: names, types or shapes are not those expected.
    """
    known = {name for names, *_ in expected.values() for name in names}
    idle = {theirs for ours, theirs in family.names.items() if ours.split("/")[0] in family.heads}
    idle |= {*family.copies, f"{family.prefix}embeddings.position_ids"}
    if config.mlm:
        idle -= set(family.copies)
        known |= {name for name in family.copies if name in stored}
    unknown = sorted(stored[name].name for name in stored.keys() - known - idle)
    if unknown:
        names = hf_files.listing(unknown)
        raise UserError(f"{source} holds tensors that are no part of a {family.name} with an MLM head: {names}")
    missing = sorted(known - stored.keys())
    if missing:
        raise UserError(f"{source} lacks {hf_files.listing(missing)}: is it whole, and does config.json fit it?")
    wrong = []
    for names, _, shape in expected.values():
        for name in names:
            if stored[name].shape != shape:
                wrong.append(f"{stored[name].name} is {list(stored[name].shape)} instead of {list(shape)}")
            elif stored[name].kind not in ("F16", "BF16", "F32", "F64"):
                wrong.append(f"{stored[name].name} has the type {stored[name].kind}, not a float of 16, 32 or 64 bits")
    if wrong:
        raise UserError(f"{source} does not fit its config.json: {hf_files.listing(wrong)}")
    return tuple(sorted(stored[name].name for name in stored.keys() - known))


def _load(source, config: BertConfig, family: Family, expected: Mapping, stored: Mapping) -> dict[str, np.ndarray]:
    flat, infinite = {}, []
    for ours, (names, shape, _) in expected.items():
        flat[ours] = np.empty(shape, np.float32)
        for name, part in zip(names, _each(ours, flat[ours]), strict=True):
            value = stored[name].load()
            if not np.isfinite(value).all():
                infinite.append(stored[name].name)
            part[...] = value.T if ours.endswith("/kernel") else value
    if infinite:
        raise UserError(f"{source} holds NaN or infinite numbers in {hf_files.listing(infinite)}")
    for copy, ours in family.copies.items():
        if config.mlm and copy in stored and not np.array_equal(stored[copy].load(), flat[ours]):
            raise UserError(f"{source}: {copy} differs from {family.names[ours]}; an untied decoder can't be read")
    return flat


def _each(ours: str, value: np.ndarray) -> np.ndarray:
    """A parameter as one view for each of Hugging Face's tensors: its layers, or itself alone."""
    return value if ours.startswith("layers/") else value[None]


def _vocabulary(folder: pathlib.Path, config: BertConfig) -> Vocabulary | None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return None
    vocabulary = read_vocabulary(folder)
    if vocabulary.size > config.vocab:
        raise UserError(f"{folder}: the tokenizer has {vocabulary.size} pieces, the model only {config.vocab} rows")
    return vocabulary


def write_hf(
    folder: str | os.PathLike,
    config: BertConfig,
    params: tree.Tree,
    vocabulary: Vocabulary | None,
    card: Callable[[int], str] | None = None,
    *,
    max_length: int = 0,
    dtype: str = "float32",
    replace: bool = False,
) -> None:
    """Writes a folder that `transformers` loads: weights, config, tokenizer and model card; it appears whole or not.

    Names, shapes and types are those of `save_pretrained` (tied weights once): of `BertForMaskedLM`, with the pooler's
    beside them if there is one; of `BertForPreTraining`, `BertForSequenceClassification` or `BertForQuestionAnswering`
    with their heads; of `BertModel` without a head. A model without token types is written as a DistilBERT. These have
    no pooler but a classifier's, and no other `eps` than 1e-12: a model without token types that has is written as a
    BERT with a table of two zero rows, which adds nothing (and reads back as `types` 2).

    Args:
      folder: where; an older export of ours is replaced.
      config: the model's shape.
      params: its parameters.
      vocabulary: its tokenizer; None writes none.
      card: makes README.md from the weights' size in bytes; None writes none.
      max_length: the tokenizer's `model_max_length`, where the model is good for less than all of its positions.
      dtype: `float32` or `float16`.
      replace: replace whatever is in the folder.

    Raises:
      UserError: parameters and config disagree, a number is not finite in `dtype`, or the folder holds something else.
    """
    folder = local(folder)
    if dtype not in ("float32", "float16"):
        raise UserError(f"a folder in {dtype}: choose float32 or float16")
    if vocabulary is not None and vocabulary.size > config.vocab:
        raise UserError(f"the vocabulary has {vocabulary.size} pieces, the model only {config.vocab} rows")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another folder for the model")
    if not replace:
        _check_free(folder)
    arrays = _arrays(config, params, dtype)
    with hf_files.whole_folder(folder) as made:
        save_file(arrays, made / hf_files.WEIGHTS, metadata={"format": "pt"})
        write_json(made / "config.json", hf_names.config_json(config, vocabulary, dtype))
        if vocabulary is not None:
            kind = f"{family_of(config).stem}Tokenizer"
            write_tokenizer(vocabulary, made, max_length or config.positions, kind)
        if card is not None:
            write_text(made / "README.md", card((made / hf_files.WEIGHTS).stat().st_size))


def _check_free(folder: pathlib.Path) -> None:
    """Raises UserError if the folder holds anything but an export of ours."""
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    ours = "config.json" in held and hf_names.MARK in read_json(folder / "config.json")
    foreign = [name for name in held if name not in _OURS]
    if held and (foreign or not ours):
        names = hf_files.listing(foreign if ours else held)
        raise UserError(
            f"{folder} already holds {names}, no part of an export of jaxdistill: choose another folder, or ask to "
            "replace it"
        )


def _arrays(config: BertConfig, params: tree.Tree, dtype: str) -> dict[str, np.ndarray]:
    """The parameters under Hugging Face's names, (out, in), in `dtype`."""
    family = family_of(config)
    flat, expected = tree.flatten(params), hf_names.expected(config, family)
    if flat.keys() != expected.keys():
        names = sorted(flat.keys() ^ expected.keys())
        raise UserError(f"the parameters and the config disagree on {hf_files.listing(names)}")
    arrays: dict[str, np.ndarray] = {}
    for ours, (names, shape, _) in expected.items():
        value = np.asarray(flat[ours], np.float32)
        if value.shape != shape:
            raise UserError(f"{ours} is {list(value.shape)}, the config says {list(shape)}")
        with np.errstate(over="ignore"):
            value = value.astype(dtype)
        if not np.isfinite(value).all():
            raise UserError(f"{ours} holds numbers that are not finite in {dtype}: nothing is written")
        for name, part in zip(names, _each(ours, value), strict=True):
            arrays[name] = np.ascontiguousarray(part.T if ours.endswith("/kernel") else part)
    if not config.types and "embeddings/type" in family.names:
        arrays[family.names["embeddings/type"]] = np.zeros((2, config.hidden), dtype)
    if family.architecture(config).endswith("Model"):
        arrays = {name.removeprefix(family.prefix): value for name, value in arrays.items()}
    return arrays
