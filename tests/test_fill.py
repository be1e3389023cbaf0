import jax
import numpy as np
import pytest
from toy_models import random_params

from jaxdistill import bert
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import SPECIALS, Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model
from jaxdistill.fill import fill, fill_in

PIECES = ("the", "old", "house", "##s", "is", "red", ".")
VOCABULARY = Vocabulary((*SPECIALS, *PIECES))
CONFIG = BertConfig(vocab=16, hidden=8, layers=1, heads=2, ffn=8, positions=10)  # four rows that are no piece


@pytest.fixture
def model() -> Model:
    return Model(CONFIG, random_params(CONFIG), VOCABULARY)


def prefer(model: Model, piece: str) -> None:
    model.params["mlm"]["bias"][VOCABULARY.ids[piece]] = 100


def test_pieces_and_their_probabilities_are_those_of_the_model(model):
    found = fill(model, "The old [MASK] is [MASK].", top=4)
    ids = [VOCABULARY.ids[piece] for piece in ["[CLS]", "the", "old", "[MASK]", "is", "[MASK]", ".", "[SEP]"]]
    outputs = bert.Bert(CONFIG).apply(
        {"params": model.params}, np.array([ids]), np.ones((1, 8), bool), positions=np.array([[3, 5]])
    )
    scores = bert.logits(outputs.predictions, model.params["embeddings"]["word"], model.params["mlm"]["bias"])[0]
    expected = np.asarray(jax.nn.softmax(scores), np.float64)
    assert [len(pieces) for pieces in found] == [4, 4]
    for row, pieces in zip(expected, found, strict=True):
        order = sorted(range(VOCABULARY.size), key=lambda piece: -row[piece])[:4]
        assert [piece for piece, _ in pieces] == [VOCABULARY.pieces[piece] for piece in order]
        assert [share for _, share in pieces] == pytest.approx([row[piece] for piece in order])


def test_a_row_without_a_piece_is_never_shown(model):
    model.params["mlm"]["bias"][VOCABULARY.size :] = 100
    assert [piece for piece, _ in fill(model, "[MASK]", top=99)[0]] and len(fill(model, "[MASK]", top=99)[0]) == 12


@pytest.mark.parametrize(
    ("piece", "filled"),
    [
        ("red", "The house is red, red?"),
        ("##s", "The house iss,s?"),
        ("[MASK]", "The house is [MASK], [MASK]?"),
    ],
)
def test_masks_are_replaced_by_the_likeliest_piece(model, piece, filled):
    prefer(model, piece)
    assert fill_in(model, "The house is [MASK], [MASK]?") == filled


def test_texts_that_can_not_be_filled_are_refused(model):
    with pytest.raises(UserError, match="has no \\[MASK\\]: write it"):
        fill(model, "the house")
    with pytest.raises(UserError, match="11 pieces, the model reads 10: shorten"):
        fill(model, "the house is red the house is [MASK] .")
