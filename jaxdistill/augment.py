"""TinyBERT's data augmentation (Jiao et al., arXiv 1909.10351): words replaced by what a masked model or GloVe offers.

A word of one piece may become one of the likeliest pieces at its place: a row of the model is the text with the word
masked, beside the text itself as the second of a pair, as in the released code. A word of several pieces may become one
of its nearest in GloVe. Stop-words and what is not spelt with the 26 letters stay. Candidates are computed once for
each distinct text, and draws are hashes, so the same seed gives the same copies.
"""

import array
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from jaxdistill import bert, files, hf_files, tree
from jaxdistill.data import draws
from jaxdistill.data.vocab import PREFIX, Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model
from jaxdistill.places import local
from jaxdistill.tasks.augmented import COPIES, draw_copies, write_augmented
from jaxdistill.tasks.glove import read_glove
from jaxdistill.tasks.task import Examples

PIECES = 4096
"""Pieces that the model reads at a time, by default."""
_CONTRACTED = """ai ain aren ca couldn d didn doesn don hadn hasn haven isn ll m ma mightn mustn n needn o re s sha shan
shouldn t ve wasn weren wo won wouldn y"""
KEPT = ENGLISH_STOP_WORDS.union(_CONTRACTED.split())
"""Words that stay: stop-words, and what BERT's rules leave of contractions, such as "isn't" and "ca n't"."""
_PART = 1 << 18
_TEXTS = 1 << 14


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """The words of some texts that may be replaced, in the order of the texts.

    Attributes:
      pieces: of each text, without special pieces, int32.
      text: number of each word's text, int64 [words].
      word: its number among the words of the text, int64 [words].
      piece: where its only piece is in the text; -1 for a word of several, int64 [words].
      several: the words of several pieces, by their numbers here.
    """

    pieces: Sequence[np.ndarray]
    text: np.ndarray
    word: np.ndarray
    piece: np.ndarray
    several: Mapping[int, str]


def split(vocabulary: Vocabulary) -> Callable[[str], list[str]]:
    """A function from a text to its words by BERT's rules, in the vocabulary's case."""
    tokenizer = vocabulary.word_tokenizer()
    normalizer, parts = tokenizer.normalizer, tokenizer.pre_tokenizer
    return lambda text: [word for word, _ in parts.pre_tokenize_str(normalizer.normalize_str(text))]


def is_replaced(word: str) -> bool:
    """Whether a word may be replaced: of the letters a to z, in either case, and not `KEPT`."""
    return word.isascii() and word.isalpha() and word.lower() not in KEPT


def find_places(vocabulary: Vocabulary, texts: Sequence[str]) -> Places:
    """Finds the words of texts that may be replaced."""
    tokenizer, words_of = vocabulary.word_tokenizer(), split(vocabulary)
    pieces, places, several = [], array.array("q"), {}
    for start in range(0, len(texts), _TEXTS):
        block = texts[start : start + _TEXTS]
        for text, found in zip(block, tokenizer.encode_batch(block, add_special_tokens=False), strict=True):
            words = words_of(text)
            sizes = np.bincount(np.array(found.word_ids, np.int64), minlength=len(words))
            firsts = np.cumsum(sizes) - sizes
            for number in filter(lambda number: is_replaced(words[number]), range(len(words))):
                if sizes[number] > 1:
                    several[len(places) // 3] = words[number]
                places.extend((len(pieces), number, firsts[number] if sizes[number] == 1 else -1))
            pieces.append(np.array(found.ids, np.int32))
    return Places(pieces, *np.array(places, np.int64).reshape(-1, 3).T, several)


def augment(
    examples: Examples,
    model: Model,
    out: str | os.PathLike,
    *,
    glove: str | os.PathLike | None = None,
    copies: int | None = None,
    p: float = 0.4,
    candidates: int = 15,
    seed: int = 0,
    batch: int = PIECES,
    source: str = "",
    progress: bool = True,
) -> int:
    """Writes a folder with the examples and copies of them; run again after a kill, it goes on with what is missing.

    Each example comes first as it is. Of a pair, the copies of the first text keep the second and those of the second
    keep the first. (In the released code the last copy of the first stays beside the copies of the second.)

    Args:
      examples: for training, of one task.
      model: a masked-language model.
      out: the folder, which appears when it is whole.
      glove: a file of GloVe's; None leaves words of several pieces as they are.
      copies: how often each text is copied; the task's own when None. Copies that come out alike are kept once.
      p: the chance that a word is replaced in a copy.
      candidates: likeliest pieces at a place, of which those that continue a word are dropped; nearest words of GloVe.
      seed: of the draws.
      batch: pieces that the model reads at a time.
      source: digest of the training examples of which these are some; "" when they are all.
      progress: show a bar.

    Returns:
      How many examples the folder holds.

    Raises:
      UserError: a setting, the examples or the model do not serve, GloVe's file is bad, or the folder exists.
    """
    out = local(out)
    copies = COPIES.get(examples.task.name, 20) if copies is None else copies
    _check(examples, model, out, copies, p, candidates)
    vectors = None if glove is None else read_glove(glove)
    texts = list(dict.fromkeys((*examples.first, *(examples.second or ()))))
    facts = {
        "source": source or examples.digest,
        "vocabulary": model.vocabulary.digest,
        "weights": _digest(model.params),
        "glove": None if glove is None else files.sha256(glove),
        "settings": {"copies": copies, "p": p, "candidates": candidates, "seed": seed},
    }
    part = out.with_name(f".{out.name}.part")
    of = {"examples": examples.digest, "vocabulary": facts["vocabulary"], "weights": facts["weights"]}
    _begin(part, of | {"candidates": candidates})
    places = find_places(model.vocabulary, texts)
    near = {} if vectors is None else vectors.neighbours(places.several.values(), candidates)
    likely = likely_pieces(model, places, candidates, part, batch, progress)
    choices = _choices(model.vocabulary, places, likely, near)
    numbers = {text: number for number, text in enumerate(texts)}
    words_of = split(model.vocabulary)

    def copied(text: str, column: str, example: int) -> list[str]:
        key = draws.key(seed, "augment", column)
        return draw_copies(words_of(text), choices(numbers[text]), copies, p, key, example)

    with hf_files.whole_folder(out) as made:
        count = write_augmented(made, _rows(examples, copied, None if progress else True), examples.task, facts)
    shutil.rmtree(part)
    return count


def _check(examples: Examples, model: Model, out: pathlib.Path, copies: int, p: float, candidates: int) -> None:
    """Raises UserError for what can't be augmented, before any work."""
    if not isinstance(examples, Examples):
        raise UserError(f"{examples.task.name} has answers at places of a text, which other words would move")
    if examples.split != "train":
        raise UserError(f"the {examples.split} examples of {examples.task.name} are to measure on: augment `train`")
    if not model.config.mlm:
        raise UserError("the model has no masked-LM head: augment with one that has, such as a BERT before fine-tuning")
    most = int(offered(model.vocabulary, model.vocabulary.size).sum())
    if copies < 1 or not 1 <= candidates <= most or not 0 < p <= 1:
        raise UserError(
            f"copies={copies}, candidates={candidates}, p={p}: take at least 1 copy, 1 to {most:,} candidates, and a "
            "chance above 0 and up to 1"
        )
    if out.exists():
        raise UserError(f"{out} exists already: use it, or choose another folder")
    files.check_writable(out)


def _digest(params: tree.Tree) -> str:
    """SHA-256, in hexadecimal, of parameters and their names and shapes."""
    digest = hashlib.sha256()
    for name, value in tree.flatten(params).items():
        digest.update(f"{name} {value.shape} {value.dtype}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _begin(part: pathlib.Path, key: Mapping[str, Any]) -> None:
    """Makes the folder of an unfinished augmentation, or checks that it is the same one's."""
    if (part / "key.json").is_file():
        if files.read_json(part / "key.json") != key:
            raise UserError(f"{part} is the beginning of another augmentation: remove it, or choose another folder")
        return
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    files.write_json(part / "key.json", key)


def likely_pieces(
    model: Model, places: Places, count: int, part: pathlib.Path, batch: int = PIECES, progress: bool = True
) -> np.ndarray:
    """The likeliest pieces at each place, the likeliest first, int32 [words, count]; -1 where the model reads none.

    Args:
      model: a masked-language model.
      places: the words of some texts.
      count: how many pieces.
      part: an existing folder, where what is computed is kept by parts, and taken up from by another call.
      batch: pieces that the model reads at a time.
      progress: show a bar.
    """
    positions = model.config.positions
    sizes = np.minimum([2 * len(pieces) + 3 for pieces in places.pieces], positions)
    asked = np.flatnonzero((places.piece >= 0) & (places.piece + 1 < positions))
    ends = np.cumsum(sizes[places.text[asked]]) // _PART
    parts = enumerate(np.split(asked, np.flatnonzero(np.diff(ends)) + 1))
    paths = {part / f"{number:06d}.npy": rows for number, rows in parts}
    likely = np.full((len(places.text), count), -1, np.int32)
    done = sum(len(rows) for path, rows in paths.items() if path.is_file())
    params, allowed = jax.device_put((model.params, offered(model.vocabulary, model.config.vocab)))
    every = 0.1 if sys.stderr.isatty() else 30  # seconds
    how = {"unit": "word", "unit_scale": True, "mininterval": every, "disable": not progress}
    with tqdm.tqdm(total=len(asked), initial=done, **how) as bar:
        for path, rows in paths.items():
            if not path.is_file():
                found = np.empty((len(rows), count), np.int32)
                for some, view in _views(model, places, rows, sizes[places.text[rows]], batch):
                    found[some] = np.asarray(_best(model.config, count, params, allowed, **view))[: len(some)]
                    bar.update(len(some))
                with files.atomic(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, found)
            try:
                likely[rows] = np.load(path)
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}): remove it, and it is computed again") from None
    return likely


def offered(vocabulary: Vocabulary, rows: int) -> np.ndarray:
    """Which rows of a word table may stand in for a word, bool [rows]: no special piece, no `[unused1]`, no padding."""
    found = np.zeros(rows, bool)
    found[: vocabulary.size] = [not re.fullmatch(r"\[.+\]", piece) for piece in vocabulary.pieces]
    return found


def _views(
    model: Model, places: Places, rows: np.ndarray, sizes: np.ndarray, batch: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray | None]]]:
    """Batches of few shapes for some places, the longest rows first.

    Args:
      model: what reads them.
      places: all of them.
      rows: which.
      sizes: how many pieces each of `rows` is long as a pair.
      batch: pieces in a batch.

    Yields:
      Which of `rows` are in the batch, and what `_best` reads; rows to fill it up are blank at its end.
    """
    config, vocabulary = model.config, model.vocabulary
    lengths = sorted({size for power in range(4, 32) for size in (2**power, 3 * 2**power // 2)})
    lengths = [length for length in lengths if length < config.positions] + [config.positions]
    order, start = np.argsort(-sizes, kind="stable"), 0
    while start < len(order):
        length = lengths[np.searchsorted(lengths, sizes[order[start]])]
        at_a_time = bert.rows_at_a_time(length)
        count = max(batch // length // at_a_time, 1) * at_a_time
        some = order[start : start + count]
        start += count
        ids = np.full((count, length), vocabulary.pad, np.int32)
        seconds, ends = np.zeros(count, np.int32), np.ones(count, np.int32)
        asked = np.zeros(count, np.int32)
        for row, place in enumerate(rows[some]):
            pieces = places.pieces[places.text[place]]
            pair = [[vocabulary.cls], pieces, [vocabulary.sep], pieces, [vocabulary.sep]]
            ends[row] = sizes[some[row]]
            ids[row, : ends[row]] = np.concatenate(pair)[: ends[row]]
            seconds[row], asked[row] = len(pieces) + 2, places.piece[place] + 1
        ids[np.arange(len(some)), asked[: len(some)]] = vocabulary.mask
        at = np.arange(length)[None]
        types = (at >= seconds[:, None]).astype(np.int32) if config.types > 1 else None
        mask = at < ends[:, None]
        yield some, {"ids": ids, "mask": mask, "types": types, "positions": asked[:, None]}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _best(config, count, params, allowed, ids, mask, types, positions):
    """The highest scored of the allowed rows of the word table at one position of each row, int32 [batch, count]."""
    scores = bert.predict(config, params, ids, mask, positions, types)[:, 0]
    return jax.lax.top_k(jnp.where(allowed[None], scores, -jnp.inf), count)[1]


def _choices(
    vocabulary: Vocabulary, places: Places, likely: np.ndarray, near: Mapping[str, Sequence[str]]
) -> Callable[[int], dict[int, Sequence[str]]]:
    """A function from a text's number to what may stand in the place of its words, by their numbers."""
    starts = np.searchsorted(places.text, np.arange(len(places.pieces) + 1))
    whole = np.array([not piece.startswith(PREFIX) for piece in vocabulary.pieces])

    def choices(text: int) -> dict[int, Sequence[str]]:
        found = {}
        for row in range(starts[text], starts[text + 1]):
            pieces = [vocabulary.pieces[piece] for piece in likely[row] if piece >= 0 and whole[piece]]
            found[int(places.word[row])] = near.get(places.several[row], ()) if row in places.several else pieces
        return found

    return choices


def _rows(examples: Examples, copied: Callable[[str, str, int], list[str]], quiet: bool | None) -> Iterator[dict]:
    """The examples, each with its copies after it, as `write_augmented` takes them."""
    seconds = examples.second or (None,) * len(examples)
    columns = zip(examples.ids, examples.first, seconds, examples.labels, strict=True)
    columns = tqdm.tqdm(columns, "writing", len(examples), unit="example", disable=quiet)
    for number, (name, first, second, label) in enumerate(columns):
        pairs = [(first, second), *((copy, second) for copy in copied(first, "first", number))]
        if second is not None:
            pairs += [(first, copy) for copy in copied(second, "second", number)]
        told = examples.task.labels[label] if examples.task.kind == "classes" else float(str(label))
        for copy, texts in enumerate(pairs):
            shown = {key: text for key, text in zip(("first", "second"), texts, strict=True) if text is not None}
            yield {"id": f"{name}.{copy}" if copy else name, **shown, "label": told}
