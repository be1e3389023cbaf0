import csv
import gzip

import numpy as np
import pytest
from toy_tasks import label_names

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import read_csv, read_lines, read_tsv
from jaxdistill.tasks.read import find_task, read_split
from jaxdistill.tasks.tables import Columns, parse_columns


def test_tabs_alone_part_fields(tmp_path):
    lines = ["a\tb\tc\r\n", '"x\ty"\t"\n', " \t\t'\n", 'caf\u00e9\u2028\u0085\rz\t""\tq\r\r\n', "1\t2\t3"]
    path = tmp_path / "rows.tsv"
    path.write_bytes("".join(lines).encode())
    ours = [list(row.values()) for _, row in read_tsv(path)]
    assert ours[:2] == list(csv.reader(lines[1:3], delimiter="\t", quoting=csv.QUOTE_NONE))
    assert ours[2:] == [["caf\u00e9\u2028\u0085\rz", '""', "q"], ["1", "2", "3"]]
    assert [number for number, _ in read_tsv(path)] == [2, 3, 4, 5]


def test_lines_across_blocks(tmp_path, monkeypatch):
    lines = ["\ufeffé first", "", "x" * 50, "last, without an end"]
    path = tmp_path / "lines.tsv.gz"
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    monkeypatch.setattr("jaxdistill.data.sources.BLOCK", 7)
    assert list(read_lines(path)) == [(1, "é first"), (2, ""), (3, "x" * 50), (4, "last, without an end")]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"lines.tsv.gz is a damaged or incomplete gzip file"):
        list(read_lines(path))
    (tmp_path / "latin.tsv").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.tsv is not UTF-8 text"):
        list(read_lines(tmp_path / "latin.tsv"))
    with pytest.raises(UserError, match=r"none.tsv does not exist"):
        list(read_lines(tmp_path / "none.tsv"))


def test_a_users_own_csv(tmp_path):
    train, dev = tmp_path / "train.csv", tmp_path / "dev.jsonl.gz"
    rows = [["what", "reply", "mood"], ["a, b", 'say "hi"\nand go', "10"], ["c", "d", "9"], ["e", "", "-1"]]
    with train.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    dev.write_bytes(gzip.compress(b'{"what": "x", "reply": "\\ud800y", "mood": 9, "n": 4}\n\n'))
    columns = "first=what, second=reply,label=mood"
    task = find_task(str(train), columns=columns)
    assert (task.name, task.kind, task.labels, task.pair) == ("train", "classes", ("-1", "9", "10"), True)
    assert task.metrics == ("accuracy", "macro_f1")
    examples = read_split(str(train), "train", columns=columns)
    assert examples.task == task and list(zip(examples.first, examples.second, label_names(examples), strict=True)) == [
        tuple(row) for row in rows[1:]
    ]
    examples = read_split(str(train), "dev", columns=columns + ",id=n", dev=str(dev))
    assert examples.task == task and examples.split == "dev"
    assert (examples.first, examples.second, examples.ids) == (("x",), ("\ufffdy",), ("4",))
    assert label_names(examples) == ["9"]

    dev.write_bytes(gzip.compress(b'{"what": "x", "reply": "y", "mood": "9"}\n{"what": "x", "reply": "y", "mood": 3}'))
    with pytest.raises(UserError, match=r"dev.jsonl.gz, line 2 has the unknown label '3', none of -1, 9, 10"):
        read_split(str(train), "dev", columns=columns, dev=str(dev))
    with pytest.raises(UserError, match=r"line 1 has no column 'n', only 'what', 'reply', 'mood'"):
        read_split(str(train), "dev", columns=columns + ",id=n", dev=str(dev))
    with pytest.raises(UserError, match=r"train.csv is a training file: name a dev file"):
        read_split(str(train), "dev", columns=columns)
    with pytest.raises(UserError, match=r"has no split 'test': its splits are train, dev"):
        read_split(str(train), "test", columns=columns)


def test_classes_in_alphabetical_order_and_scores(tmp_path):
    path = tmp_path / "my.data.tsv"
    path.write_text('sentence\tlabel\n"one\tno\ntwo\t10\nthree\tmaybe\nfour\tno\n')
    assert find_task(str(path)).labels == ("10", "maybe", "no") and find_task(str(path)).name == "my.data"
    assert read_split(str(path), "train").labels.tolist() == [2, 0, 1, 2]
    with pytest.raises(UserError, match=r"line 2 has the label 'no', which is not a number"):
        read_split(str(path), "train", columns="kind=score")
    with pytest.raises(UserError, match=r"needs no other source"):
        read_split(str(path), "train", source=str(tmp_path))
    path.write_text("sentence\tlabel\na\t0.5\nb\t1e39\n")
    with pytest.raises(UserError, match=r"line 3 has the label '1e39', which is not a number of 32 bits"):
        read_split(str(path), "train", columns="kind=score")
    path.write_text("sentence\tlabel\na\t0.5\nb\t-1e3\n")
    assert find_task(str(path), columns="kind=score").metrics == ("pearson", "spearman")
    examples = read_split(str(path), "train", columns="kind=score")
    assert examples.labels.dtype == np.float32 and examples.labels.tolist() == [0.5, -1000]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "sentence\tlabel\na\tx\nb\tx\n", "'label' is 'x' in all rows: a task needs two classes"),
        ("a.tsv", "", "a.tsv holds no examples: it needs a line for each, after one with the columns' names"),
        ("a.tsv", "sentence\tlabel\n", "holds no examples"),
        (
            "a.tsv",
            "sentence\tlabel\n" + "".join(f"a\t{number / 7}\n" for number in range(30)),
            "'label' has 30 values in 30 rows: a score to be foretold is asked for with columns kind=score",
        ),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", '{"sentence": "a", "label": ' + "1" * 5000 + "}", "line 1 is not JSON"),
        ("a.tsv", "text\tlabel\na\tx\nb\ty\n", "has no column 'sentence', only 'text', 'label'.*first="),
        ("a.csv", 'sentence,label\na "b",x\n"c,y\n', "a.csv, line 3 is not CSV"),
        ("a.csv", "sentence,label\na,b,x\n", "a.csv, line 2 has 3 fields where 2 are expected"),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n["b", 0]\n', "line 2 is not a JSON object"),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence": "b", "label": null}\n', "line 2 has no label in"),
        (
            "a.jsonl",
            '{"sentence": 5, "label": 1}\n{"sentence": "b", "label": 0}\n',
            "line 1: 'sentence' is 5, not text",
        ),
        ("a.txt", "a", "a.txt has an unknown extension: examples are in .tsv, .csv, .jsonl, or .gz of these"),
    ],
)
def test_what_is_wrong_with_a_users_own_file(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(str(path), "train")


def test_a_long_field_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"sentence,label\n{'long ' * 40_000},x\nb,y\n")
    assert len(read_split(str(path), "train").first[0]) == 200_000


def test_csv_lines_are_counted_over_quoted_newlines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"1\n2",x\n\n3\n')
    with pytest.raises(UserError, match=r"a.csv, line 5 has 1 field where 2"):
        list(read_csv(path))


def test_columns_as_users_write_them():
    assert parse_columns("") == Columns()
    assert parse_columns("first=a b, kind = score,id=n") == Columns("a b", id="n", kind="score")
    for text in ("sentence", "first=", "third=x"):
        with pytest.raises(UserError, match=r"is not NAME=COLUMN with one of first, second, label, id, kind"):
            parse_columns(text)
    with pytest.raises(UserError, match=r"first is given twice"):
        parse_columns("first=a,first=b")
    for text in ("first=a,second=a", "first=label"):
        with pytest.raises(UserError, match=r"name one column twice"):
            parse_columns(text)
    with pytest.raises(UserError, match=r"kind=spans is neither"):
        parse_columns("kind=spans")
    with pytest.raises(UserError, match=r"columns and a dev file are for files of your own: sst2 has its own"):
        read_split("sst2", "dev", "hub", columns="first=text")
