"""A word table made from that of a model with another vocabulary and another width."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxdistill.data.vocab import PREFIX, SPECIALS, Vocabulary
from jaxdistill.errors import UserError


def recut(vocabulary: Vocabulary, other: Vocabulary) -> list[list[int]]:
    """Each piece of a vocabulary in the pieces of another one, by their ids there; empty where it has none.

    A piece that starts a word is cut by the other's tokenizer as the word that it is. One that continues a word gets
    the other's cleaning, accents and case, and is cut into pieces that continue a word, longest match first. Special
    pieces are the other's.
    """
    tokenizer, normalizer = other.word_tokenizer(), other.normalizer()
    found = []
    for piece in vocabulary.pieces:
        if piece in SPECIALS:
            found.append([other.ids[piece]])
            continue
        if piece.startswith(PREFIX):
            text = normalizer.normalize_str(piece.removeprefix(PREFIX))
            ids = _continue("".join(text.split()), other.ids)
        else:
            ids = tokenizer.encode(piece, add_special_tokens=False).ids
        found.append([] if other.unk in ids else ids)
    return found


def _continue(text: str, ids: Mapping[str, int]) -> list[int]:
    """Pieces that continue a word, longest match first; empty when they do not reach the end."""
    found = []
    while text:
        end = next((end for end in range(len(text), 0, -1) if PREFIX + text[:end] in ids), 0)
        if not end:
            return []
        found.append(ids[PREFIX + text[:end]])
        text = text[end:]
    return found


def word_table(base: np.ndarray, source: np.ndarray, cuts: Sequence[Sequence[int]]) -> np.ndarray:
    """A start for a word table: what `source` knows of each piece, in the width and at the scale of `base`.

    A row is the mean of its pieces' rows in `source`, on the principal axes of all these means, about their own mean;
    the largest entry of an axis is positive. A cosine transform (DCT-IV) turns the axes, and with the root mean square
    of `base` all columns are then like its own. Along the axes themselves the first would be more than twice as large,
    and in the way of heads that look at their neighbours: the first one's attention to the word before fell from 0.22
    to 0.14, for 48 columns from MiniLM's table. Rows without pieces are those of `base`.

    Args:
      base: the table of a random start, [vocab, width].
      source: another model's table, at least as wide, [other vocab, other width].
      cuts: rows of `source` for the first rows of the table, see `recut`.

    Returns:
      float32 [vocab, width].

    Raises:
      UserError: `source` knows too few of the pieces.
    """
    width = base.shape[1]
    known = [row for row, pieces in enumerate(cuts) if pieces]
    if len(known) <= width:
        raise UserError(
            f"the source can spell {len(known)} of {len(cuts)} pieces, too few to start a table that is {width} wide: "
            "is its text of another kind? Start at random"
        )
    means = np.stack([source[pieces].mean(0, dtype=np.float64) for pieces in (cuts[row] for row in known)])
    means -= means.mean(0)
    axes = np.linalg.svd(means, full_matrices=False)[2][:width]
    axes *= np.sign(axes[np.arange(width), np.abs(axes).argmax(1)])[:, None]
    half = np.arange(width) + 0.5
    rows = means @ axes.T @ (np.sqrt(2 / width) * np.cos(np.pi / width * np.outer(half, half)))
    made = np.array(base, np.float32)
    made[known] = rows * np.sqrt(np.mean(np.square(base, dtype=np.float64)) / np.mean(np.square(rows)))
    return made
