import dataclasses
import math

import numpy as np
import pytest
from toy_corpus import LEXICON, VIEWS, cut_of, make, toy

from jaxdistill.data.batches import Batches
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError


def test_whole_words_are_the_same_in_all_views():
    batches = make(masking=Masking(rate=0.3, mask=1.0, random=0.0, predictions=6, whole_words=True), batch=64)
    loops = dataclasses.replace(batches, views={"student": View("student"), "other": View("teacher")})
    for step in range(3):
        full = loops(step)
        for row in range(64):
            window = int(loops.order(np.array([step * 64 + row]))[0])
            words = loops.words[loops.windows.start[window] : loops.windows.stop[window]].tolist()
            hidden = {}
            for role, view in loops.views.items():
                place = [
                    p
                    for p, word in enumerate(words)
                    for _ in cut_of(loops.tables, loops.vocabularies, view.vocabulary, word, 22)
                ]
                slots = full[role]["positions"][row][full[role]["targets"][row] >= 0] - 1
                hidden[role] = {place[slot] for slot in slots}
                assert sorted(slots) == [i for i, p in enumerate(place) if p in hidden[role]]
            assert hidden["student"] == hidden["other"]


def test_shares_are_what_the_settings_say():
    length = 64
    random = np.random.default_rng(0)
    words, _, vocabularies, tables, windows = toy(length, documents=(4000,) * 5, longest=3)
    usual = random.choice(np.arange(8, LEXICON), len(words)).astype(np.uint32)  # no empty or unknown words
    views = {"teacher": View("teacher", "student", 0.3)}
    batches = Batches(usual, windows, vocabularies, tables, views, 256, Masking(predictions=64), 1)
    # Windows were made for other words; keep those that still fit.
    cost = np.maximum(tables["teacher"].lengths, tables["student"].lengths)
    before = np.concatenate([[0], np.cumsum(cost[usual])])
    fit = before[windows.stop] - before[windows.start] <= length - 2
    batches = dataclasses.replace(
        batches, windows=dataclasses.replace(windows, start=windows.start[fit], stop=windows.stop[fit])
    )
    own, other = vocabularies["teacher"], vocabularies["student"]
    totals = dict.fromkeys(("rows", "pieces", "targets", "mask", "kept", "foreign words", "words"), 0)
    replaced = {0: [], 1: []}
    for step in range(40):
        view = batches(step)["teacher"]
        used = view["targets"] >= 0
        read = np.take_along_axis(view["ids"], view["positions"].astype(np.int64), axis=1)
        source = np.take_along_axis(view["source"], view["positions"].astype(np.int64), axis=1)
        masked = used & (read == own.mask) & (source == 0)
        kept = used & (read == view["targets"]) & (source == view["target_source"])
        for which in (0, 1):
            replaced[which].append(read[used & ~masked & ~kept & (view["target_source"] == which)])
        assert (source == np.where(masked, 0, view["target_source"]))[used].all()
        pieces = view["mask"].sum(axis=1) - 2
        assert (used.sum(axis=1) == np.floor(0.15 * pieces + 0.5)).all()
        totals["rows"] += len(pieces)
        totals["pieces"] += pieces.sum()
        totals["targets"] += used.sum()
        totals["mask"] += masked.sum()
        totals["kept"] += kept.sum()
        assert not np.isin(view["targets"][used & (view["target_source"] == 0)], own.specials).any()
        assert not np.isin(view["targets"][used & (view["target_source"] == 1)], other.specials).any()

    def near(share, expected, n):
        return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)

    n = totals["targets"]
    assert abs(n / totals["pieces"] - 0.15) < 0.002
    assert near(totals["mask"] / n, 0.8, n)
    assert near(totals["kept"] / n, 0.1 + 0.1 / 35, n)
    for which, vocab in ((0, own), (1, other)):
        drawn = np.concatenate(replaced[which])
        assert not np.isin(drawn, vocab.specials).any()
        counts = np.bincount(drawn, minlength=vocab.size)
        assert (np.delete(counts, vocab.specials) > 0).all()


def test_a_single_draw_by_rarity_has_the_odds_of_its_definition():
    """One position of each group: each has the share count^-0.7 of its group's sum."""
    masking = Masking(rate=1e-9, mask=0.0, random=0.0, predictions=6, rarity=0.7)
    batches = make(masking=masking, views={"student": View("student")}, batch=256)
    vocab = batches.vocabularies["student"]
    counts = np.zeros(vocab.size)
    for word, count in enumerate(batches.counts):
        for piece in cut_of(batches.tables, batches.vocabularies, "student", word, 22):
            counts[piece] += count
    odds = np.maximum(counts, 1) ** -0.7
    odds[list(vocab.specials)] = 0
    found, expected, variance = np.zeros((3, vocab.size))
    for step in range(60):
        view = batches(step)["student"]
        used = view["targets"] >= 0
        assert (used.reshape(32, -1).sum(axis=1) == 1).all()
        found += np.bincount(view["targets"][used], minlength=vocab.size)
        for group in view["ids"].reshape(32, -1):
            shares = np.bincount(group, minlength=vocab.size) * odds
            shares /= shares.sum()
            expected += shares
            variance += shares * (1 - shares)
    assert expected.max() > 9 * np.median(expected), "some pieces are much rarer than others"
    np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt(variance) + 1e-9)


def test_held_out_scores_are_of_plain_masking():
    masking = Masking(rate=0.3, mask=0.0, random=0.5, predictions=9, rarity=0.7)
    assert masking.scored() == Masking(rate=0.3, predictions=9)


def test_row_with_nothing_to_predict():
    words, _, vocabularies, tables, windows = toy(12)
    unknown = np.zeros_like(words)  # every word is [UNK] under every vocabulary
    for whole_words in (False, True):
        batches = Batches(
            unknown, windows, vocabularies, tables, VIEWS, 4, Masking(predictions=6, whole_words=whole_words)
        )
        batches = dataclasses.replace(batches, windows=dataclasses.replace(windows, stop=windows.start + 5))
        for view in batches(0).values():
            assert (view["targets"] == -1).all() and (view["positions"] == 0).all()
            assert (view["mask"].sum(axis=1) == 7).all()


def test_bad_settings():
    shares = ({"rate": 0}, {"rate": 1.1}, {"mask": 0.8, "random": 0.3}, {"mask": -0.1}, {"predictions": 0})
    rarities = ({"rarity": -1.0}, {"rarity": math.inf}, {"rarity": math.nan}, {"rarity": 0.7, "whole_words": True})
    for wrong in (*shares, *rarities):
        with pytest.raises(UserError):
            Masking(**wrong)
