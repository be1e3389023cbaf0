import dataclasses

import numpy as np
import pytest
from toy_corpus import bits, cut_of, half_up, toy, unit

from jaxdistill.data.draws import key
from jaxdistill.data.heldout import HeldOut
from jaxdistill.data.masking import Masking
from jaxdistill.errors import UserError

LENGTH, ROOM = 24, 8


def make(**masking) -> HeldOut:
    words, _, vocabularies, tables, windows = toy(LENGTH)
    return HeldOut(
        words, windows, vocabularies, tables, Masking(**{"rate": 0.3, "predictions": ROOM, **masking}), seed=5
    )


def test_whole_words_equal_the_plain_loops():
    held = make()
    unwritable = 0
    for name, vocab in held.vocabularies.items():
        for window in range(len(held.windows)):
            words = held.words[held.windows.start[window] : held.windows.stop[window]].tolist()
            cuts = [{n: cut_of(held.tables, held.vocabularies, n, w, LENGTH - 2) for n in held.tables} for w in words]
            cost = [max(map(len, cut.values())) for cut in cuts]
            able = [place for place in range(len(words)) if 0 < cost[place] <= ROOM]
            able.sort(key=lambda place: bits(key(5, "held out", "words"), window, place))
            chosen, used = [], 0
            for place in able[: max(1, half_up(0.3 * sum(c > 0 for c in cost)))]:
                if used + cost[place] > ROOM:
                    break
                chosen.append(place)
                used += cost[place]
            chosen.sort()
            ids, positions, targets, which, written = [vocab.cls], [], [], [], []
            for place, cut in enumerate(cuts):
                if place not in chosen:
                    ids += cut[name]
                    continue
                written.append(bool(cut[name]) and vocab.unk not in cut[name])
                if not written[-1]:
                    ids.append(vocab.mask)
                    unwritable += 1
                    continue
                for piece in cut[name]:
                    positions.append(len(ids))
                    targets.append(piece)
                    which.append(chosen.index(place))
                    ids.append(vocab.mask)
            ids.append(vocab.sep)
            batch = held.whole(name, window // 7, 7)
            row = {field: values[window % 7].tolist() for field, values in batch.items()}
            spare, unused = LENGTH - len(ids), ROOM - len(positions)
            assert row["ids"] == ids + [vocab.pad] * spare
            assert row["mask"] == [True] * len(ids) + [False] * spare
            assert row["positions"] == positions + [0] * unused
            assert row["targets"] == targets + [-1] * unused
            assert row["words"] == which + [-1] * unused
            assert row["chosen"] == [True] * len(chosen) + [False] * (ROOM - len(chosen))
            assert row["written"] == written + [False] * (ROOM - len(chosen))
    assert unwritable > 5


def test_pieces_equal_the_plain_loops():
    held = make(mask=0.5, random=0.3)
    for name, vocab in held.vocabularies.items():
        ordinary = [piece for piece in range(vocab.size) if piece not in vocab.specials]
        for window in range(len(held.windows)):
            words = held.words[held.windows.start[window] : held.windows.stop[window]].tolist()
            pieces = [p for word in words for p in cut_of(held.tables, held.vocabularies, name, word, LENGTH - 2)]
            ids = [vocab.cls, *pieces, vocab.sep]
            able = [place + 1 for place, piece in enumerate(pieces) if piece != vocab.unk]
            able.sort(key=lambda place: bits(key(5, "held out", "pieces"), window, place))
            slots = sorted(able[: min(ROOM, max(1, half_up(0.3 * len(pieces))))])
            targets = [ids[slot] for slot in slots]
            for slot in slots:
                action = unit(bits(key(5, "held out", "action"), window, slot))
                drawn = bits(key(5, "held out", "random"), window, slot) >> 32
                if action < 0.5:
                    ids[slot] = vocab.mask
                elif action < 0.8:
                    ids[slot] = ordinary[(drawn * len(ordinary)) >> 32]
            row = {field: values[window % 7].tolist() for field, values in held.pieces(name, window // 7, 7).items()}
            assert row["ids"] == ids + [vocab.pad] * (LENGTH - len(ids))
            assert row["positions"] == slots + [0] * (ROOM - len(slots))
            assert row["targets"] == targets + [-1] * (ROOM - len(slots))


@pytest.mark.parametrize("kind", ["whole", "pieces"])
def test_does_not_depend_on_the_size_of_batches(kind):
    held = make()
    for name in held.vocabularies:
        wide = getattr(held, kind)(name, 0, len(held.windows))
        parts = [getattr(held, kind)(name, index, 5) for index in range(held.count(5))]
        for field, values in wide.items():
            joined = np.concatenate([part[field] for part in parts])
            assert (joined[: len(held.windows)] == values).all()


def test_last_batch_is_filled_with_empty_rows():
    held = make()
    batch = len(held.windows) + 3
    for kind in ("whole", "pieces"):
        view = getattr(held, kind)("student", 0, batch)
        assert (view["mask"][-3:].sum(axis=1) == 2).all()
        assert (view["targets"][-3:] == -1).all() and (view["targets"][:-3] >= 0).any(axis=1).mean() > 0.9
    assert not held.whole("student", 0, batch)["chosen"][-3:].any()


def test_the_same_words_whatever_the_vocabulary():
    held = make()
    student, teacher = (held.whole(name, 0, len(held.windows)) for name in ("student", "teacher"))
    assert (student["chosen"] == teacher["chosen"]).all()
    assert (student["written"] != teacher["written"]).any()
    for view in (student, teacher):
        for row in range(len(held.windows)):
            expected = np.flatnonzero(view["written"][row])
            assert np.array_equal(np.unique(view["words"][row][view["targets"][row] >= 0]), expected)


def test_bad_input():
    held = make()
    with pytest.raises(UserError, match="at least one row"):
        held.count(0)
    with pytest.raises(IndexError):
        held.whole("student", held.count(4), 4)
    with pytest.raises(UserError, match="do not fit"):
        make(predictions=LENGTH + 1)
    with pytest.raises(UserError, match="same ones"):
        dataclasses.replace(held, tables={"student": held.tables["student"]})
