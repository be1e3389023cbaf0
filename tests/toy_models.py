"""A small teacher and student with parameters far from their starts, and views for them by hand."""

import numpy as np

from jaxdistill import bert, tree
from jaxdistill.bert import BertConfig

TEACHER = BertConfig(vocab=20, hidden=6, layers=4, heads=2, ffn=10, positions=12)
STUDENT = BertConfig(vocab=14, hidden=4, layers=2, heads=2, ffn=8, positions=9)
MODELS = {"teacher": TEACHER, "student": STUDENT}


def random_params(config: BertConfig, seed: int = 0) -> dict:
    draw = np.random.default_rng(seed)

    def fill(name, leaf):
        return (draw.normal(0, 0.3, leaf.shape) + name.endswith("/scale")).astype(np.float32)

    return tree.map_names(fill, bert.shapes(config))


def view(config: BertConfig, other: int = 0, rows: int = 3, length: int = 8, predictions: int = 3, seed: int = 0):
    """Random rows of falling length; with `other`, pieces of a second vocabulary of that size among them."""
    draw = np.random.default_rng(seed)
    real = np.arange(length)[None] < length - np.arange(rows)[:, None]
    source = draw.integers(0, 2, real.shape) * real * (other > 0)
    ids = draw.integers(0, np.where(source, max(other, 1), config.vocab)) * real
    used = np.arange(predictions)[None] < predictions - np.arange(rows)[:, None] % 2
    target_source = draw.integers(0, 2, used.shape) * used * (other > 0)
    target_source[0, :2] = (0, 1 if other else 0)
    targets = np.where(used, draw.integers(0, np.where(target_source, max(other, 1), config.vocab)), -1)
    positions = np.sort(draw.integers(0, length - rows + 1, used.shape), axis=1) * used
    found = {"ids": ids, "positions": positions, "targets": targets}
    if other:
        found |= {"source": source, "target_source": target_source}
    return {name: value.astype(np.int32) for name, value in found.items()} | {"mask": real}
