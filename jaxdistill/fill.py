"""Filling in `[MASK]` with a masked-language model, for a person to look at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import bert
from jaxdistill.data.vocab import PREFIX
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model


def fill(model: Model, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """The likeliest pieces at each `[MASK]` of a text.

    Args:
      model: the model.
      text: holds `[MASK]` at least once.
      top: how many pieces for each.

    Returns:
      For each mask, pieces and their probabilities, the likeliest first.

    Raises:
      UserError: the text has no `[MASK]` or is too long.
    """
    vocabulary, config = model.vocabulary, model.config
    ids = vocabulary.tokenizer().encode(text).ids
    places = [place for place, piece in enumerate(ids) if piece == vocabulary.mask]
    if not places:
        raise UserError(f"{text!r} has no [MASK]: write it where a word is to be filled in")
    if len(ids) > config.positions:
        raise UserError(f"the text has {len(ids)} pieces, the model reads {config.positions}: shorten it")
    found = _probabilities(config, model.params, np.array([ids], np.int32), np.array([places], np.int32))
    probabilities = np.array(found)[0, :, : vocabulary.size]
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return [
        [(vocabulary.pieces[piece], float(row[piece])) for piece in pieces]
        for pieces, row in zip(best, probabilities, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(config, params, ids, places):
    """Of every row of the word table, at places [batch, masks] of ids [batch, length]: [batch, masks, vocab]."""
    return jax.nn.softmax(bert.predict(config, params, ids, jnp.ones(ids.shape, bool), places), axis=-1)


def fill_in(model: Model, text: str) -> str:
    """The text with every `[MASK]` replaced by its likeliest piece; one that continues a word is joined to it."""
    first, *rest = text.split("[MASK]")
    for ((piece, _), *_), after in zip(fill(model, text, top=1), rest, strict=True):
        first = first.rstrip() + piece[len(PREFIX) :] if piece.startswith(PREFIX) else first + piece
        first += after
    return first
