import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.tasks import answers
from jaxdistill.tasks.answers import normalise, score_answers
from jaxdistill.tasks.task import Questions, Task

TASK = Task("squad2", "spans", (), ("f1", "exact"), True)


def asked(*golds: tuple[str, ...] | None) -> Questions:
    ids = tuple(f"q{row}" for row in range(len(golds)))
    many = ("?",) * len(golds)
    known = None if None in golds else golds
    return Questions(TASK, "dev", ids, many, many, known, None)


def said(*texts: str) -> dict[str, str]:
    return {f"q{row}": text for row, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The  Cat, a dog\tand an ant.", "cat dog and ant"),
        ("A.B.C.", "abc"),  # punctuation goes before articles: no word "a" is left
        ("the-end", "theend"),
        ("Theatre", "theatre"),
        ("a", ""),
        ("£5", "£5"),
        ("“the”", "“ ”"),
        ("ÉCOLE", "école"),
    ],
)
def test_normalisation(answer, normal):
    assert normalise(answer) == normal


def test_exact_match_and_f1_by_hand():
    assert answers.exact("The Cat!", "cat") == 1.0 and answers.exact("cat", "cats") == 0.0
    assert answers.f1("big black cat", "the black cat sat") == pytest.approx(2 / 3)  # 2 of 3 and 2 of 3
    assert answers.f1("to be or not to be", "to be") == pytest.approx(2 * 1 * (1 / 3) / (4 / 3))
    assert answers.f1("buffalo buffalo", "buffalo buffalo buffalo") == pytest.approx(4 / 5)
    assert answers.f1("cat", "dog") == 0.0
    assert answers.f1("", "the") == 1.0 and answers.f1("", "cat") == 0.0 and answers.f1("cat", "") == 0.0


def test_the_best_gold_answer_counts():
    questions = asked(("black cat", "the cat"), ("the", "dog"))
    got = score_answers(questions, said("cat", "a"))
    # Of "the" nothing is left, so that only "dog" counts.
    assert got == {"exact": 0.5, "f1": 0.5}
    assert score_answers(questions, said("black", "dog")) == pytest.approx({"exact": 0.5, "f1": (2 / 3 + 1) / 2})


def test_where_every_question_has_an_answer_none_is_taken_back():
    questions = asked(("cat",), ("dog",))
    plain = score_answers(questions, said("cat", "dog"))
    assert plain == {"exact": 1.0, "f1": 1.0}
    assert score_answers(questions, said("cat", "dog"), {"q0": 5.0, "q1": 5.0}) == plain


def test_questions_without_an_answer_by_hand():
    questions = asked(("black cat",), ("dog",), (), ())
    predicted = said("cat", "dog", "mouse", "")
    assert score_answers(questions, predicted) == pytest.approx(
        {"exact": 2 / 4, "f1": (2 / 3 + 2) / 4, "HasAns_exact": 1 / 2, "HasAns_f1": (2 / 3 + 1) / 2}
        | {"NoAns_exact": 1 / 2, "NoAns_f1": 1 / 2}
    )
    # By the no-answer score: cat -2, mouse -1, "" 0.5, dog 1. Above 0.0 two are taken back, the second of them wrongly.
    no_answer = {"q0": -2.0, "q1": 1.0, "q2": -1.0, "q3": 0.5}
    got = score_answers(questions, predicted, no_answer)
    assert got == pytest.approx(
        {"exact": 1 / 4, "f1": (2 / 3 + 1) / 4, "HasAns_exact": 0, "HasAns_f1": 1 / 3, "NoAns_exact": 1 / 2}
        | {"NoAns_f1": 1 / 2, "best_exact": 2 / 4, "best_f1": (2 / 3 + 2) / 4}
        | {"best_exact_thresh": np.nextafter(-2, -3), "best_f1_thresh": -2.0}
    )
    at_best = score_answers(questions, predicted, no_answer, threshold=got["best_f1_thresh"])
    assert at_best["f1"] == pytest.approx(got["best_f1"])


def test_only_questions_without_an_answer():
    got = score_answers(asked((), ()), said("", "cat"))
    assert got == {"exact": 0.5, "f1": 0.5, "NoAns_exact": 0.5, "NoAns_f1": 0.5}


@pytest.mark.parametrize("ties", [False, True])
def test_the_best_threshold_is_the_best_of_all(ties):
    draw = np.random.default_rng(ties)
    for _ in range(30):
        golds = [("red fish",) if draw.random() < 0.6 else () for _ in range(12)]
        predicted = said(*draw.choice(["red fish", "fish", "the red cat", "cat", ""], 12).tolist())
        scores = draw.integers(-3, 3, 12) / 2 if ties else draw.normal(size=12)
        no_answer = {f"q{row}": float(value) for row, value in enumerate(scores)}
        if all(golds):
            continue
        questions = asked(*golds)
        got = score_answers(questions, predicted, no_answer)
        for kind in ("exact", "f1"):
            every = [
                score_answers(
                    questions, {key: "" if no_answer[key] > limit else text for key, text in predicted.items()}
                )[kind]
                for limit in [-9.0, *scores]
            ]
            assert got[f"best_{kind}"] == pytest.approx(max(every))
            again = score_answers(questions, predicted, no_answer, threshold=got[f"best_{kind}_thresh"])
            assert again[kind] == pytest.approx(max(every))


def test_bad_input():
    with pytest.raises(UserError, match=r"1 of 2 questions have no predicted answer.*q1"):
        score_answers(asked(("cat",), ()), said("cat"))
    with pytest.raises(UserError, match=r"no no-answer score.*q1"):
        score_answers(asked(("cat",), ()), said("cat", ""), {"q0": 1.0})
    with pytest.raises(UserError, match=r"'dev' has no right answers"):
        score_answers(asked(None), said("cat"))
    with pytest.raises(UserError, match="no right answers"):
        score_answers(asked(), {})
