"""A small corpus with every kind of word, by hand-made tables, for the tests of windows and batches."""

import math

import numpy as np

from jaxdistill.data.batches import Batches
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import Table, Vocabulary
from jaxdistill.data.windows import build_windows, fit_tables

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LEXICON = 60
VIEWS = {"student": View("student"), "teacher": View("teacher", "student")}
STRIDE, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def vocabulary(size: int, letter: str, first: int) -> Vocabulary:
    """Pieces by number; the specials start at id `first`, so that the two vocabularies have them elsewhere."""
    plain = [f"{letter}{i}" for i in range(size - len(SPECIALS))]
    return Vocabulary((*plain[:first], *SPECIALS, *plain[first:]))


def table(vocab: Vocabulary, cuts: list[list[int]]) -> Table:
    lengths = [len(cut) for cut in cuts]
    pieces = np.array([piece for cut in cuts for piece in cut], np.int32)
    return Table(pieces=pieces, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def toy_as_cut(length: int, documents=(300, 3, 0, 1, 500, 80), seed: int = 0, longest: int = 5):
    """Words, documents, vocabularies, and tables in which one word is longer than `length`."""
    random = np.random.default_rng(seed)
    vocabularies = {"teacher": vocabulary(50, "t", 0), "student": vocabulary(30, "s", 7)}
    cuts = {}
    for name, vocab in vocabularies.items():
        ordinary = np.setdiff1d(np.arange(vocab.size), vocab.specials)
        most = longest if name == "student" else 3
        cuts[name] = [random.choice(ordinary, random.integers(1, most + 1)).tolist() for _ in range(LEXICON)]
        cuts[name][0] = [vocab.unk]
        cuts[name][3] = []  # empty under both
    cuts["student"][1] = [vocabularies["student"].unk]
    cuts["teacher"][2] = [vocabularies["teacher"].unk]
    cuts["student"][4] = []  # empty under one only
    cuts["teacher"][5] = []
    cuts["teacher"][6] = [vocabularies["teacher"].unk, 40]  # partly unknown
    cuts["student"][7] = [8, 9] * length  # longer than any window under one
    tables = {name: table(vocabularies[name], cuts[name]) for name in cuts}
    words = random.integers(0, LEXICON, sum(documents)).astype(np.uint32)
    offsets = np.concatenate([[0], np.cumsum(documents)]).astype(np.int64)
    return words, offsets, vocabularies, tables


def toy(length: int, **more):
    """Words, documents, vocabularies, tables made to fit, and windows of `length` positions."""
    words, documents, vocabularies, tables = toy_as_cut(length, **more)
    tables = fit_tables(vocabularies, tables, length)
    return words, documents, vocabularies, tables, build_windows(words, documents, tables, length)


def cut_of(tables, vocabularies, name: str, word: int, room: int) -> list[int]:
    """The pieces of a word in a window with so much room, as plain Python."""

    def cut(which):
        offsets = tables[which].offsets
        return tables[which].pieces[offsets[word] : offsets[word + 1]].tolist()

    return [vocabularies[name].unk] if max(len(cut(which)) for which in tables) > room else cut(name)


def make(length=24, batch=8, masking=None, views=VIEWS, seed=3, **more) -> Batches:
    words, _, vocabularies, tables, windows = toy(length, **more)
    masking = masking or Masking(predictions=6)
    counts = 10 ** (np.arange(LEXICON) % 7) // 10  # Made up: 0, 1, 10, ..., 100,000.
    return Batches(words, windows, vocabularies, tables, views, batch, masking, seed, counts)


def bits(start: int, *coordinates: int) -> int:
    """The hash of a key and coordinates, in plain whole numbers."""
    for coordinate in coordinates:
        state = (start + (coordinate + 1) * STRIDE) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        start = state ^ (state >> 31)
    return start


def unit(value: int) -> float:
    return (value >> 11) / 2**53


def half_up(x: float) -> int:
    return math.floor(x + 0.5)


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[r][n], b[r][n]) for r in a for n in a[r] | b[r])
