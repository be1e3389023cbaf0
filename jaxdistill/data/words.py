"""BERT's words of a text: cleaned and pre-tokenised by the Rust `tokenizers` library, kept as written.

Cleaning and pre-tokenisation look at one character at a time and always part at white space. So the Rust library reads
each *distinct* string between white space once, and numpy copies its words to every place where it stands: several
times the speed of its own pass over whole lines, with the same words (the tests compare both, for every code point).
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

LONGEST_WORD = 100
"""Longer words all become the empty word: BERT's tokenizers cut them to [UNK] whatever the vocabulary."""

PIECE = 1 << 20
GIANT = 1 << 16

_NORMALIZER = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
_PRE_TOKENIZER = BertPreTokenizer()

_CONTROLS = bytes(c for c in (*range(0x20), 0x7F) if c not in b"\t\n\r")
_NEWLINE = b"\x01"


@dataclass(frozen=True)
class Encoded:
    """One chunk of text as ranks in its own sorted words.

    Attributes:
      words: the distinct words in the order of their UTF-8 bytes; the first is "", which stands for over-long words.
      ids: uint32 [n], the rank of each word of the text.
      documents: int64 [d], where a document starts: indices into `ids`, the chunk's own start excluded.
      lines: how many lines with words start inside, the chunk's own start excluded.
      leading: newlines before the first word.
      trailing: newlines after the last word (the same as `leading` when there is no word).
    """

    words: list[str]
    ids: np.ndarray
    documents: np.ndarray
    lines: int
    leading: int
    trailing: int


def split_words(text: str) -> list[str]:
    """The words of a text by BERT's rules: clean, part at white space, punctuation and Chinese characters."""
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]


_MARKS = tuple(bytes([c]) for c in range(0x21, 0x7F) if len(split_words(f"a{chr(c)}a")) == 3)
"""Characters of ASCII that are words by themselves: space around them changes nothing, and leaves fewer strings."""


def _token_words(token: bytes) -> list[str]:
    """The words of a string without ASCII white space; ASCII letters and digits alone are one word by any reading."""
    found = [token.decode()] if token.isalnum() else split_words(token.decode())
    return [word if len(word) <= LONGEST_WORD else "" for word in found]


def encode(pieces: Iterable[bytes]) -> Encoded:
    """Turns pieces of UTF-8 text, each ending where a word may end, into words and line structure.

    A line ends at a newline; a line without words ends a document.
    """
    index = collections.defaultdict(itertools.count(1).__next__, {_NEWLINE: 0})
    streams = []
    for piece in pieces:
        text = piece.translate(None, _CONTROLS).replace(b"\n", _NEWLINE)
        for mark in (_NEWLINE, *_MARKS):
            text = text.replace(mark, b" " + mark + b" ")
        tokens = text.split()
        streams.append(np.fromiter(map(index.__getitem__, tokens), np.uint32, len(tokens)))

    cuts = [_token_words(token) for token in index if token != _NEWLINE]
    words = sorted({""}.union(*cuts))
    rank = {word: number for number, word in enumerate(words)}
    newline = len(words)
    lengths = np.fromiter((1, *map(len, cuts)), np.int64, len(index))
    flat = np.fromiter((newline, *(rank[word] for cut in cuts for word in cut)), np.uint32, lengths.sum())
    starts = np.cumsum(lengths) - lengths
    del cuts, rank, index

    ids = np.concatenate([_gather(flat, starts, lengths, stream) for stream in streams] or [flat[:0]])
    return _structure(words, ids, newline)


def _gather(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Concatenates `flat[starts[r] : starts[r] + lengths[r]]` over rows."""
    sizes = lengths[rows]
    ends = np.cumsum(sizes)
    total = ends[-1] if len(ends) else 0
    return flat[np.arange(total) + np.repeat(starts[rows] - ends + sizes, sizes)]


def _structure(words: list[str], stream: np.ndarray, newline: int) -> Encoded:
    """Takes the newlines out of a stream of words and turns them into lines and documents."""
    is_newline = stream == newline
    ids = stream[~is_newline]
    places = np.flatnonzero(is_newline)
    places -= np.arange(len(places))
    between, newlines = np.unique(places[(places > 0) & (places < len(ids))], return_counts=True)
    return Encoded(
        words=words,
        ids=ids,
        documents=between[newlines > 1].astype(np.int64),
        lines=len(between),
        leading=int(np.count_nonzero(places == 0)),
        trailing=int(np.count_nonzero(places == len(ids))),
    )


@functools.lru_cache(1 << 16)
def _parts_words(character: str) -> bool:
    """Whether no word reaches across this character: white space, punctuation, a Chinese character."""
    return len(split_words(f"a{character}a")) > 1


@functools.lru_cache(1 << 16)
def _is_dropped(character: str) -> bool:
    return split_words(f"a{character}a") == ["aa"]


def _part(text: str) -> tuple[str, str]:
    """Parts a long text without ASCII white space where that changes no word, and shortens the word that is left open.

    Returns:
      What is finished, and what stands for the open word: itself, or its start where it is over-long already.
    """
    characters = set(text)
    cut = 1 + max((text.rfind(c) for c in characters if _parts_words(c)), default=-1)
    done, rest = text[:cut], text[cut:]
    if len(rest) > LONGEST_WORD:
        dropped = str.maketrans(dict.fromkeys(filter(_is_dropped, characters)))
        rest = rest.translate(dropped)[: LONGEST_WORD + 1]
    return done, rest


def split_pieces(blocks: Iterable[bytes], size: int = PIECE) -> Iterator[bytes]:
    """Re-cuts valid UTF-8 text, given in any blocks, into pieces of about `size` bytes that end where a word may end.

    Memory stays flat whatever the text: of a word that goes on and on only a start longer than `LONGEST_WORD` is kept.
    """
    held: list[bytes] = []
    amount = 0
    for block in blocks:
        for start in range(0, len(block), size):
            held.append(block[start : start + size])
            amount += len(held[-1])
            if amount < size:
                continue
            text = b"".join(held)
            cut = 1 + max(text.rfind(b" "), text.rfind(b"\n"))
            if cut:
                yield text[:cut]
            rest = text[cut:]
            if len(rest) >= min(GIANT, size):
                whole = rest.decode("utf-8", "ignore")
                done, open_word = _part(whole)
                if done:
                    yield done.encode()
                rest = open_word.encode() + rest[len(whole.encode()) :]
            held, amount = [rest], len(rest)
    if text := b"".join(held):
        yield text
