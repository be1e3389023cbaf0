import os
import subprocess
import sys

import pytest

from jaxdistill.data import documentation
from jaxdistill.data.documentation import prose, write_documentation
from jaxdistill.errors import UserError

NUMPY_STYLE = """
    Return the smaller of two arrays. It is
    computed element by element.

    The second paragraph cites [1]_ and names ``np.max`` for contrast.

    Parameters
    ----------
    x1, x2 : array_like
        The arrays that are compared. They must have one shape.
    out : ndarray, optional
        A place where the result is stored.

    .. note:: Notes are prose as well.

    .. code-block:: python

        This sentence sits inside a code block.

    Use it like this::

        This sentence sits inside a literal block.

    Examples
    --------
    >>> np.minimum([2, 3], [1, 5])
    This is printed by the example.

    References
    ----------
    .. [1] See https://example.org/minimum for the whole story.
    """

GOOGLE_STYLE = """Builds the *whole* tree of `names`.

    Args:
      names: The names that are wanted.
      depth (int, optional): How deep the tree
        may become at most.
      path (`str`):
        The folder where the tree is found.

    Returns:
      A tree with one leaf for each name.

      x = tree[names[0]] + {3: 4}

    * The first point of a list.
    * The second point of a list.
    """


def test_numpy_docstrings_become_sentences():
    assert prose(NUMPY_STYLE) == [
        ["Return the smaller of two arrays.", "It is computed element by element."],
        ["The second paragraph cites and names np.max for contrast."],
        ["The arrays that are compared.", "They must have one shape."],
        ["A place where the result is stored."],
        ["Notes are prose as well."],
    ]


def test_google_docstrings_become_sentences():
    assert prose(GOOGLE_STYLE) == [
        ["Builds the whole tree of names."],
        ["The names that are wanted."],
        ["How deep the tree may become at most."],
        ["The folder where the tree is found."],
        ["A tree with one leaf for each name."],
        ["The first point of a list."],
        ["The second point of a list."],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def f(x): return x.",
        "Two words.",
        "no capital letter at the start.",
        "No full stop at the end",
        "A | B | C | D.",
    ],
)
def test_what_is_no_sentence_is_dropped(text):
    assert prose(text) == []


def test_roles_and_links_leave_their_text():
    assert prose("Calls :func:`~os.path.join` as `the manual <https://example.org>`_ says it does.") == [
        ["Calls os.path.join as the manual says it does."]
    ]


def test_strings_and_comments_are_read_without_importing(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""The module says this first."""\n'
        "# The comment comes second and\n# runs over two lines.\n"
        'raise SystemExit("The message comes as the third text.")\n'
    )
    assert documentation.texts(path) == [
        "The module says this first.",
        "The comment comes second and\nruns over two lines.",
        "The message comes as the third text.",
    ]
    path.write_text("this is (not Python")
    assert documentation.texts(path) == []


def test_this_installation_carries_english():
    found = dict(documentation.documentation(limit_bytes=400_000))
    text = "".join(found.values())
    assert 400_000 <= len(text.encode()) < 800_000
    assert sum(name.startswith("topics/") for name in found) > 50
    sentences = [part for line in text.splitlines() for part in documentation._END.split(line)]
    assert len(set(sentences)) > 0.999 * len(sentences)
    words = text.lower().split()
    assert words.count("the") > 0.04 * len(words)  # English has 5 to 7 in a hundred.
    assert sum(word.strip(".,;:()\"'").isalpha() for word in words) > 0.85 * len(words)


def test_the_text_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib, sys; from jaxdistill.data.documentation import documentation\n"
        "print(hashlib.sha256(repr(list(documentation(300_000))).encode()).hexdigest())\n"
        "print({'jax', 'scipy', 'pydoc_data.topics'} & set(sys.modules))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in "12"
    }
    assert len(printed) == 1
    assert printed.pop().endswith("set()\n"), "documentation is read without importing anything"


def test_held_out_documents_share_nothing_with_the_others(tmp_path):
    sizes = write_documentation(tmp_path / "a.txt", tmp_path / "b.txt", held_out_share=0.2, limit_bytes=400_000)
    train, held_out = (tmp_path / "a.txt").read_text(), (tmp_path / "b.txt").read_text()
    assert sizes == {"train": len(train.encode()), "held_out": len(held_out.encode())}
    assert 0.1 < sizes["held_out"] / sum(sizes.values()) < 0.3
    assert not set(train.split("\n")) & set(held_out.split("\n")) - {""}
    documents = train.rstrip("\n").split("\n\n")
    assert len(documents) > 50 and all(document.strip() for document in documents)


def test_an_installation_without_documentation_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(documentation, "_sources", lambda: iter([("one", ["The only sentence there is."])]))
    with pytest.raises(UserError, match="--text"):
        write_documentation(tmp_path / "a.txt", tmp_path / "b.txt")
    assert list(tmp_path.iterdir()) == []
