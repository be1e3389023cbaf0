import gzip

import numpy as np
import pytest
from toy_tasks import GLUE_FILES, label_names, write_glue

from jaxdistill.errors import UserError
from jaxdistill.tasks.read import TASKS, find_task, read_split, splits_of


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
    assert unlabelled.labels is None and unlabelled.ids == ("0", "1") and unlabelled.first[0] == "a"
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
    with pytest.raises(UserError, match=r"dev_mismatched_100.tsv, dev_mismatched_200.tsv: leave only one"):
        read_split("mnli", "dev_mismatched", str(tmp_path))
    with pytest.raises(UserError, match=r"mnli has no split 'validation': .* dev_mismatched, test, test_mismatched"):
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
    with pytest.raises(UserError, match=r"dev.tsv, line 4 has 4 fields where 6 are expected"):
        read_split("qqp", "dev", str(tmp_path))
    write_glue(tmp_path, "qqp", "train", text + broken)
    with pytest.raises(UserError, match=r"train.tsv, line 7 has 3 fields"):
        read_split("qqp", "train", str(tmp_path))


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"does not exist: as --source, name a folder of sst2's files"):
        read_split("sst2", "dev", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"has no dev.tsv or dev.tsv.gz or dev_\*.tsv, only nothing"):
        read_split("sst2", "dev", str(tmp_path))
    path = write_glue(tmp_path, "sst2", "dev", GLUE_FILES["sst2"][1])
    with pytest.raises(
        UserError, match=r"dev.tsv is a file: name the folder of sst2's files, or the one that holds SST-2/"
    ):
        read_split("sst2", "dev", str(path))


def test_names_of_nothing():
    for call in (find_task, lambda name: read_split(name, "train")):
        with pytest.raises(UserError, match=r"sst3 is no task, and no file in .*: the tasks are cola, .*squad2"):
            call("sst3")
    assert splits_of("imdb") == ("train", "test") and splits_of("squad") == ("train", "dev")
    with pytest.raises(UserError, match=r"imdb has no split 'dev': its splits are train, test"):
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
    with pytest.raises(UserError, match=r"pos holds no reviews"):
        read_split("imdb", "test", str(tmp_path))


def test_imdb_in_tables(tmp_path):
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(b'sentence\tlabel\na "b\t0\nc\t1\n'))
    (tmp_path / "test.csv").write_text("sentence,label\nd,positive\ne,neg\n")
    assert read_split("imdb", "train", str(tmp_path)).labels.tolist() == [0, 1]
    assert read_split("imdb", "test", str(tmp_path)).labels.tolist() == [1, 0]
    (tmp_path / "test.csv").unlink()
    with pytest.raises(UserError, match=r"has no test.tsv or .*, only train.tsv.gz"):
        read_split("imdb", "test", str(tmp_path))
    with pytest.raises(UserError, match=r"is a file: name the folder that holds IMDb's train and test"):
        read_split("imdb", "train", str(tmp_path / "train.tsv.gz"))
