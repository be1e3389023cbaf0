"""A word table from another vocabulary's, against cuts by hand and plain loops."""

import numpy as np
import pytest

from jaxdistill.data.vocab import SPECIALS, Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.transplant import recut, word_table

THEIRS = ("the", "house", "cafe", "##hold", "##ho", "##hou", "##u", "##se", "##s", "##h", "##o", "s")
OTHER = Vocabulary((*THEIRS, *reversed(SPECIALS)))
BY_HAND = {
    "the": ["the"],
    "House": ["house"],
    "household": ["house", "##hold"],
    "café": ["cafe"],
    "##hold": ["##hold"],
    "##HOLDS": ["##hold", "##s"],
    "##house": ["##hou", "##se"],
    "##hohouh": ["##ho", "##hou", "##h"],
    "##é": [],
    "zebra": [],
    "thez": [],
    "##sz": [],
    "[MASK]": ["[MASK]"],
    "[UNK]": ["[UNK]"],
    "[CLS]": ["[CLS]"],
    "[PAD]": ["[PAD]"],
    "[SEP]": ["[SEP]"],
}


def test_pieces_are_cut_as_the_other_tokenizer_would():
    found = recut(Vocabulary(tuple(BY_HAND), lowercase=False), OTHER)
    assert [[OTHER.pieces[piece] for piece in pieces] for pieces in found] == list(BY_HAND.values())


def test_a_vocabulary_spells_itself():
    assert recut(OTHER, OTHER) == [[piece] for piece in range(OTHER.size)]


def test_rows_are_principal_parts_of_mean_rows():
    draw = np.random.default_rng(0)
    source = draw.normal(1, 1, (12, 7)).astype(np.float32)
    base = draw.normal(0, 0.02, (11, 3)).astype(np.float32)
    cuts = [[0], [3, 4, 4], [], [11, 2], [5], [6], [7, 8], [9], [10, 1]]
    found = word_table(base, source, cuts)

    means = [np.mean([np.float64(source[piece]) for piece in pieces], 0) for pieces in cuts if pieces]
    centre = sum(means) / len(means)
    spread = sum(np.outer(mean - centre, mean - centre) for mean in means)
    values, vectors = np.linalg.eigh(spread)
    axes = []
    for number in np.argsort(-values)[:3]:
        axis = vectors[:, number]
        axes.append(axis if max(axis) == max(abs(axis)) else -axis)
    turn = [[np.cos(np.pi / 3 * (i + 0.5) * (j + 0.5)) * (2 / 3) ** 0.5 for j in range(3)] for i in range(3)]
    rows = [np.array([axis @ (mean - centre) for axis in axes]) @ turn for mean in means]
    scale = np.sqrt(np.mean(np.float64(base) ** 2) / np.mean(np.square(rows)))
    expected, left = np.array(base), iter(rows)
    for row, pieces in enumerate(cuts):
        if pieces:
            expected[row] = scale * np.array(next(left))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert np.array_equal(found[[2, 9, 10]], base[[2, 9, 10]])


def test_columns_are_alike_and_distances_stay():
    """Principal axes alone would make the first column the largest by far."""
    draw = np.random.default_rng(1)
    source = draw.normal(0, np.geomspace(3, 1, 16), (500, 16))
    base = draw.normal(0, 0.02, (500, 16))
    found = word_table(base, source, [[row] for row in range(500)])
    np.testing.assert_allclose(np.sqrt(np.mean(found**2, 0)), 0.02, rtol=0.3)
    near, far = (np.linalg.norm(table[1:] - table[0], axis=1) for table in (found, source))
    np.testing.assert_allclose(near / far, near[0] / far[0], rtol=1e-5)


def test_a_source_that_knows_too_few_pieces_is_refused():
    with pytest.raises(UserError, match="can spell 3 of 4 pieces, too few to start a table that is 3 wide"):
        word_table(np.zeros((9, 3)), np.ones((5, 4)), [[0], [1], [], [2]])
