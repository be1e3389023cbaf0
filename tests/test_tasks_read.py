import csv
import gzip
import json
import sys

import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.tasks.fields import read_csv, read_lines, read_tsv
from jaxdistill.tasks.read import TASKS, find_task, read_split, splits_of
from jaxdistill.tasks.tables import Columns, parse_columns

# Of each task of GLUE, as its own download writes them: the folder, a file with labels, the test file, and what is in
# the first: (first text, second text, the label's name or the score).
MNLI_HEADER = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
MNLI_HEADER += "\tsentence2_parse\tsentence1\tsentence2"
STSB_HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
GLUE_FILES = {
    "cola": (
        "CoLA",
        'gj04\t1\t\tHe said "no.\ngj04\t0\t*\tThey drank the pub.\n',
        "index\tsentence\n0\tBill whistled.\n1\tThe car.\n",
        [('He said "no.', None, "acceptable"), ("They drank the pub.", None, "unacceptable")],
    ),
    "sst2": (
        "SST-2",
        "sentence\tlabel\nit 's charming . \t1\r\nbleak \t0\r\n",
        "index\tsentence\n0\ta\n1\tb\n",
        [("it 's charming . ", None, "positive"), ("bleak ", None, "negative")],
    ),
    "mrpc": (
        "MRPC",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t" He said\tHe said "\n0\t9\t10\tOne\tTwo\n',
        "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n1\t3\t4\tc\td\n",
        [('" He said', 'He said "', "equivalent"), ("One", "Two", "not_equivalent")],
    ),
    "stsb": (
        "STS-B",
        STSB_HEADER
        + "\tscore\n0\tg\tf\t2012\t0\tn\tn\tA plane.\tAn air plane.\t5.000\n1\tg\tf\t2012\t4\tn\tn\tA\tB\t3.25",
        STSB_HEADER + "\n0\tg\tf\t2012\t0\tn\tn\ta\tb\n1\tg\tf\t2012\t0\tn\tn\tc\td\n",
        [("A plane.", "An air plane.", 5.0), ("A", "B", 3.25)],
    ),
    "qqp": (
        "QQP",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n31\t1\t2\tWho?\tWhom?\t1\n77\t3\t4\tWhen?\tWhere?\t0\n",
        "id\tquestion1\tquestion2\n0\ta\tb\n1\tc\td\n",
        [("Who?", "Whom?", "duplicate"), ("When?", "Where?", "not_duplicate")],
    ),
    "mnli": (
        "MNLI",
        MNLI_HEADER + "\tlabel1\tgold_label\n0\t\t\tg\t\t\t\t\tA man.\tA boy.\tneutral\tcontradiction\n"
        "1\t\t\tg\t\t\t\t\tA cat.\tAn animal.\tentailment\tentailment\n2\t\t\tg\t\t\t\t\tA\tB\tneutral\tneutral\n",
        MNLI_HEADER + "\n0\t\t\tg\t\t\t\t\ta\tb\n1\t\t\tg\t\t\t\t\tc\td\n",
        [("A man.", "A boy.", "contradiction"), ("A cat.", "An animal.", "entailment"), ("A", "B", "neutral")],
    ),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel\n0\tWhat?\tThis.\tentailment\n1\tWho?\tNobody.\tnot_entailment\n",
        "index\tquestion\tsentence\n0\ta\tb\n1\tc\td\n",
        [("What?", "This.", "entailment"), ("Who?", "Nobody.", "not_entailment")],
    ),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n1\tC\tD\tentailment\n",
        "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n",
        [("A", "B", "not_entailment"), ("C", "D", "entailment")],
    ),
    "wnli": (
        "WNLI",
        "index\tsentence1\tsentence2\tlabel\n0\tThe drain.\tThe hair.\t0\n1\tJane.\tSusan.\t1\n",
        "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n",
        [("The drain.", "The hair.", "not_entailment"), ("Jane.", "Susan.", "entailment")],
    ),
}
PARTS = {"dev": "dev_matched", "test": "test_matched"}


def write_glue(folder, name, split, text):
    """Writes a split's file where GLUE's download has it."""
    path = folder / GLUE_FILES[name][0] / f"{PARTS.get(split, split) if name == 'mnli' else split}.tsv"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(text.encode())
    return path


def label_names(examples):
    return [examples.task.labels[number] for number in examples.labels]


@pytest.mark.parametrize("name", GLUE_FILES)
def test_glues_own_files(name, tmp_path):
    folder, labelled, test, expected = GLUE_FILES[name]
    write_glue(tmp_path, name, "dev", labelled)
    write_glue(tmp_path, name, "test", test)
    examples = read_split(name, "dev", str(tmp_path))
    assert examples.task == find_task(name) and examples.split == "dev" and len(examples) == len(expected)
    assert examples.first == tuple(first for first, _, _ in expected)
    if examples.task.pair:
        assert examples.second == tuple(second for _, second, _ in expected)
    else:
        assert examples.second is None
    if name == "stsb":
        assert examples.labels.dtype == np.float32 and examples.labels.tolist() == [5.0, 3.25]
    else:
        assert examples.labels.dtype == np.int32 and label_names(examples) == [label for _, _, label in expected]
    assert examples.ids == tuple(map(str, range(len(expected))))

    unlabelled = read_split(name, "test", str(tmp_path / folder))
    assert unlabelled.labels is None and unlabelled.ids == ("0", "1") and unlabelled.first[0] == "a" or name == "cola"
    assert unlabelled.second == (("b", "d") if examples.task.pair else None)

    with pytest.raises(UserError, match=r"has no train.tsv .*, only (dev|dev_matched).tsv, (test|test_matched).tsv"):
        read_split(name, "train", str(tmp_path))


def test_labels_are_those_of_the_hub():
    labels = {name: find_task(name).labels for name in TASKS}
    assert labels == {
        "cola": ("unacceptable", "acceptable"),
        "sst2": ("negative", "positive"),
        "mrpc": ("not_equivalent", "equivalent"),
        "stsb": (),
        "qqp": ("not_duplicate", "duplicate"),
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
        "wnli": ("not_entailment", "entailment"),
        "imdb": ("negative", "positive"),
        "squad": (),
        "squad2": (),
    }
    assert [name for name in TASKS if find_task(name).kind == "score"] == ["stsb"]
    assert [find_task(name).metrics[0] for name in ("cola", "mrpc", "stsb", "mnli")] == [
        "matthews",
        "f1",
        "pearson",
        "accuracy",
    ]


def test_ids_of_a_test_file_are_its_own(tmp_path):
    write_glue(tmp_path, "qqp", "test", "id\tquestion1\tquestion2\n7\ta\tb\n3\tc\td\n")
    assert read_split("qqp", "test", str(tmp_path)).ids == ("7", "3")


def test_parts_of_mnli_are_told_apart(tmp_path):
    text = GLUE_FILES["mnli"][1]
    write_glue(tmp_path, "mnli", "dev", text)
    with pytest.raises(UserError, match=r"has no dev_mismatched.tsv .*, only dev_matched.tsv"):
        read_split("mnli", "dev_mismatched", str(tmp_path))
    (tmp_path / "MNLI" / "dev_mismatched_100.tsv").write_text(text.replace("A man.", "A woman."))
    assert read_split("mnli", "dev_mismatched", str(tmp_path)).first[0] == "A woman."
    assert read_split("mnli", "dev", str(tmp_path)).first[0] == "A man."
    (tmp_path / "MNLI" / "dev_mismatched_200.tsv").write_text(text)
    with pytest.raises(UserError, match="dev_mismatched_100.tsv, dev_mismatched_200.tsv: leave only one"):
        read_split("mnli", "dev_mismatched", str(tmp_path))
    with pytest.raises(UserError, match="mnli has no split 'validation': .* dev_mismatched, test, test_mismatched"):
        read_split("mnli", "validation", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sst2", "sentence\tlabel\nfine\t1\nno label\n", "dev.tsv, line 3 has 1 field where 2 are expected"),
        ("sst2", "sentence\tlabel\na tab\there\t1\n", "dev.tsv, line 2 has 3 fields where 2 are expected"),
        ("sst2", "sentence\tlabel\nfine\t2\n", "dev.tsv, line 2 has the unknown label '2', none of 0, 1"),
        ("sst2", "sentence\tlabel\nfine\t\n", "dev.tsv, line 2 has no label in 'label'"),
        ("sst2", "fine\t1\ngood\t1\n", "dev.tsv, line 2 has no column 'sentence', only 'fine', '1': is the header"),
        ("sst2", "sentence\tsentence\nfine\t1\n", "names two columns 'sentence'"),
        ("sst2", "sentence\tlabel\n", "dev.tsv holds no examples"),
        ("cola", "sentence\tlabel\nfine\t1\n", "dev.tsv, line 1 has 2 fields where 4 are expected"),
        ("rte", GLUE_FILES["wnli"][1], "dev.tsv, line 2 has the unknown label '0', none of entailment, not_entailment"),
        ("wnli", GLUE_FILES["rte"][1], "dev.tsv, line 2 has the unknown label 'not_entailment', none of 0, 1"),
        ("mrpc", GLUE_FILES["sst2"][1], "dev.tsv, line 2 has no column '#1 String', only 'sentence', 'label'"),
        ("rte", GLUE_FILES["rte"][2], "dev.tsv, line 2 has no column 'label', only 'index', 'sentence1'"),
        ("stsb", GLUE_FILES["stsb"][1].replace("5.000", "nan"), "has the label 'nan', which is not a number"),
        ("stsb", GLUE_FILES["stsb"][1].replace("5.000", "good"), "has the label 'good', which is not a number"),
    ],
)
def test_what_is_wrong_with_a_file_of_glue(name, text, message, tmp_path):
    write_glue(tmp_path, name, "dev", text)
    with pytest.raises(UserError, match=message):
        read_split(name, "dev", str(tmp_path))


def test_broken_lines_are_left_out_of_qqps_training_file_alone(tmp_path):
    broken = '5\t6\t7\tWhat is "this\n"\tIs it?\t0\n'
    text = GLUE_FILES["qqp"][1] + broken
    for split in ("train", "dev"):
        write_glue(tmp_path, "qqp", split, text)
    assert read_split("qqp", "train", str(tmp_path)).first == ("Who?", "When?")
    with pytest.raises(UserError, match="dev.tsv, line 4 has 4 fields where 6 are expected"):
        read_split("qqp", "dev", str(tmp_path))
    write_glue(tmp_path, "qqp", "train", text + broken)
    with pytest.raises(UserError, match="train.tsv, line 7 has 3 fields"):
        read_split("qqp", "train", str(tmp_path))


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist: name a folder of sst2's files, hub or tfds"):
        read_split("sst2", "dev", str(tmp_path / "none"))
    with pytest.raises(UserError, match="has no dev.tsv or dev.tsv.gz or dev_\\*.tsv, only nothing"):
        read_split("sst2", "dev", str(tmp_path))
    path = write_glue(tmp_path, "sst2", "dev", GLUE_FILES["sst2"][1])
    with pytest.raises(
        UserError, match="dev.tsv is a file: name the folder of sst2's files, or the one that holds SST-2/"
    ):
        read_split("sst2", "dev", str(path))


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
    with pytest.raises(UserError, match="lines.tsv.gz is a damaged or incomplete gzip file"):
        list(read_lines(path))
    (tmp_path / "latin.tsv").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match="latin.tsv is not UTF-8 text"):
        list(read_lines(tmp_path / "latin.tsv"))
    with pytest.raises(UserError, match="none.tsv does not exist"):
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
    assert examples.task == task and list(zip(examples.first, examples.second, label_names(examples))) == [
        tuple(row) for row in rows[1:]
    ]
    examples = read_split(str(train), "dev", columns=columns + ",id=n", dev=str(dev))
    assert examples.task == task and examples.split == "dev"
    assert (examples.first, examples.second, examples.ids) == (("x",), ("\ufffdy",), ("4",))
    assert label_names(examples) == ["9"]

    dev.write_bytes(gzip.compress(b'{"what": "x", "reply": "y", "mood": "9"}\n{"what": "x", "reply": "y", "mood": 3}'))
    with pytest.raises(UserError, match="dev.jsonl.gz, line 2 has the unknown label '3', none of -1, 9, 10"):
        read_split(str(train), "dev", columns=columns, dev=str(dev))
    with pytest.raises(UserError, match="line 1 has no column 'n', only 'what', 'reply', 'mood'"):
        read_split(str(train), "dev", columns=columns + ",id=n", dev=str(dev))
    with pytest.raises(UserError, match="train.csv is a training file: name a dev file"):
        read_split(str(train), "dev", columns=columns)
    with pytest.raises(UserError, match="has no split 'test': its splits are train, dev"):
        read_split(str(train), "test", columns=columns)


def test_classes_in_alphabetical_order_and_scores(tmp_path):
    path = tmp_path / "my.data.tsv"
    path.write_text('sentence\tlabel\n"one\tno\ntwo\t10\nthree\tmaybe\nfour\tno\n')
    assert find_task(str(path)).labels == ("10", "maybe", "no") and find_task(str(path)).name == "my.data"
    assert read_split(str(path), "train").labels.tolist() == [2, 0, 1, 2]
    with pytest.raises(UserError, match="line 2 has the label 'no', which is not a number"):
        read_split(str(path), "train", columns="kind=score")
    path.write_text("sentence\tlabel\na\t0.5\nb\t-1e3\n")
    assert find_task(str(path), columns="kind=score").metrics == ("pearson", "spearman")
    examples = read_split(str(path), "train", columns="kind=score")
    assert examples.labels.dtype == np.float32 and examples.labels.tolist() == [0.5, -1000]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "sentence\tlabel\na\tx\nb\tx\n", "'label' is 'x' in all rows: a task needs two classes"),
        ("a.tsv", "text\tlabel\na\tx\n", "has no column 'sentence', only 'text', 'label'.*first="),
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


def test_csv_lines_are_counted_over_quoted_newlines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"1\n2",x\n\n3\n')
    with pytest.raises(UserError, match="a.csv, line 5 has 1 field where 2"):
        list(read_csv(path))


def test_columns_as_users_write_them():
    assert parse_columns("") == Columns()
    assert parse_columns("first=a b, kind = score,id=n") == Columns("a b", id="n", kind="score")
    for text in ("sentence", "first=", "third=x"):
        with pytest.raises(UserError, match="is not NAME=COLUMN with one of first, second, label, id, kind"):
            parse_columns(text)
    with pytest.raises(UserError, match="kind=spans is neither"):
        parse_columns("kind=spans")
    with pytest.raises(UserError, match="columns and a dev file are for files of your own: sst2 has its own"):
        read_split("sst2", "dev", "hub", columns="first=text")


def test_names_of_nothing():
    for call in (find_task, lambda name: read_split(name, "train")):
        with pytest.raises(UserError, match="sst3 is no file and no task: the tasks are cola, sst2, mrpc, .*squad2"):
            call("sst3")
    assert splits_of("imdb") == ("train", "test") and splits_of("squad") == ("train", "dev")
    with pytest.raises(UserError, match="imdb has no split 'dev': its splits are train, test"):
        read_split("imdb", "dev", "hub")


def test_imdbs_original_folder(tmp_path):
    for path, text in {
        "train/neg/10_2.txt": "Bad.<br />Very.",
        "train/neg/9_1.txt": "Worse é",
        "train/pos/0_9.txt": "Good",
        "train/unsup/0_0.txt": "?",
        "test/neg/0_1.txt": "No",
    }.items():
        (tmp_path / "aclImdb" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "aclImdb" / path).write_text(text, encoding="utf-8")
    for source in (tmp_path, tmp_path / "aclImdb"):
        examples = read_split("imdb", "train", str(source))
        assert examples.first == ("Worse é", "Bad.<br />Very.", "Good")
        assert label_names(examples) == ["negative", "negative", "positive"]
    with pytest.raises(UserError, match="pos holds no reviews"):
        read_split("imdb", "test", str(tmp_path))


def test_imdb_in_tables(tmp_path):
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(b'sentence\tlabel\na "b\t0\nc\t1\n'))
    (tmp_path / "test.csv").write_text("sentence,label\nd,positive\ne,neg\n")
    assert read_split("imdb", "train", str(tmp_path)).labels.tolist() == [0, 1]
    assert read_split("imdb", "test", str(tmp_path)).labels.tolist() == [1, 0]
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match=r"has no test.tsv or .*, only train.tsv.gz"):
        read_split("imdb", "test", str(tmp_path))
    with pytest.raises(UserError, match="is a file: name the folder that holds IMDb's train and test"):
        read_split("imdb", "train", str(tmp_path / "train.tsv.gz"))


def squad_file(*asked, context="The cat sat on the mat. The cat slept."):
    content = {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(asked)}]}]}
    return json.dumps(content)


def asked(name="q1", question="Who sat?", answers=(("The cat", 0), ("The cat", 24)), **more):
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": question, "answers": answers, **more}


POSSIBLE = asked("q2", is_impossible=False)
IMPOSSIBLE = asked("q3", "Who ran?", (), is_impossible=True, plausible_answers=[{"text": "cat", "answer_start": 4}])


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
    with pytest.raises(UserError, match="has an answer to every question, as in SQuAD 1.1: ask for the task squad"):
        read_split("squad2", "train", str(tmp_path))
    with pytest.raises(UserError, match="dev-v2.0.json is not read as the train split"):
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
        ('["data"]', "is not laid out as SQuAD's files are"),
        ("{", "is not a JSON file"),
    ],
)
def test_what_is_wrong_with_a_file_of_squad(text, message, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split("squad", "dev", str(tmp_path))


def hub_features(name, labels, **others):
    import datasets

    label = datasets.ClassLabel(names=list(labels)) if labels else datasets.Value("float32")
    texts = dict.fromkeys(others, datasets.Value("string"))
    return datasets.Features({**texts, "label": label, "idx": datasets.Value("int32")})


@pytest.mark.parametrize("name", ["sst2", "mrpc", "mnli", "stsb", "qnli"])
def test_data_sets_hold_what_glues_files_hold(name, tmp_path, monkeypatch):
    import datasets

    _, labelled, test, expected = GLUE_FILES[name]
    write_glue(tmp_path, name, "dev", labelled)
    write_glue(tmp_path, name, "test", test)
    texts = {"mnli": ("premise", "hypothesis"), "qnli": ("question", "sentence"), "sst2": ("sentence", "")}
    first, second = texts.get(name, ("sentence1", "sentence2"))
    files = {split: read_split(name, split, str(tmp_path)) for split in ("dev", "test")}
    features = hub_features(name, files["dev"].task.labels, **{column: 1 for column in (first, second) if column})

    def table(split, labels):
        columns = {first: files[split].first, "label": labels, "idx": range(len(labels))}
        columns |= {second: files[split].second} if second else {}
        return datasets.Dataset.from_dict({key: list(value) for key, value in columns.items()}, features=features)

    end = "_matched" if name == "mnli" else ""
    tables = {
        f"validation{end}": table("dev", [label for *_, label in expected]),
        f"test{end}": table("test", [-1, -1]),
    }
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    for split in ("dev", "test"):
        assert read_split(name, split, str(tmp_path / "saved")).digest == files[split].digest
    with pytest.raises(UserError, match=f"{name}: train of .*saved can't be read"):
        read_split(name, "train", str(tmp_path / "saved"))

    calls = []

    def load_dataset(*call, split):
        calls.append(call)
        if split not in tables:
            raise ValueError("Unknown split")
        return tables[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_split(name, "dev").digest == read_split(name, "dev", "hub").digest == files["dev"].digest
    assert calls == [("nyu-mll/glue", name)] * 2
    with pytest.raises(UserError, match=r"train of nyu-mll/glue can't be read \(Unknown split\): name a folder"):
        read_split(name, "train")


def test_a_clone_of_a_hubs_data_set(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = {"text": datasets.Value("string")}
    (tmp_path / "imdb" / "plain_text").mkdir(parents=True)
    for number, label in enumerate([datasets.ClassLabel(names=["pos", "neg"]), datasets.Value("int64")]):
        table = datasets.Dataset.from_dict(
            {"text": ["a", "b", "c"], "label": [1, 0, 0]}, features=datasets.Features({**text, "label": label})
        )
        name = ("train", "test")[number]
        table.to_parquet(tmp_path / "imdb" / "plain_text" / f"{name}-00000-of-00001.parquet")
        if name == "train":
            # Classes go by name: this data set numbers them the other way round.
            assert read_split("imdb", "train", str(tmp_path / "imdb")).labels.tolist() == [0, 1, 1]
            (tmp_path / "imdb" / "plain_text" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="has numbers without names"):
        read_split("imdb", "test", str(tmp_path / "imdb"))


def test_other_classes_on_the_hub(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict(
        {"sentence1": ["a"], "sentence2": ["b"], "label": [1], "idx": [0]},
        features=hub_features("rte", ["entailment", "contradiction"], sentence1=1, sentence2=1),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *call, split: table)
    with pytest.raises(UserError, match="row 1 has the unknown label 'contradiction', none of entailment, not_entail"):
        read_split("rte", "dev")


def test_squad_on_the_hub(tmp_path, monkeypatch):
    import datasets

    (tmp_path / "dev-v2.0.json").write_text(squad_file(POSSIBLE, IMPOSSIBLE))
    ours = read_split("squad2", "dev", str(tmp_path))
    rows = {
        "id": list(ours.ids),
        "question": list(ours.questions),
        "context": list(ours.contexts),
        "answers": [
            {"text": list(texts), "answer_start": list(starts)}
            for texts, starts in zip(ours.answers, ours.starts, strict=True)
        ],
    }
    calls = []

    def load_dataset(*call, split):
        calls.append((*call, split))
        return datasets.Dataset.from_dict(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_split("squad2", "dev").digest == ours.digest
    assert calls == [("rajpurkar/squad_v2", None, "validation")]
    with pytest.raises(UserError, match="question q3 has no answer, as in SQuAD 2.0"):
        read_split("squad", "dev")


def test_tensorflow_datasets_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r'pip install "jaxdistill\[tfds\]"'):
        read_split("sst2", "dev", "tfds")


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("squad")])
def test_tensorflow_datasets(name):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    with tfds.testing.mock_data(num_examples=5):
        examples = read_split(name, "train", "tfds")
    assert examples.task == find_task(name) and len(examples) == 5
    assert all(examples.first) and (examples.second is None) != examples.task.pair
    assert np.isin(examples.labels, range(len(examples.task.labels))).all() or name == "stsb"


def test_squad_of_tensorflow_datasets():
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    import tensorflow

    def as_dataset(self, *args, **kwargs):
        row = {"id": "q", "question": "Who?", "context": "The cat", "title": "t"}
        row["answers"] = {"text": ["cat"], "answer_start": [4]}
        return tensorflow.data.Dataset.from_tensors(row)

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        questions = read_split("squad", "dev", "tfds")
    assert (questions.ids, questions.questions, questions.contexts) == (("q",), ("Who?",), ("The cat",))
    assert (questions.answers, questions.starts) == ((("cat",),), ((4,),))
