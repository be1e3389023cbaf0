import pytest

from jaxdistill.data.split import split_text
from jaxdistill.errors import UserError


def documents(path):
    return [part for part in path.read_text().split("\n\n") if part.strip()]


def test_every_document_is_in_one_of_the_files_whole(tmp_path):
    source = tmp_path / "all.txt"
    parts = [f"Document {i} starts.\nIt goes on." for i in range(200)]
    source.write_text("\n\n".join(parts) + "\n")
    split_text([str(source)], tmp_path / "train.txt", tmp_path / "held.txt", share=0.2)
    train, held = ([part.strip() for part in documents(tmp_path / name)] for name in ("train.txt", "held.txt"))
    assert sorted(train + held) == sorted(parts)
    assert 20 <= len(held) <= 60


def test_lines_are_documents_where_no_blank_line_is(tmp_path):
    source = tmp_path / "all.txt"
    source.write_text("".join(f"Line {i} stands alone.\n" for i in range(200)))
    split_text([str(source)], tmp_path / "train.txt", tmp_path / "held.txt", share=0.2)
    assert len(documents(tmp_path / "train.txt")) + len(documents(tmp_path / "held.txt")) == 200


def test_the_same_text_is_split_alike_wherever_it_is(tmp_path):
    text = "".join(f"Line {i} stands alone.\n\n" for i in range(100))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.txt").write_text(text)
        split_text([str(tmp_path / name / "all.txt")], tmp_path / name / "t.txt", tmp_path / name / "h.txt", share=0.3)
    assert (tmp_path / "a" / "h.txt").read_bytes() == (tmp_path / "b" / "h.txt").read_bytes()


def test_too_few_documents_leave_nothing_behind(tmp_path):
    (tmp_path / "all.txt").write_text("Alone.\n")
    with pytest.raises(UserError, match="too few"):
        split_text([str(tmp_path / "all.txt")], tmp_path / "train.txt", tmp_path / "held.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["all.txt"]
