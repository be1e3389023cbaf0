import pytest
from toy_tasks import IMPOSSIBLE, POSSIBLE, asked, squad_file

from jaxdistill.errors import UserError
from jaxdistill.tasks.read import read_split


def test_squads_files(tmp_path):
    (tmp_path / "train_subset-v1.1.json").write_text(squad_file(asked(), asked("q0", "Where?", [("mat", 19)])))
    (tmp_path / "dev-v2.0.json").write_text(squad_file(POSSIBLE, IMPOSSIBLE))
    questions = read_split("squad", "train", str(tmp_path))
    assert (questions.ids, questions.questions) == (("q1", "q0"), ("Who sat?", "Where?"))
    assert questions.contexts == ("The cat sat on the mat. The cat slept.",) * 2
    assert questions.answers == (("The cat", "The cat"), ("mat",)) and questions.starts == ((0, 24), (19,))
    for source in (tmp_path, tmp_path / "dev-v2.0.json"):
        questions = read_split("squad2", "dev", str(source))
        assert (questions.ids, questions.answers, questions.starts) == (
            ("q2", "q3"),
            (("The cat",) * 2, ()),
            ((0, 24), ()),
        )

    with pytest.raises(
        UserError, match=r"dev-v2.0.json: question q3 has no answer, as in SQuAD 2.0: ask for the task squad2"
    ):
        read_split("squad", "dev", str(tmp_path))
    with pytest.raises(UserError, match=r"has an answer to every question, as in SQuAD 1.1: ask for the task squad"):
        read_split("squad2", "train", str(tmp_path))
    with pytest.raises(UserError, match=r"dev-v2.0.json is not read as the train split"):
        read_split("squad2", "train", str(tmp_path / "dev-v2.0.json"))
    (tmp_path / "dev-v1.1.json").write_text(squad_file(asked()))
    assert read_split("squad", "dev", str(tmp_path)).ids == ("q1",)
    assert read_split("squad2", "dev", str(tmp_path)).ids == ("q2", "q3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            squad_file(asked(answers=[("cat", 5)])),
            "question q1: its context does not have the answer 'cat' at character 5",
        ),
        (squad_file(asked(answers=[("slept.", -6)])), "does not have the answer 'slept.' at character -6"),
        (squad_file(asked(answers=[("", 3)])), "does not have the answer '' at character 3"),
        (squad_file(asked(question=" \t")), "dev-v1.1.json: question q1 is empty"),
        (squad_file(asked(), asked()), "question q1 is there twice"),
        (squad_file(), "holds no questions"),
        (squad_file({"id": "q1", "question": "Who?"}), "is not laid out as SQuAD's files are .KeyError: 'answers'"),
        (squad_file(asked(), asked("q2", None)), r"laid out as SQuAD's files are after question q1 .\w+Error"),
        (squad_file(asked(question=None)), "is not laid out as SQuAD's files are"),
        (squad_file(asked(question=5)), "is not laid out as SQuAD's files are"),
        (squad_file(asked(answers=[("cat", "4")])), "is not laid out as SQuAD's files are"),
        (squad_file(asked(answers=[(4, 4)])), "is not laid out as SQuAD's files are"),
        ('["data"]', "is not laid out as SQuAD's files are"),
        ("{", "is not a JSON file"),
    ],
)
def test_what_is_wrong_with_a_file_of_squad(text, message, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split("squad", "dev", str(tmp_path))


def test_half_a_surrogate_and_a_byte_order_mark_do_no_harm(tmp_path):
    text = squad_file(asked(question="Who \ud800?"))
    (tmp_path / "dev-v1.1.json").write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass"))
    assert read_split("squad", "dev", str(tmp_path)).questions == ("Who \ufffd?",)
