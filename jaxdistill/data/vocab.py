"""A WordPiece vocabulary, its files, and its table over the words of a lexicon.

A `Vocabulary` is the list of pieces with BERT's cutting settings. Its files are those of Hugging Face (`vocab.txt`,
`tokenizer.json`, `tokenizer_config.json`); nothing in a folder is ever executed.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxdistill.data.words import LONGEST_WORD
from jaxdistill.errors import UserError
from jaxdistill.files import read_json, write_json, write_text
from jaxdistill.places import make_folder, place

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"
_CUT_BATCH = 16_384  # words handed to the Rust tokenizer at once
_TOO_LONG = "a" * (LONGEST_WORD + 1)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """WordPieces and the settings under which BERT's tokenizer cuts with them.

    Attributes:
      pieces: the pieces in the order of their ids; those that continue a word start with `##`.
      lowercase: words are lower-cased before they are cut.
      strip_accents: accents are removed; None means as `lowercase` says, like the original BERT.
      chinese: every CJK ideograph is a word of its own (`tokenize_chinese_chars`).

    Raises:
      UserError: a special piece is missing, a piece is blank, or a piece occurs twice.
    """

    pieces: tuple[str, ...]
    lowercase: bool = True
    strip_accents: bool | None = None
    chinese: bool = True

    def __post_init__(self):
        object.__setattr__(self, "pieces", tuple(self.pieces))
        _check(self.pieces, "the vocabulary")

    @property
    def size(self) -> int:
        """How many pieces there are."""
        return len(self.pieces)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Piece → id."""
        return {piece: index for index, piece in enumerate(self.pieces)}

    @property
    def pad(self) -> int:
        """Id of `[PAD]`."""
        return self.ids["[PAD]"]

    @property
    def unk(self) -> int:
        """Id of `[UNK]`."""
        return self.ids["[UNK]"]

    @property
    def cls(self) -> int:
        """Id of `[CLS]`."""
        return self.ids["[CLS]"]

    @property
    def sep(self) -> int:
        """Id of `[SEP]`."""
        return self.ids["[SEP]"]

    @property
    def mask(self) -> int:
        """Id of `[MASK]`."""
        return self.ids["[MASK]"]

    @property
    def specials(self) -> tuple[int, ...]:
        """Ids of `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`."""
        return tuple(self.ids[piece] for piece in SPECIALS)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the pieces and the settings."""
        return hashlib.sha256(json.dumps(dataclasses.astuple(self)).encode()).hexdigest()

    def normalizer(self) -> normalizers.Normalizer:
        """BERT's cleaning, accents and case, as this vocabulary sets them."""
        return normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.chinese,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )

    def word_tokenizer(self) -> tokenizers.Tokenizer:
        """BERT's pipeline without special pieces: a `[MASK]` written in the text is plain text."""
        model = models.WordPiece(
            self.ids, unk_token="[UNK]", continuing_subword_prefix=PREFIX, max_input_chars_per_word=LONGEST_WORD
        )
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.normalizer = self.normalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
        return tokenizer

    def tokenizer(self) -> tokenizers.Tokenizer:
        """BERT's whole pipeline: special pieces, `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`."""
        tokenizer = self.word_tokenizer()
        tokenizer.add_special_tokens(list(SPECIALS))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls), ("[SEP]", self.sep)],
        )
        return tokenizer


def digests(vocabularies: Mapping[str, Vocabulary]) -> dict[str, str]:
    """Hashes of vocabularies, by a name that the user knows."""
    return {f"vocabulary of {name}": vocabulary.digest for name, vocabulary in vocabularies.items()}


def _check(pieces: Sequence[str], where: str) -> None:
    """Raises UserError unless the specials are there and every piece is there once."""
    for index, piece in enumerate(pieces):
        if not piece.strip(" \t\r\n"):
            raise UserError(f"{where}: line {index + 1} is blank; every line must hold one piece")
    known = set(pieces)
    missing = [piece for piece in SPECIALS if piece not in known]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}: a BERT vocabulary has {', '.join(SPECIALS)}")
    if len(known) != len(pieces):
        twice = [piece for piece, count in Counter(pieces).items() if count > 1]
        named = ", ".join(repr(piece) for piece in twice[:5]) + (", ..." if len(twice) > 5 else "")
        raise UserError(f"{where} holds {len(twice)} pieces more than once: {named}; each piece needs one line")


def read_vocabulary(path: str | os.PathLike) -> Vocabulary:
    """Reads a `vocab.txt`, or the tokenizer of a model folder, without running anything from it.

    In a folder the pieces come from `tokenizer.json`, else `vocab.txt`; the settings from `tokenizer_config.json`, else
    `tokenizer.json`, else BERT's defaults (the order of `transformers`). A `vocab.txt` takes the settings that lie
    beside it; alone, it is cased when a piece has a capital letter.

    Raises:
      UserError: a file is missing or unreadable, the tokenizer is not BERT's WordPiece, or it asks for its own code;
        a special piece is missing, a piece is blank or occurs twice.
    """
    path = place(path)
    folder = path if path.is_dir() else path.parent
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else None
    _check_config(config, folder)
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path} does not exist: give a vocab.txt or a model folder")
        pieces, settings = _read_pieces(path), {}
        if config is None:
            settings["lowercase"] = not any(_has_capital(piece) for piece in pieces)
        where = path
    elif (folder / "tokenizer.json").is_file():
        where = folder / "tokenizer.json"
        pieces, settings = _read_tokenizer_json(where)
    elif (folder / "vocab.txt").is_file():
        where = folder / "vocab.txt"
        pieces, settings = _read_pieces(where), {}
    else:
        raise UserError(f"{folder} has neither tokenizer.json nor vocab.txt: is it a BERT model's folder?")
    names = {"lowercase": "do_lower_case", "strip_accents": "strip_accents", "chinese": "tokenize_chinese_chars"}
    settings |= {ours: config[theirs] for ours, theirs in names.items() if config and theirs in config}
    _check(pieces, str(where))
    return Vocabulary(tuple(pieces), **settings)


def _has_capital(piece: str) -> bool:
    return piece not in SPECIALS and any("A" <= character <= "Z" for character in piece)


def _check_config(config: Any, folder: pathlib.Path) -> None:
    """Raises UserError for a tokenizer_config.json that we can't honour."""
    if config is None:
        return
    where = folder / "tokenizer_config.json"
    if not isinstance(config, dict):
        raise UserError(f"{where} is not a JSON object")
    if "auto_map" in config:
        raise UserError(f"{where} asks to run code of its own (auto_map); only BERT's WordPiece tokenizer is read")
    for key in ("do_lower_case", "tokenize_chinese_chars"):
        if not isinstance(config.get(key, True), bool):
            raise UserError(f"{where}: {key} must be true or false, not {config[key]!r}")
    if config.get("strip_accents") not in (None, True, False):
        raise UserError(f"{where}: strip_accents must be true, false or null, not {config['strip_accents']!r}")


def _read_pieces(path: pathlib.Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): a vocabulary is one piece a line") from None
    lines = text.removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _read_tokenizer_json(path: pathlib.Path) -> tuple[list[str], dict[str, Any]]:
    """Pieces in order and settings of a `tokenizer.json`, which must be BERT's pipeline."""
    content = read_json(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise UserError(f"{path} is not a tokenizer's file: it has no model")
    # Files older than tokenizers 0.10 have no type; only WordPiece has this prefix.
    kind = model.get("type", "WordPiece" if "continuing_subword_prefix" in model else "unknown")
    if kind != "WordPiece":
        raise UserError(f"{path} holds a {kind} tokenizer: only WordPiece (BERT's) can be read")
    expected = {"unk_token": "[UNK]", "continuing_subword_prefix": PREFIX, "max_input_chars_per_word": LONGEST_WORD}
    for key, value in expected.items():
        if model.get(key, value) != value:
            raise UserError(f"{path}: {key} is {model[key]!r}, BERT's is {value!r}; other WordPieces can't be read")
    normalizer = content.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or normalizer.get("clean_text") is False:
        raise UserError(
            f"{path}: its normalizer is {normalizer.get('type')}, not BERT's; it would cut otherwise than we"
        )
    if (content.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer":
        raise UserError(f"{path}: its pre_tokenizer is not BERT's: it cuts otherwise")
    ids = model.get("vocab")
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{path}: the ids of its pieces are not 0 to {len(ids or ()) - 1}, each once")
    extra = [
        token["content"] for token in content.get("added_tokens") or () if ids.get(token["content"]) != token["id"]
    ]
    if extra:
        raise UserError(f"{path} adds pieces outside its vocabulary: {', '.join(map(repr, extra[:5]))}")
    settings = {
        "lowercase": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "chinese": normalizer.get("handle_chinese_chars", True),
    }
    return sorted(ids, key=ids.__getitem__), settings


def write_tokenizer(
    vocabulary: Vocabulary, folder: str | os.PathLike, max_length: int, kind: str = "BertTokenizer"
) -> None:
    """Writes the files from which `transformers` loads the vocabulary.

    They are `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
      vocabulary: what to write.
      folder: made if it does not exist; files of these names are replaced.
      max_length: the longest input of the model in pieces, specials counted.
      kind: the class that `AutoTokenizer` loads; a `DistilBertTokenizer` gives no token types.
    """
    folder = place(folder)
    make_folder(folder)
    named = {f"{piece.strip('[]').lower()}_token": piece for piece in SPECIALS}
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in vocabulary.pieces))
    write_text(folder / "tokenizer.json", vocabulary.tokenizer().to_str(pretty=True) + "\n")
    write_json(folder / "special_tokens_map.json", named)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": kind,
            "do_lower_case": vocabulary.lowercase,
            "strip_accents": vocabulary.strip_accents,
            "tokenize_chinese_chars": vocabulary.chinese,
            "model_max_length": max_length,
            **named,
        },
    )


@dataclasses.dataclass(frozen=True)
class Table:
    """The pieces of every word of a lexicon under one vocabulary.

    Attributes:
      pieces: ids of all words' pieces, one word after the other, int32 `[total]`.
      offsets: where each word starts, int64 `[words + 1]`.
    """

    pieces: np.ndarray
    offsets: np.ndarray

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """How many pieces each word has, int32 `[words]`."""
        return np.diff(self.offsets).astype(np.int32)


def cut(vocabulary: Vocabulary, words: Sequence[str]) -> Table:
    """Cuts each word by the vocabulary's own tokenizer, case and accents included, without special pieces.

    Cutting word by word equals cutting the lines that the words came from. A word that cleans to nothing has length 0;
    the empty word, the lexicon's entry of all over-long words, is `[UNK]`.

    Args:
      vocabulary: what to cut with.
      words: as written, as a corpus has them; text such as `[MASK]` is plain text.

    Raises:
      UserError: the vocabulary does not part Chinese characters, as the words of a corpus are.
    """
    if not vocabulary.chinese:
        raise UserError(
            "a vocabulary has tokenize_chinese_chars false: its tokenizer keeps Chinese characters together, but a "
            "corpus has each as a word of its own, so that they would be cut otherwise. Choose another vocabulary; or, "
            "where the text has no such characters, set it to true in tokenizer_config.json: nothing else changes"
        )
    tokenizer = vocabulary.word_tokenizer()
    lengths, pieces = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
    for start in range(0, len(words), _CUT_BATCH):
        batch = [word or _TOO_LONG for word in words[start : start + _CUT_BATCH]]
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
        pieces.append(np.fromiter(itertools.chain.from_iterable(ids), np.int32, int(lengths[-1].sum())))
    return Table(np.concatenate(pieces), np.cumsum(np.concatenate(lengths)))
