import numpy as np
import pytest
from toy_corpus import SPECIALS, make

from jaxdistill.data.batches import Batches
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import Vocabulary, cut
from jaxdistill.data.windows import build_windows, fit_tables
from jaxdistill.errors import UserError


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_mixing_probability_and_ramp(probability):
    views = {
        "mixed": View("student", "student", probability),
        "ramp": View("student", "student", probability, ramp=100),
    }
    batches = make(batch=64, views=views, masking=Masking(mask=0.0, random=0.0, predictions=6))
    for step in (0, 50, 100, 2000):
        batch = batches(step)
        for role in views:
            body = batch[role]["mask"].sum() - 2 * 64
            expected = views[role].mixing(step)
            share = batch[role]["source"].sum() / body
            assert abs(share - expected) < 0.1 if 0 < expected < 1 else share == expected
    assert [View("a", "b", 0.5, ramp=10).mixing(step) for step in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]


def test_bad_settings():
    for wrong in ({"probability": 1.2}, {"probability": -0.1}, {"ramp": -1}):
        with pytest.raises(UserError):
            View("a", "b", **wrong)


def test_rows_are_what_the_tokenizer_cuts(tiny_text):
    text = [line.split() for line in tiny_text.splitlines()[:200] if line]
    lexicon = ["", *sorted({word for line in text for word in line})]
    words = np.array([lexicon.index(word) for line in text for word in line], np.uint32)
    documents = np.cumsum([0, *map(len, text)])
    letters = sorted({letter for word in lexicon for letter in word.lower()} - {"é"})  # é is read as e
    pieces = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters)]
    vocabularies = {
        "short": Vocabulary((*pieces, "the", "##ing", "sail", "##or")),
        "cased": Vocabulary((*pieces[:-8], "The", "old", "river"), lowercase=False),
    }
    tables = {name: cut(vocabulary, lexicon) for name, vocabulary in vocabularies.items()}
    tables = fit_tables(vocabularies, tables, 64)
    windows = build_windows(words, documents, tables, 64)
    views = {name: View(name) for name in vocabularies}
    batches = Batches(words, windows, vocabularies, tables, views, 16, Masking(mask=0.0, random=0.0))
    for step in range(5):
        batch, chosen = batches(step), batches.order(np.arange(step * 16, step * 16 + 16))
        for name, vocabulary in vocabularies.items():
            tokenizer = vocabulary.tokenizer()
            for row, window in enumerate(chosen):
                line = " ".join(lexicon[word] for word in words[windows.start[window] : windows.stop[window]])
                view = batch[name]
                assert view["ids"][row][view["mask"][row]].tolist() == tokenizer.encode(line).ids
