import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_corpus import LEXICON, cut_of, table, toy, toy_as_cut, vocabulary

from jaxdistill.data.vocab import Table
from jaxdistill.data.windows import build_windows, expand, fit_tables, longest, writable
from jaxdistill.errors import UserError


def greedy(words, documents, cost, room):
    """Windows one word at a time."""
    found = []
    for begin, end in itertools.pairwise(documents):
        at = begin
        while at < end:
            stop, used = at, 0
            while stop < end and used + cost[words[stop]] <= room:
                used += cost[words[stop]]
                stop += 1
            if used:
                found.append((at, stop))
            at = stop
    return found


@pytest.mark.parametrize("length", [8, 16, 128])
@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_equals_the_plain_loop(length, block):
    words, documents, vocabularies, tables = toy_as_cut(length)
    fitted = fit_tables(vocabularies, tables, length)
    windows = build_windows(words, documents, fitted, length, block=block)
    cost = [
        max(len(cut_of(tables, vocabularies, name, word, length - 2)) for name in tables) for word in range(LEXICON)
    ]
    expected = greedy(words.tolist(), documents.tolist(), cost, length - 2)
    assert list(zip(windows.start.tolist(), windows.stop.tolist(), strict=True)) == expected
    for name in tables:
        pieces = sum(
            len(cut_of(tables, vocabularies, name, word, length - 2)) for a, b in expected for word in words[a:b]
        )
        assert windows.pieces[name] == pieces
        assert windows.tokens(name) == pieces + 2 * len(expected)
        assert windows.padding(name) == pytest.approx(1 - (pieces + 2 * len(expected)) / (length * len(expected)))


@settings(max_examples=200, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 5), max_size=30), min_size=1, max_size=8),
    cuts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=6, max_size=6),
    block=st.integers(1, 20),
    length=st.integers(6, 12),
)
def test_any_documents_and_any_cuts(documents, cuts, block, length):
    words = np.array([word for document in documents for word in document], np.uint32)
    offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents])])
    tables = {
        name: Table(pieces=np.zeros(sum(sizes), np.int32), offsets=np.concatenate([[0], np.cumsum(sizes)]))
        for name, sizes in zip("ab", zip(*cuts, strict=True), strict=True)
    }
    cost = [max(pair) for pair in cuts]
    expected = greedy(words.tolist(), offsets.tolist(), cost, length - 2)
    if not expected:
        with pytest.raises(UserError, match="no words"):
            build_windows(words, offsets, tables, length, block=block)
        return
    windows = build_windows(words, offsets, tables, length, block=block)
    assert list(zip(windows.start.tolist(), windows.stop.tolist(), strict=True)) == expected


def test_words_are_kept_once_and_windows_are_maximal():
    length = 16
    words, documents, _, tables, windows = toy(length)
    cost = longest(tables)
    before = np.concatenate([[0], np.cumsum(cost[words])])
    used = before[windows.stop] - before[windows.start]
    assert used.max() <= length - 2
    ends = documents[np.searchsorted(documents, windows.start, side="right")]
    assert (windows.stop <= ends).all()
    more = windows.stop < ends
    assert (used[more] + cost[words[windows.stop[more]]] > length - 2).all()
    assert used.sum() == before[-1]
    assert (windows.start[1:] >= windows.stop[:-1]).all()


def test_word_longer_than_a_window_is_unknown_everywhere():
    length = 16
    _, _, vocabularies, tables = toy_as_cut(length)
    fitted = fit_tables(vocabularies, tables, length)
    for name, vocab in vocabularies.items():
        for word in range(LEXICON):
            pieces, _ = expand(fitted[name], np.array([word]))
            assert pieces.tolist() == cut_of(tables, vocabularies, name, word, length - 2)
        assert expand(fitted[name], np.array([7]))[0].tolist() == [vocab.unk]


def test_tables_that_fit_are_left_alone():
    _, _, vocabularies, tables = toy_as_cut(128)
    fitted = fit_tables(vocabularies, tables, 2000)
    assert all(fitted[name] is tables[name] for name in tables)


def test_writable():
    vocab = vocabulary(10, "a", 2)
    assert writable(table(vocab, [[vocab.unk], [0], [], [0, vocab.unk], [1, 1]]), vocab.unk).tolist() == [0, 1, 0, 0, 1]


def test_bad_input():
    words, documents, vocabularies, tables = toy_as_cut(16)
    with pytest.raises(UserError, match="length 2"):
        fit_tables(vocabularies, tables, 2)
    with pytest.raises(UserError, match="same names"):
        fit_tables(vocabularies, {"teacher": tables["teacher"]}, 16)
    short = table(vocabularies["student"], [[8]])
    with pytest.raises(UserError, match="different lexicons"):
        fit_tables(vocabularies, {**tables, "student": short}, 16)
    with pytest.raises(ValueError, match="fit_tables"):
        build_windows(words, documents, tables, 16)
    with pytest.raises(UserError, match="no words"):
        build_windows(words[:0], np.array([0]), fit_tables(vocabularies, tables, 16), 16)


def test_a_word_that_just_fits_is_kept():
    vocab = vocabulary(10, "a", 2)
    cuts = [[vocab.unk], [0] * 6, [0] * 7]
    fitted = fit_tables({"a": vocab}, {"a": table(vocab, cuts)}, 8)["a"]
    assert fitted.lengths.tolist() == [1, 6, 1]
    windows = build_windows(np.array([1, 2, 1, 0], np.uint32), np.array([0, 4]), {"a": fitted}, 8)
    assert list(zip(windows.start, windows.stop, strict=True)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
