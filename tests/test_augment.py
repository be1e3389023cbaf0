"""Augmented examples: whose candidates, where, how often; the same again after a kill; never another task's."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from toy_models import random_params

from jaxdistill import augment as module
from jaxdistill.augment import augment
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import SPECIALS, Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model
from jaxdistill.hf import write_hf
from jaxdistill.tasks.augmented import COPIES, EXAMPLES, NAME, draw_copies, read_augmented
from jaxdistill.tasks.task import Examples, Questions, Task

PIECES = ("the", "old", "house", "river", "red", "slow", "boat", "green", "##s", "##er", "##boat", "is", ".", "'", "s")
VOCABULARY = Vocabulary((*SPECIALS, *PIECES))
CONFIG = BertConfig(vocab=24, hidden=12, layers=2, heads=2, ffn=16, positions=24)  # four rows that are no piece
MODEL = Model(CONFIG, random_params(CONFIG), VOCABULARY)

TEXTS = ("The old house is red.", "the slow boat's slower boats", "", "the is . 1902", "River riverboat old river")
CUTS = {
    TEXTS[0]: "the old house is red .",
    TEXTS[1]: "the slow boat ' s slow|##er boat|##s",
    TEXTS[4]: "river river|##boat old river",
}
STAY = ("the", "is", ".", "'", "s")
SENTIMENT = Task("sst2", "classes", ("negative", "positive"), ("accuracy",))
SIMILARITY = Task("stsb", "score", (), ("pearson",), pair=True)
SINGLES = Examples(SENTIMENT, "train", tuple("abcde"), TEXTS, None, np.array([0, 1, 1, 0, 1], np.int32))
PAIRS = Examples(SIMILARITY, "train", ("0", "1"), TEXTS[:2], (TEXTS[4], TEXTS[0]), np.array([3.8, 0], np.float32))

VECTORS = "slower 1 0\nquicker 1 0.1\nboats 0 1\nships 0.1 1\nfleets 0.2 1\nswift 1 0.2\n"
NEAR = {"slower": {"quicker", "swift"}, "boats": {"ships", "fleets"}}


@pytest.fixture
def glove(tmp_path):
    (tmp_path / "glove.txt").write_text(VECTORS)
    return tmp_path / "glove.txt"


def shorter(positions: int) -> Model:
    """The model with fewer positions."""
    table = MODEL.params["embeddings"]["position"][:positions]
    params = MODEL.params | {"embeddings": MODEL.params["embeddings"] | {"position": table}}
    return Model(dataclasses.replace(CONFIG, positions=positions), params, VOCABULARY)


def run(tmp_path, examples=SINGLES, name="out", model=MODEL, **options):
    """Augments; the folder."""
    options = {"copies": 4, "p": 0.5, "candidates": 3, "progress": False} | options
    augment(examples, model, tmp_path / name, **options)
    return tmp_path / name


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / EXAMPLES).read_text().splitlines()]


def likeliest(model, text: str, place: int, count: int) -> set[str]:
    """By PyTorch: of the likeliest pieces at a place of (text with it masked, text), those that begin a word."""
    pieces = CUTS[text].replace("|", " ").split()
    masked = [*pieces[:place], "[MASK]", *pieces[place + 1 :]]
    ids = [VOCABULARY.ids[piece] for piece in ["[CLS]", *masked, "[SEP]", *pieces, "[SEP]"]]
    types = [0] * (len(pieces) + 2) + [1] * (len(pieces) + 1)
    most = model.config.max_position_embeddings
    with torch.no_grad():
        read = model(torch.tensor([ids[:most]]), token_type_ids=torch.tensor([types[:most]]))
    order = read.logits[0, place + 1].argsort(descending=True).tolist()
    best = [VOCABULARY.pieces[piece] for piece in order if len(SPECIALS) <= piece < VOCABULARY.size][:count]
    return {piece for piece in best if not piece.startswith("##")}


@pytest.mark.parametrize("positions", [24, 12, 7])
def test_words_become_what_the_model_or_glove_puts_there(tmp_path, glove, positions):
    model = shorter(positions)
    rows = lines(run(tmp_path, model=model, glove=glove, copies=120, candidates=2))
    seen = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in rows:
        name, _, copy = row["id"].partition(".")
        text = TEXTS["abcde".index(name)]
        words, others = CUTS.get(text, "").replace("|##", "").split(), row["first"].split(" ")
        assert row["label"] == SENTIMENT.labels[SINGLES.labels["abcde".index(name)]]
        if copy:
            assert len(words) == len(others) and words != others
            for place, other in enumerate(others):
                seen[text][place].add(other)
        else:
            assert row["first"] == text
    assert seen.keys() == CUTS.keys()
    write_hf(tmp_path / "model", model.config, model.params, VOCABULARY)
    oracle = transformers.BertForMaskedLM.from_pretrained(tmp_path / "model").eval()
    for text, found in seen.items():
        place = 0
        for number, pieces in enumerate(CUTS[text].split()):
            word = pieces.replace("|##", "")
            expected = set()
            if "|" in pieces:
                expected = NEAR.get(word, set())
            elif word not in STAY and place + 1 < positions:
                expected = likeliest(oracle, text, place, 2)
            assert found[number] == expected | {word}, (text, word)
            place += len(pieces.split("|"))


def test_without_glove_words_of_several_pieces_stay(tmp_path):
    rows = lines(run(tmp_path, copies=30))
    copied = [row["first"].split() for row in rows if row["id"].startswith("b.")]
    assert len(copied) > 3 and {tuple(words[-2:]) for words in copied} == {("slower", "boats")}


def test_copies_of_a_pair_change_one_text_each(tmp_path):
    rows = lines(run(tmp_path, PAIRS))
    for name, *texts in zip(PAIRS.ids, PAIRS.first, PAIRS.second, strict=True):
        original, *copied = [[row["first"], row["second"]] for row in rows if row["id"].partition(".")[0] == name]
        assert original == texts
        changed = [[a != b for a, b in zip(copy, texts, strict=True)] for copy in copied]
        assert changed == sorted(changed, reverse=True) and [True, False] in changed and [False, True] in changed
        assert [True, True] not in changed
    assert {row["label"] for row in rows} == {3.8, 0.0}


def test_a_model_without_token_types(tmp_path):
    config = dataclasses.replace(CONFIG, types=0)
    assert len(lines(run(tmp_path, model=Model(config, random_params(config), VOCABULARY)))) > len(SINGLES)


def test_the_same_again_by_seed_and_whatever_comes_after(tmp_path):
    first = (run(tmp_path, name="a") / EXAMPLES).read_bytes()
    assert (run(tmp_path, name="b", batch=20) / EXAMPLES).read_bytes() == first
    assert (run(tmp_path, name="c", seed=1) / EXAMPLES).read_bytes() != first
    some = (run(tmp_path, SINGLES.take(np.arange(2)), name="d") / EXAMPLES).read_bytes()
    assert first.startswith(some) and len(some.splitlines()) > 4


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PART", 1)
    expected = (run(tmp_path, name="whole") / EXAMPLES).read_bytes()
    best, calls = module._best, []

    def killed(*args, **view):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return best(*args, **view)

    monkeypatch.setattr(module, "_best", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out.part/*.npy"))) == 2
    with pytest.raises(UserError, match="beginning of another augmentation"):
        run(tmp_path, candidates=2)
    damaged = min(tmp_path.glob(".out.part/*.npy"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:20])
    with pytest.raises(UserError, match=r"000000.npy is damaged .* remove it"):
        run(tmp_path)
    damaged.write_bytes(content)
    calls.clear()
    calls += [1] * 3
    assert (run(tmp_path) / EXAMPLES).read_bytes() == expected
    resumed = len(calls) - 3
    calls[3:] = []
    run(tmp_path, name="again")
    assert resumed == len(calls) - 3 - 2
    assert not list(tmp_path.glob(".*"))


def test_a_text_that_occurs_twice_is_read_once_and_copied_anew(tmp_path, monkeypatch):
    twice = dataclasses.replace(SINGLES, first=(TEXTS[0],) * 5)
    asked = []
    best = module._best
    monkeypatch.setattr(module, "_best", lambda *args, **view: asked.append(view["mask"][:, 4]) or best(*args, **view))
    rows = lines(run(tmp_path, twice, copies=1, p=1.0, candidates=10))
    assert np.concatenate(asked).sum() == 3  # old, house, red
    assert len({row["first"] for row in rows if "." in row["id"]}) > 1


def test_words_are_replaced_as_often_as_asked():
    words = [f"w{place}" for place in range(6)]
    choices = {place: [f"{place}{letter}" for letter in "abcd"] for place in (1, 2, 4)} | {5: []}
    found = collections.Counter()
    for example in range(3000):
        (copy,) = draw_copies(words, choices, 1, 0.3, 7, example) or [" ".join(words)]
        found.update(copy.split())
    assert found["w0"] == found["w3"] == found["w5"] == 3000
    for place in choices:
        if choices[place]:
            assert 1 - found[f"w{place}"] / 3000 == pytest.approx(0.3, abs=0.035)
            assert [found[word] / 900 for word in choices[place]] == pytest.approx([0.25] * 4, abs=0.07)


def test_copies_are_distinct_and_never_the_text():
    copied = draw_copies(["a", "b"], {0: ["a", "x"], 1: ["y"]}, 200, 0.5, 0, 0)
    assert sorted(copied) == ["a y", "x b", "x y"]
    assert draw_copies(["a"], {}, 5, 1.0, 0, 0) == draw_copies([], {}, 5, 1.0, 0, 0) == []


def test_as_many_copies_as_the_released_code_has_for_the_task(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "draw_copies", lambda words, choices, count, *rest: asked.append(count) or [])
    for name in ("cola", "qnli", "mine"):
        run(tmp_path, dataclasses.replace(SINGLES, task=dataclasses.replace(SENTIMENT, name=name)), name, copies=None)
    assert set(asked[:5]) == {30} and set(asked[5:]) == {20}
    assert COPIES["mnli"] == COPIES["qqp"] == 10


def test_what_was_written_is_read_with_labels_by_name(tmp_path):
    folder = run(tmp_path)
    turned = dataclasses.replace(SENTIMENT, labels=("positive", "negative"))
    rows, found = lines(folder), read_augmented(folder, turned, vocabulary=VOCABULARY.digest, source=SINGLES.digest)
    assert found.ids == tuple(row["id"] for row in rows) and found.first == tuple(row["first"] for row in rows)
    assert [turned.labels[label] for label in found.labels] == [row["label"] for row in rows]
    assert found.labels.dtype == np.int32 and found.second is None and found.split == "train"
    pairs = read_augmented(run(tmp_path, PAIRS, "pairs"), SIMILARITY)
    originals = pairs.take(np.flatnonzero(["." not in name for name in pairs.ids]))
    assert originals.digest == PAIRS.digest


def test_an_augmented_folder_of_anything_else_is_refused(tmp_path):
    folder = run(tmp_path)
    facts = json.loads((folder / NAME).read_text())
    assert facts["glove"] is None and facts["settings"] == {"copies": 4, "p": 0.5, "candidates": 3, "seed": 0}
    with pytest.raises(
        UserError, match=r"augmented for 'sst2' \(negative, positive\), not for 'stsb' \(pairs, score\)"
    ):
        read_augmented(folder, SIMILARITY)
    with pytest.raises(UserError, match="another vocabulary than the teacher's"):
        read_augmented(folder, SENTIMENT, vocabulary=Vocabulary((*VOCABULARY.pieces, "more")).digest)
    with pytest.raises(UserError, match="from other examples of sst2"):
        read_augmented(folder, SENTIMENT, source=SINGLES.take(np.arange(2)).digest)
    with pytest.raises(UserError, match="holds no augmented examples"):
        read_augmented(tmp_path, SENTIMENT)
    (tmp_path / "odd").mkdir()
    for content in ("{}", "[]", '{"task": {"name": "sst2"}}'):
        (tmp_path / "odd" / NAME).write_text(content)
        with pytest.raises(UserError, match="is damaged"):
            read_augmented(tmp_path / "odd", SENTIMENT)
    text = (folder / EXAMPLES).read_text()
    (folder / EXAMPLES).write_text(text.replace("house", "horse", 1))
    with pytest.raises(UserError, match="missing or damaged"):
        read_augmented(folder, SENTIMENT)


def test_what_can_not_be_augmented_is_refused(tmp_path, glove):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists already"):
        run(tmp_path, name="there")
    with pytest.raises(UserError, match="the dev examples of sst2 are to measure on"):
        run(tmp_path, dataclasses.replace(SINGLES, split="dev"))
    with pytest.raises(UserError, match="no masked-LM head"):
        run(tmp_path, model=dataclasses.replace(MODEL, config=dataclasses.replace(CONFIG, mlm=False)))
    asked = Questions(Task("squad", "spans"), "train", (), (), (), None, None)
    with pytest.raises(UserError, match="answers at places of a text"):
        run(tmp_path, asked)
    for options in ({"copies": 0}, {"candidates": 0}, {"candidates": 16}, {"p": 0.0}, {"p": 1.5}, {"p": float("nan")}):
        with pytest.raises(UserError, match="take at least 1 copy, 1 to 15 candidates"):
            run(tmp_path, **options)
    glove.write_text("slower 1 0\nboats 1\n")
    with pytest.raises(UserError, match=r"glove.txt, line 2"):
        run(tmp_path, glove=glove)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["glove.txt", "there"]
