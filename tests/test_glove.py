import gzip

import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.tasks import glove
from jaxdistill.tasks.glove import read_glove


@pytest.fixture
def table(tmp_path) -> tuple:
    """A file of 400 words in 5 dimensions, and what it holds."""
    numbers = np.random.default_rng(0).normal(size=(400, 5)).round(4)
    words = [f"w{row}" for row in range(400)]
    words[7] = ". . ."
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, numbers, strict=True)]
    (tmp_path / "glove.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "glove.txt", words, numbers


def test_neighbours_are_the_nearest_by_cosine(table, monkeypatch):
    monkeypatch.setattr(glove, "_BLOCK", 3)
    path, words, numbers = table
    asked = ["w5", ". . .", "w17", "w399", "w5", "absent"]
    found = read_glove(path).neighbours(asked, 6)
    assert found.keys() == set(asked) - {"absent"}
    for word, nearest in found.items():
        own = numbers[words.index(word)]
        cosine = {
            other: float(own @ row / np.sqrt((own @ own) * (row @ row)))
            for other, row in zip(words, numbers, strict=True)
            if other != word
        }
        assert nearest == sorted(cosine, key=lambda other: -cosine[other])[:6]


def test_no_more_neighbours_than_other_words(table):
    found = read_glove(table[0], rows=4).neighbours(["w1"], 15)["w1"]
    assert sorted(found) == ["w0", "w2", "w3"]


def test_a_compressed_file_and_the_first_rows(table, tmp_path):
    path, words, numbers = table
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    whole, some = read_glove(tmp_path / "glove.txt.gz"), read_glove(path, rows=30)
    assert whole.words == tuple(words) and some.words == tuple(words[:30])
    expected = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    np.testing.assert_allclose(whole.vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(some.vectors, whole.vectors[:30])


def test_a_vector_of_zeros_and_a_word_twice(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("a 0 0\nb 1 0\nb 0 1\nc 1 0.1\u0085\u2028 1 1\n".replace("\u0085", "\n"), encoding="utf-8")
    found = read_glove(path)
    assert np.isfinite(found.vectors).all() and found.words == ("a", "b", "b", "c", "\u2028")
    assert found.neighbours(["b"], 1) == {"b": ["c"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2 3\na 1 2 3\nb 1 2 3\n", r"line 1: '2' has 1 numbers.*no header"),
        (b"a 1 2 3\nb 1 2\n", "line 2: 'b' has 2 numbers"),
        (b"a 1 2 3\nb 1 2 x\n", "line 2: could not convert string to float: 'x'"),
        (b"a 1 2 3\nb c 1 2\n\n", "line 2: could not convert string to float: 'c'"),
        (b"a 1 2 3\nb 1 nan 2\n", "line 2: 'b' has 3 numbers, or one that is not finite"),
        (b"a 1 2 3\n\nb 1 2 3\n", "line 2: '' has 0 numbers"),
        (b"a 1 2 3\n\xff 1 2 3\n", "line 2 is not UTF-8"),
        (b"a 1 2 3\n", "has 1 rows"),
        (b"", "has 0 rows"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    path = tmp_path / "glove.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_glove(path)


def test_unreadable_files_are_refused(table, tmp_path):
    with pytest.raises(UserError, match=r"absent.txt can't be read"):
        read_glove(tmp_path / "absent.txt")
    whole = gzip.compress(table[0].read_bytes())
    for content in (whole[:-20], b"w1 1 2 3\n", whole[:40] + b"!" * 40 + whole[80:]):
        (tmp_path / "torn.txt.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"torn.txt.gz"):
            read_glove(tmp_path / "torn.txt.gz")
