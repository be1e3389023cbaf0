import dataclasses
import math
from collections import Counter

import grain
import numpy as np
import pytest
from toy_corpus import VIEWS, bits, cut_of, equal, half_up, make, toy_as_cut, unit

from jaxdistill.data.batches import Batches
from jaxdistill.data.draws import key
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError


def words_by_loops(batches: Batches, step: int, row: int) -> list[int]:
    window = int(batches.order(np.array([step * batches.batch + row]))[0])
    return batches.words[batches.windows.start[window] : batches.windows.stop[window]].tolist()


def pieces_by_loops(batches: Batches, role: str, step: int, row: int) -> list[tuple[int, int, int]]:
    """The pieces of one row of one view: id, source, the word's place."""
    view, room = batches.views[role], batches.windows.length - 2
    names = [view.vocabulary, view.mixed_with]
    probability = view.probability * (min(1.0, step / view.ramp) if view.ramp else 1.0)
    pieces = []
    for place, word in enumerate(words_by_loops(batches, step, row)):
        drawn = unit(bits(key(batches.seed, "mix", role, step), row, place))
        source = int(view.mixed_with is not None and drawn < probability)
        cut = cut_of(batches.tables, batches.vocabularies, names[source], word, room)
        pieces += [(piece, source, place) for piece in cut]
    return pieces


def slots_by_rarity(batches: Batches, role: str, step: int, row: int) -> list[int]:
    """One row's share of a race between the pieces of its eight rows, the first of them if they are too many."""
    masking, view = batches.masking, batches.views[role]
    name = view.mixed_with or view.vocabulary
    counts = Counter()
    for word, count in enumerate(batches.counts.tolist()):
        for piece in cut_of(batches.tables, batches.vocabularies, name, word, batches.windows.length - 2):
            counts[piece] += count
    arrivals, total = [], 0
    for other in range(row // 8 * 8, row // 8 * 8 + 8):
        pieces = pieces_by_loops(batches, role, step, other)
        total += len(pieces)
        for position, (piece, _, _) in enumerate(pieces, 1):
            if piece != batches.vocabularies[name].unk:
                drawn = unit(bits(key(batches.seed, "pieces", role, step), other, position))
                wait = -math.log(1 - drawn) * max(counts[piece], 1) ** masking.rarity
                arrivals.append((wait, other, position))
    first = sorted(arrivals)[: math.ceil(masking.rate * total)]
    return sorted([position for _, other, position in first if other == row][: masking.predictions])


def row_by_loops(batches: Batches, role: str, step: int, row: int) -> dict[str, list]:
    """One row of one view, a word and a piece at a time."""
    view, masking, seed = batches.views[role], batches.masking, batches.seed
    length, vocabularies, tables = batches.windows.length, batches.vocabularies, batches.tables
    names = [view.vocabulary, view.mixed_with]
    words, pieces = words_by_loops(batches, step, row), pieces_by_loops(batches, role, step, row)
    own = vocabularies[view.vocabulary]

    if masking.whole_words:
        cuts = {p: [cut_of(tables, vocabularies, n, w, length - 2) for n in vocabularies] for p, w in enumerate(words)}
        unks = [vocabularies[name].unk for name in vocabularies]
        cost = {place: max(map(len, both)) for place, both in cuts.items()}
        able = [
            place
            for place, both in cuts.items()
            if all(cut and unk not in cut for cut, unk in zip(both, unks, strict=True))
            and cost[place] <= masking.predictions
        ]
        able.sort(key=lambda place: bits(key(seed, "words", step), row, place))
        wanted = max(1, half_up(masking.rate * sum(cost[place] > 0 for place in cost)))
        chosen, used = set(), 0
        for place in able[:wanted]:
            if used + cost[place] > masking.predictions:
                break
            chosen.add(place)
            used += cost[place]
        slots = [i + 1 for i, (_, _, place) in enumerate(pieces) if place in chosen]
    elif masking.rarity:
        slots = slots_by_rarity(batches, role, step, row)
    else:
        able = [i + 1 for i, (piece, s, _) in enumerate(pieces) if piece != vocabularies[names[s]].unk]
        able.sort(key=lambda position: bits(key(seed, "pieces", role, step), row, position))
        slots = sorted(able[: min(masking.predictions, max(1, half_up(masking.rate * len(pieces))))])

    ids = [own.cls, *(piece for piece, _, _ in pieces), own.sep]
    source = [0, *(s for _, s, _ in pieces), 0]
    targets, target_source = [ids[i] for i in slots], [source[i] for i in slots]
    for i in slots:
        place, purpose = (pieces[i - 1][2], ("action",)) if masking.whole_words else (i, ("action", role))
        action = unit(bits(key(seed, *purpose, step), row, place))
        if action < masking.mask:
            ids[i], source[i] = own.mask, 0
        elif action < masking.mask + masking.random:
            vocab = vocabularies[names[source[i]]]
            ordinary = [piece for piece in range(vocab.size) if piece not in vocab.specials]
            ids[i] = ordinary[((bits(key(seed, "random", role, step), row, i) >> 32) * len(ordinary)) >> 32]
    pad, unused = length - len(ids), masking.predictions - len(slots)
    found = {
        "ids": ids + [own.pad] * pad,
        "mask": [True] * len(ids) + [False] * pad,
        "positions": slots + [0] * unused,
        "targets": targets + [-1] * unused,
    }
    if view.mixed_with:
        found |= {"source": source + [0] * pad, "target_source": target_source + [0] * unused}
    if masking.whole_words:
        found["words"] = [-1, *(place for _, _, place in pieces), -1] + [-1] * pad
        strings = [
            {
                tuple(vocabularies[name].pieces[piece] for piece in cut)
                for name, cut in zip(vocabularies, both, strict=True)
            }
            for both in cuts.values()
        ]
        found["same"] = [len(strings[pieces[i - 1][2]]) == 1 for i in slots] + [False] * unused
    return found


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.3, 0.6)])
@pytest.mark.parametrize("length, rate", [(12, 0.15), (24, 0.4)])
def test_equals_the_plain_loops(whole_words, shares, length, rate):
    masking = Masking(rate=rate, mask=shares[0], random=shares[1], predictions=6, whole_words=whole_words)
    views = {**VIEWS, "ramped": View("student", "teacher", probability=0.9, ramp=7), "plain": View("teacher")}
    batches = make(length, masking=masking, views=views)
    check_against_loops(batches, (0, 1, 5, 40))


def check_against_loops(batches: Batches, steps) -> None:
    for step in steps:
        batch = batches(step)
        assert list(batch) == list(batches.views)
        for role in batches.views:
            for row in range(batches.batch):
                expected = row_by_loops(batches, role, step, row)
                assert set(batch[role]) == set(expected)
                for name, values in expected.items():
                    assert batch[role][name][row].tolist() == values, (role, step, row, name)


ONE_CUT = {"plain": View("teacher"), "other": View("teacher", "student", 1.0)}


@pytest.mark.parametrize(("rarity", "rate"), [(0.7, 0.15), (0.7, 0.4), (2.0, 1.0)])
def test_rarity_equals_the_plain_loops(rarity, rate):
    masking = Masking(rate=rate, predictions=6, rarity=rarity)
    check_against_loops(make(masking=masking, views=ONE_CUT, batch=16), (0, 3))


def test_shapes_and_types():
    batch = make()(0)
    for role, view in batch.items():
        wide, narrow = ("ids", "mask", "source"), ("positions", "targets", "target_source")
        for name, array in view.items():
            assert array.shape == ((8, 24) if name in wide else (8, 6)), name
            assert name in wide + narrow
            assert array.dtype == (bool if name == "mask" else np.int32)
        assert ("source" in view) == ("target_source" in view) == (role == "teacher")


@pytest.mark.parametrize("changes", [{}, {"whole_words": True}, {"rarity": 0.7}], ids=str)
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_together_give_the_batch(processes, changes):
    batches = make(masking=Masking(predictions=6, **changes), views=ONE_CUT if "rarity" in changes else VIEWS, batch=64)
    for step in (0, 17):
        parts = [batches(step, process, processes) for process in range(processes)]
        joined = {r: {n: np.concatenate([part[r][n] for part in parts]) for n in parts[0][r]} for r in parts[0]}
        assert equal(joined, batches(step))


def test_depends_on_the_step_and_the_seed_alone():
    batches = make()
    forward = [batches(step) for step in range(6)]
    again = make()
    assert all(equal(again(step), forward[step]) for step in (5, 0, 3, 3))
    assert not equal(forward[0], forward[1])
    assert not equal(forward[0], make(seed=4)(0))


def test_a_view_does_not_depend_on_the_others():
    both, alone = make(), make(views={"student": View("student")})
    for step in range(3):
        assert equal({"student": both(step)["student"]}, alone(step))


def test_every_window_once_an_epoch_in_another_order():
    batches = make(length=12, batch=8)
    count = len(batches.windows)
    stream = batches.order(np.arange(3 * count)).reshape(3, count)
    assert (np.sort(stream) == np.arange(count)).all()
    assert (stream[0] != stream[1]).any() and (stream[1] != stream[2]).any()
    other = make(length=12, seed=4).order(np.arange(3 * count)).reshape(3, count)
    assert (other != stream).any(axis=1).all() and (other[0] != stream[1]).any() and (other[1] != stream[0]).any()


@pytest.mark.parametrize("seed", range(20))
def test_every_window_fits_under_any_mixture(seed):
    # lay_out raises when a row overflows; the worst mixture takes the longer cut of every word.
    batches = make(
        12, seed=seed, views={"a": View("teacher", "student"), "b": View("student", "teacher", 0.9)}, longest=10
    )
    for step in range(4):
        for view in batches(step).values():
            assert (view["mask"].sum(axis=1) <= 12).all()


def test_bad_input():
    batches = make()
    with pytest.raises(UserError, match="does not divide over 3"):
        batches(0, 0, 3)
    with pytest.raises(UserError, match="process 2 of 2"):
        batches(0, 2, 2)
    with pytest.raises(UserError, match="at least one row"):
        make(batch=0)
    with pytest.raises(UserError, match="vocabulary 'nobody'"):
        make(views={"student": View("nobody")})
    with pytest.raises(UserError, match="vocabulary 'nobody'"):
        make(views={"student": View("student", "nobody")})
    with pytest.raises(UserError, match="do not fit"):
        make(masking=Masking(predictions=25))
    with pytest.raises(UserError, match="same ones"):
        dataclasses.replace(batches, tables={"student": batches.tables["student"]})
    with pytest.raises(UserError, match="same ones"):
        dataclasses.replace(batches, vocabularies={"student": batches.vocabularies["student"]})
    with pytest.raises(ValueError, match=r"a word has 48 pieces, a window 22: .* fit_tables"):
        dataclasses.replace(batches, tables=toy_as_cut(24)[3])
    rare = Masking(predictions=6, rarity=0.7)
    with pytest.raises(UserError, match="groups of 8 rows, which do not divide 12 rows"):
        make(masking=rare, views=ONE_CUT, batch=12)
    with pytest.raises(UserError, match="do not divide a process's 4 rows"):
        make(masking=rare, views=ONE_CUT, batch=8)(0, 0, 2)
    with pytest.raises(UserError, match="rarity needs a count for each piece"):
        make(masking=rare)
    with pytest.raises(ValueError, match="needs the counts"):
        dataclasses.replace(make(masking=rare, views=ONE_CUT), counts=None)
    empty = dataclasses.replace(batches.windows, start=np.zeros(0, np.int64), stop=np.zeros(0, np.int64))
    with pytest.raises(UserError, match="no window"):
        dataclasses.replace(batches, windows=empty)
    with pytest.raises(ValueError, match="windows of other tables"):
        wide = dataclasses.replace(batches.windows, start=np.zeros(3, int), stop=np.full(3, 60))
        dataclasses.replace(batches, windows=wide)(0)


def test_rarity_is_shared_by_views_of_the_same_pieces():
    again = View("teacher", "student", 1.0, masks_of="student")
    batch = make(masking=Masking(predictions=6, rarity=0.7), views={"student": View("student"), "again": again})(0)
    np.testing.assert_array_equal(batch["again"]["positions"], batch["student"]["positions"])
    np.testing.assert_array_equal(batch["again"]["targets"], batch["student"]["targets"])


def shared(**changes) -> Batches:
    """A mixed reader that is given the student's cut and masks, beside the views of the other tests."""
    again = dataclasses.replace(View("teacher", "student", 1.0, masks_of="student"), **changes)
    return dataclasses.replace(make(), views={**VIEWS, "again": again})


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_view_may_share_the_masks_of_another(whole_words):
    batches = shared()
    batches = dataclasses.replace(batches, masking=dataclasses.replace(batches.masking, whole_words=whole_words))
    for step in range(3):
        batch = batches(step)
        student, again = batch["student"], batch["again"]
        for name in ("mask", "positions", "targets"):
            np.testing.assert_array_equal(again[name], student[name])
        pieces = again["source"] == 1
        np.testing.assert_array_equal(again["ids"][pieces], student["ids"][pieces])
        own, other = (batches.vocabularies[name] for name in ("student", "teacher"))
        specials = {getattr(other, name): getattr(own, name) for name in ("cls", "sep", "pad", "mask")}
        assert set(again["ids"][~pieces].tolist()) == set(specials)
        assert student["ids"][~pieces].tolist() == [specials[piece] for piece in again["ids"][~pieces].tolist()]
        assert not np.array_equal(batch["teacher"]["ids"], again["ids"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"masks_of": "other"}, "name another view"), ({"probability": 0.5}, "cut otherwise"), ({"ramp": 9}, "otherwise")],
    ids=str,
)
def test_masks_are_shared_by_views_of_the_same_pieces_only(changes, match):
    with pytest.raises(UserError, match=match):
        shared(**changes)


def test_the_order_is_that_of_grain_s_pipeline():
    batches = make()
    count = len(batches.windows)
    places = np.arange(3 * count + 5)
    stream = grain.MapDataset.range(count).shuffle(seed=key(batches.seed, "order") >> 32).repeat()
    assert batches.order(places).tolist() == [stream[place] for place in places.tolist()]
