import functools
from collections import Counter

import jax
import numpy as np
import pytest
from toy_corpus import toy
from toy_models import random_params

from jaxdistill import bert
from jaxdistill.bert import BertConfig
from jaxdistill.data.heldout import HeldOut
from jaxdistill.data.masking import Masking
from jaxdistill.evaluate import Model, score

LENGTH = 24
SHAPES = {"teacher": {"vocab": 50, "hidden": 8}, "student": {"vocab": 32, "hidden": 4}}


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    words, _, vocabularies, tables, windows = toy(LENGTH, documents=(500, 30))
    return HeldOut(words, windows, vocabularies, tables, Masking(predictions=6))


@pytest.fixture(scope="module")
def models(held_out) -> dict[str, Model]:
    """Each leans towards four frequent pieces, so that it is right now and then."""
    made = {}
    for name, shape in SHAPES.items():
        config = BertConfig(**shape, layers=1, heads=2, ffn=8, positions=LENGTH)
        params, table = random_params(config), held_out.tables[name]
        alone = [word for word in held_out.words.tolist() if table.lengths[word] == 1]
        pieces = Counter(int(table.pieces[table.offsets[word]]) for word in alone)
        params["mlm"]["bias"][[piece for piece, _ in pieces.most_common(4)]] += 4
        made[name] = Model(config, params, held_out.vocabularies[name])
    return made


@pytest.fixture(scope="module")
def scores(models, held_out):
    return score(models, held_out, batch=4, progress=False)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, view):
    outputs = bert.Bert(config).apply({"params": params}, view["ids"], view["mask"], positions=view["positions"])
    return outputs.predictions


def predictions(model: Model, view) -> list[tuple[int, float, bool]]:
    """(slot, nats, right) at every target of a view of one row, in float64 from the head on."""
    vectors = run(model.config, model.params, {name: view[name] for name in ("ids", "mask", "positions")})
    table, bias = model.params["embeddings"]["word"].astype(np.float64), model.params["mlm"]["bias"]
    found = []
    for slot, target in enumerate(view["targets"][0]):
        if target >= 0:
            logits = table @ np.asarray(vectors, np.float64)[0, slot] + bias
            found.append((slot, np.log(np.exp(logits).sum()) - logits[target], int(logits.argmax()) == target))
    return found


def test_scores_are_those_of_a_plain_loop(models, held_out, scores):
    totals = {name: dict.fromkeys(("nats", "hits", "pieces", "right", "word_nats", "lost"), 0.0) for name in models}
    words = common = 0
    for index in range(held_out.count(1)):
        views = {name: held_out.whole(name, index, 1) for name in models}
        chosen = int(views["student"]["chosen"].sum())
        words += chosen
        shared = [all(view["written"][0, word] for view in views.values()) for word in range(chosen)]
        common += sum(shared)
        for name, model in models.items():
            total = totals[name]
            for _, nats, right in predictions(model, held_out.pieces(name, index, 1)):
                total["nats"] += nats
                total["hits"] += right
                total["pieces"] += 1
            view, slots = views[name], predictions(model, views[name])
            for word in range(chosen):
                own = [(nats, right) for slot, nats, right in slots if view["words"][0, slot] == word]
                assert bool(own) == view["written"][0, word]
                total["right"] += bool(own) and all(right for _, right in own)
                total["lost"] += not own
                total["word_nats"] += sum(nats for nats, _ in own) if shared[word] else 0.0
    for name, total in totals.items():
        found = scores[name]
        assert (found.pieces, found.words) == (total["pieces"], words)
        assert found.piece_accuracy == pytest.approx(total["hits"] / total["pieces"])
        assert found.piece_perplexity == pytest.approx(np.exp(total["nats"] / total["pieces"]), rel=1e-4)
        assert found.word_accuracy == pytest.approx(total["right"] / words)
        assert found.unwritable == pytest.approx(total["lost"] / words)
        assert found.word_nats == pytest.approx(total["word_nats"] / common, rel=1e-4)
        assert 0 < found.word_accuracy < 0.5 and 0 < found.piece_accuracy < 0.5 and found.unwritable > 0
    assert common < words - max(total["lost"] for total in totals.values()), "each has words that the other can't write"


def test_the_size_of_batches_changes_nothing(models, held_out, scores):
    for name, found in score(models, held_out, batch=7, progress=False).items():
        assert vars(found) == pytest.approx(vars(scores[name]), rel=1e-5)


def test_every_model_is_asked_the_same_words(models, held_out, scores):
    assert scores["teacher"].words == scores["student"].words > 50
    alone = score({"student": models["student"]}, held_out, batch=4, progress=False)["student"]
    assert alone == scores["student"], "nats too are of the words that every vocabulary can write, scored or not"


def test_a_word_is_right_only_when_all_its_pieces_are(models, held_out):
    """Of a model that always says one piece, exactly the words that consist of it are right."""
    cuts = []
    for index in range(held_out.count(1)):
        view = held_out.whole("teacher", index, 1)
        cuts += [view["targets"][view["words"] == word].tolist() for word in range(int(view["chosen"].sum()))]
    whole = Counter(cut[0] for cut in cuts if cut and set(cut) == {cut[0]})
    partly = Counter(piece for cut in cuts if len(set(cut)) > 1 for piece in set(cut))
    piece = max(whole, key=lambda piece: min(whole[piece], partly[piece]))
    assert whole[piece] and partly[piece]
    config, params = models["teacher"].config, random_params(models["teacher"].config)
    params["mlm"]["bias"][piece] = 1e4
    says = Model(config, params, models["teacher"].vocabulary)
    found = score(models | {"teacher": says}, held_out, batch=4, progress=False)["teacher"]
    assert found.word_accuracy == pytest.approx(whole[piece] / len(cuts))
