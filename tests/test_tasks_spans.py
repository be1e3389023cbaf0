import functools
import itertools

import numpy as np
import pytest
import transformers

from jaxdistill.data.vocab import SPECIALS, Vocabulary, write_tokenizer
from jaxdistill.errors import UserError
from jaxdistill.tasks.spans import Windows, select, windows
from jaxdistill.tasks.task import Questions, Task

TASK = Task("squad", "spans", (), ("f1", "exact"), True)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = Vocabulary(
    (*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *"?.,()[]-", "the", "##er", "##ing", "river", "東")
)
WORDS = ["the", "River", "rivers", "Éole,", "(1895-1943).", "東京", "xyz", "running", "a", "  of", "[SEP]", "\u2603"]


def about(*asked: tuple, answers: bool = True) -> Questions:
    """Each: question, context, the answer if any, and which of its occurrences."""
    answer = [(row[2],) if len(row) > 2 else () for row in asked]
    start = [(row[1].index(row[2]),) if len(row) > 2 else () for row in asked]
    return Questions(
        TASK,
        "dev",
        tuple(f"q{row}" for row in range(len(asked))),
        tuple(row[0] for row in asked),
        tuple(row[1] for row in asked),
        tuple(answer) if answers else None,
        tuple(start) if answers else None,
    )


@functools.cache
def many(special: bool = False, seed: int = 0, count: int = 25) -> Questions:
    """Random questions, some to the same context, whose answers begin and end anywhere in it."""
    draw = np.random.default_rng(seed)
    words = [word for word in WORDS if special or word != "[SEP]"]
    contexts = [" ".join(draw.choice(words, draw.integers(1, 40))) for _ in range(count // 2)]
    rows = []
    for number in range(count):
        context = contexts[number % len(contexts)]
        start, stop = sorted(draw.choice(len(context) + 1, 2, replace=False))
        answer = context[start:stop]
        known = number % 5 and answer.strip(" \u2603")
        rows.append((" ".join(draw.choice(words, draw.integers(0, 5))), context, *([answer] if known else [])))
    return about(*rows)


def spelled(found: Windows, row: int) -> str:
    return " ".join(VOCABULARY.pieces[piece] for piece in found.ids[row])


# Windows


def test_a_row_by_hand():
    found = windows(VOCABULARY, about(("The river?", "A (1895)", "1895")), 384)
    assert spelled(found, 0) == "[CLS] the river ? [SEP] a ( 1 ##8 ##9 ##5 ) [SEP]"
    assert found.types[0].tolist() == [0] * 5 + [1] * 8
    assert found.ids[0].dtype == found.types[0].dtype == found.targets.dtype == np.int32
    assert found.targets.tolist() == [[7, 10]] and len(found) == 1
    assert found.chars[0].tolist() == [[0, 1], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7, 8]]


def test_windows_by_hand():
    question = ("a", "b c d e f g h", "d e")
    found = windows(VOCABULARY, about(question), 8, stride=2)
    assert [spelled(found, row) for row in range(len(found))] == [
        "[CLS] a [SEP] b c d e [SEP]",
        "[CLS] a [SEP] d e f g [SEP]",
        "[CLS] a [SEP] f g h [SEP]",
    ]
    assert found.begin.tolist() == [0, 2, 4] and found.question.tolist() == [0, 0, 0]
    assert found.targets.tolist() == [[5, 6], [3, 4], [0, 0]]
    # A stride longer than a row skips nothing; a context that just fits is one window.
    assert [spelled(windows(VOCABULARY, about(question), 8, 100), row) for row in (0, 1)] == [
        "[CLS] a [SEP] b c d e [SEP]",
        "[CLS] a [SEP] f g h [SEP]",
    ]
    assert (
        len(windows(VOCABULARY, about(question), 11, 1)) == 1 and len(windows(VOCABULARY, about(question), 10, 1)) == 2
    )


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (40, 7), (32, 32), (24, 1)])
def test_windows_are_those_of_transformers(length, stride, tmp_path):
    write_tokenizer(VOCABULARY, tmp_path, 512)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    questions = many()
    found, row = windows(VOCABULARY, questions, length, stride), 0
    for number, (question, context) in enumerate(zip(questions.questions, questions.contexts, strict=True)):
        room = length - 3 - len(tokenizer.tokenize(question))
        settings = {"max_length": length, "stride": room - min(stride, room), "return_offsets_mapping": True}
        want = tokenizer(question, context, truncation="only_second", return_overflowing_tokens=True, **settings)
        for at, ids in enumerate(want["input_ids"]):
            assert found.question[row] == number
            assert found.ids[row].tolist() == ids and found.types[row].tolist() == want["token_type_ids"][at]
            part = slice(found.lead[row], found.stops[row])
            assert [want.sequence_ids(at)[i] for i in (part.start - 1, part.start, part.stop - 1, part.stop)] == [
                None,
                1,
                1,
                None,
            ]
            chars = found.chars[number][found.begin[row] :][: part.stop - part.start]
            assert chars.tolist() == [list(pair) for pair in want["offset_mapping"][at][part]]
            row += 1
    assert row == len(found) and (length > 100 or len(found) > len(questions))


@pytest.mark.parametrize(("length", "stride"), [(384, 128), (40, 7), (30, 30)])
def test_targets_hold_each_character_of_the_answer(length, stride):
    questions = many(special=True)
    found = windows(VOCABULARY, questions, length, stride)
    held = set()
    for row, (first, last) in enumerate(found.targets):
        number = found.question[row]
        if not questions.answers[number]:
            assert (first, last) == (0, 0)
            continue
        start = questions.starts[number][0]
        stop = start + len(questions.answers[number][0])
        pieces = found.chars[number]
        touching = [i for i, (a, b) in enumerate(pieces) if a < stop and b > start]
        shown = range(found.begin[row], found.begin[row] + found.stops[row] - found.lead[row])
        if touching and touching[0] in shown and touching[-1] in shown:
            held.add(number)
            assert first - found.lead[row] + found.begin[row] == touching[0]
            assert last - found.lead[row] + found.begin[row] == touching[-1]
        else:
            assert (first, last) == (0, 0)
    assert len(held) > 5


def test_an_answer_without_a_piece_has_no_target():
    # The object replacement and a control character are dropped before words are cut.
    assert windows(VOCABULARY, about(("a", "b \x07 c", "\x07"))).targets.tolist() == [[0, 0]]


def test_without_right_answers_there_are_no_targets():
    assert windows(VOCABULARY, about(("a", "b"), answers=False)).targets is None


def test_specials_in_the_text_are_plain_text_and_an_empty_context_has_a_row():
    found = windows(VOCABULARY, about(("[SEP]", ""), ("[MASK]", "[CLS] \x07")))
    assert spelled(found, 0) == "[CLS] [ s ##e ##p ] [SEP] [SEP]"
    assert spelled(found, 1) == "[CLS] [ m ##a ##s ##k ] [SEP] [ c ##l ##s ] [SEP]"
    logits = np.ones((2, 14), np.float32)
    texts, no_answer = select(found, about(("[SEP]", ""), ("[MASK]", "[CLS] \x07")), logits, logits)
    assert texts == {"q0": "", "q1": "["} and no_answer == {"q0": 2.0, "q1": 0.0}


def test_a_long_question_is_cut():
    found = windows(VOCABULARY, about(("a b c d e f", "g h")), 10, max_question=3)
    assert spelled(found, 0) == "[CLS] a b c [SEP] g h [SEP]"


def test_bad_input():
    asked = about(("a", "b"), ("a b c", "d e"))
    with pytest.raises(UserError, match=r"length 6 leaves no room .* 3 pieces of question q1: .* more than 6"):
        windows(VOCABULARY, asked, 6)
    assert len(windows(VOCABULARY, asked, 7)) == 3
    assert len(windows(VOCABULARY, asked, 6, max_question=2)) == 3
    with pytest.raises(UserError, match="stride 0"):
        windows(VOCABULARY, asked, 7, 0)
    with pytest.raises(UserError, match="longest question 0"):
        windows(VOCABULARY, asked, 7, max_question=0)
    with pytest.raises(UserError, match="no questions"):
        windows(VOCABULARY, about())


# Selection


def widest_of(found: Windows, row: int, position: int) -> bool:
    """BERT's rule by a plain loop over the windows of the same question."""
    piece = position - found.lead[row] + found.begin[row]
    scores = {}
    for other in np.flatnonzero(found.question == found.question[row]):
        size = int(found.stops[other] - found.lead[other])
        left = int(piece - found.begin[other])
        if 0 <= left < size:
            scores[other] = min(left, size - 1 - left) + 0.01 * size
    return max(scores, key=scores.get) == row


def selected(found, questions, starts, ends, n_best, max_answer):
    """BERT's selection by plain loops: the score and the text of each question's best span, and its null score."""
    best, null = {}, {}
    for row, (number, ids) in enumerate(zip(found.question, found.ids, strict=True)):
        null[number] = min(null.get(number, np.inf), float(starts[row, 0]) + float(ends[row, 0]))
        ranked = [
            sorted(range(len(ids)), key=lambda i, logits=logits: logits[i], reverse=True)[:n_best]
            for logits in (starts[row], ends[row])
        ]
        for first, last in itertools.product(*ranked):
            inside = found.lead[row] <= first <= last < found.stops[row]
            if not inside or last - first + 1 > max_answer or not widest_of(found, row, first):
                continue
            score = float(starts[row, first]) + float(ends[row, last])
            if number not in best or score > best[number][0]:
                shift = found.begin[row] - found.lead[row]
                begin, end = found.chars[number][first + shift][0], found.chars[number][last + shift][1]
                best[number] = score, questions.contexts[number][begin:end]
    return best, null


@pytest.mark.parametrize("long", [False, True])
def test_maximum_context_is_that_of_the_plain_loop(long):
    # In the long one a window is 140 pieces longer than the next: that outweighs a piece on either side.
    found = windows(VOCABULARY, about(("a", "b " * 460)), 304, 150) if long else windows(VOCABULARY, many(), 30, 5)
    for row in range(len(found)):
        inside = range(found.lead[row], found.stops[row])
        want = [position in inside and widest_of(found, row, position) for position in range(found.widest.shape[1])]
        assert found.widest[row].tolist() == want
    assert found.widest.sum() == sum(map(len, found.chars))  # each piece in one window


def test_maximum_context_by_hand():
    # b c d e, d e f g, f g h: d has 2 and 0 around it on one side or the other: nothing on the shorter in the second.
    found = windows(VOCABULARY, about(("a", "b c d e f g h")), 8, stride=2)
    shown = [
        [VOCABULARY.pieces[ids[i]] for i in np.flatnonzero(widest)]
        for ids, widest in zip(found.ids, found.widest, strict=True)
    ]
    assert shown == [["b", "c", "d"], ["e", "f"], ["g", "h"]]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("length", "n_best", "max_answer"), [(30, 20, 30), (26, 3, 4), (384, 5, 2), (24, 1, 30)])
def test_selection_is_that_of_the_plain_loop(whole, length, n_best, max_answer):
    questions = many()
    found = windows(VOCABULARY, questions, length, 5)
    draw = np.random.default_rng(length)
    starts, ends = draw.normal(size=(2, len(found), int(found.lengths.max()) + 3)).astype(np.float32) * 3
    if whole:  # many equal scores
        starts, ends = np.round(starts), np.round(ends)
    behind = np.arange(starts.shape[1]) >= found.lengths[:, None]
    starts[behind], ends[behind] = 100, np.nan  # never read
    best, null = selected(found, questions, starts, ends, n_best, max_answer)
    texts, no_answer = select(found, questions, starts, ends, n_best, max_answer)
    assert list(texts) == list(no_answer) == list(questions.ids)
    for number, key in enumerate(questions.ids):
        score, text = best.get(number, (0.0, ""))
        assert texts[key] == text
        assert no_answer[key] == pytest.approx(null[number] - score, abs=1e-12)
    assert sum(map(bool, texts.values())) > 5 and (n_best > 1 or not all(texts.values()))
    limit = float(np.median([value for key, value in no_answer.items() if texts[key]]))
    taken, again = select(found, questions, starts, ends, n_best, max_answer, threshold=limit)
    assert again == no_answer
    assert taken == {key: "" if no_answer[key] > limit else text for key, text in texts.items()}
    assert taken != texts


def test_selection_does_not_depend_on_the_block(monkeypatch):
    questions = many()
    found = windows(VOCABULARY, questions, 30, 5)
    starts, ends = np.random.default_rng(1).normal(size=(2, len(found), 30))
    want = select(found, questions, starts, ends)
    monkeypatch.setattr("jaxdistill.tasks.spans._BLOCK", 7)
    assert select(found, questions, starts, ends) == want
    cut = windows(VOCABULARY, questions, 30, 5)
    assert all(map(np.array_equal, cut.ids, found.ids)) and len(cut) == len(found)


def test_answers_come_back_as_they_are_written():
    questions = about(
        ("a", "the  Éole, (1895-1943). 東京", "Éole"),
        ("a", "the  Éole, (1895-1943). 東京", "1895-1943"),
        ("a", "the  Éole, (1895-1943). 東京", "京"),
        ("a", "the Rivers", "River"),  # a whole piece more than the answer
        ("a", "The  River, the", "The  River"),
    )
    found = windows(VOCABULARY, questions, 20, 4)
    starts, ends = np.zeros((2, len(found), 20), np.float32)
    held = np.flatnonzero(found.targets[:, 0])
    starts[held, found.targets[held, 0]] = ends[held, found.targets[held, 1]] = 5
    texts, no_answer = select(found, questions, starts, ends)
    assert list(texts.values()) == ["Éole", "1895-1943", "京", "River", "The  River"]
    assert set(no_answer.values()) == {-10.0}


def test_logits_of_something_else_are_refused():
    questions = about(("a", "b c"))
    found = windows(VOCABULARY, questions)
    logits = np.zeros((1, 6))
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        select(found, questions, logits[:, :5], logits)
    with pytest.raises(ValueError, match=r"\(2, 6\)"):
        select(found, questions, logits, np.zeros((2, 6)))
    with pytest.raises(ValueError, match="2 questions"):
        select(found, about(("a", "b"), ("a", "b")), logits, logits)
    with pytest.raises(UserError, match="not numbers"):
        select(found, questions, logits, logits * np.nan)
