import csv
import io
import zipfile

import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.tasks.read import find_task
from jaxdistill.tasks.submission import PARTS, part_of, write_submission


def read_back(path):
    with zipfile.ZipFile(path) as archive:
        return {
            name: list(csv.reader(io.StringIO(archive.read(name).decode()), delimiter="\t"))
            for name in archive.namelist()
        }


def test_names_of_the_parts():
    splits = [(name, "test") for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli")]
    splits += [("mnli", "test_mismatched"), ("qnli", "test"), ("rte", "test"), ("wnli", "test")]
    splits += [("mnli", "test_diagnostic")]
    assert tuple(part_of(*split) for split in splits) == PARTS
    for name, split in (("mnli", "dev"), ("imdb", "test"), ("squad", "dev")):
        with pytest.raises(UserError, match=f"{name} {split} is no test set of GLUE's server"):
            part_of(name, split)


def test_what_the_server_reads(tmp_path):
    path = tmp_path / "glue.zip"
    classes = np.array([1, 0, 1])
    predictions = {
        part: (find_task(name), ("2", "0", "1"), classes)
        for part, name in zip(PARTS[:3], ("cola", "sst2", "mrpc"), strict=True)
    }
    predictions |= {
        "STS-B": (find_task("stsb"), ("0", "1", "2"), np.array([5.2, 1.23456, -0.5], np.float32)),
        "QQP": (find_task("qqp"), ("7",), np.array([1])),
        "MNLI-m": (find_task("mnli"), ("0", "1", "2"), np.array([0, 1, 2], np.int32)),
        "MNLI-mm": (find_task("mnli"), ("0",), np.array([2])),
        "QNLI": (find_task("qnli"), ("0", "1"), np.array([0, 1])),
        "RTE": (find_task("rte"), ("0", "1"), np.array([0, 1])),
        "WNLI": (find_task("wnli"), ("0", "1"), np.array([0, 1])),
        "AX": (find_task("mnli"), ("0",), np.array([1])),
    }
    write_submission(path, predictions)
    found = read_back(path)
    assert list(found) == [f"{part}.tsv" for part in PARTS]
    assert all(rows[0] == ["index", "prediction"] for rows in found.values())
    rows = {name.removesuffix(".tsv"): rows[1:] for name, rows in found.items()}
    assert rows["CoLA"] == rows["SST-2"] == rows["MRPC"] == [["2", "1"], ["0", "0"], ["1", "1"]]
    assert rows["STS-B"] == [["0", "5.000"], ["1", "1.235"], ["2", "0.000"]]
    assert rows["QQP"] == [["7", "1"]]
    assert rows["MNLI-m"] == [["0", "entailment"], ["1", "neutral"], ["2", "contradiction"]]
    assert rows["MNLI-mm"] == [["0", "contradiction"]] and rows["AX"] == [["0", "neutral"]]
    assert rows["QNLI"] == rows["RTE"] == [["0", "entailment"], ["1", "not_entailment"]]
    assert rows["WNLI"] == [["0", "0"], ["1", "1"]]

    first = path.read_bytes()
    write_submission(path, dict(reversed(predictions.items())))
    assert path.read_bytes() == first


def test_what_the_server_would_refuse(tmp_path):
    path, task = tmp_path / "glue.zip", find_task("rte")
    for part, ids, predicted, message in (
        ("RTE", ("0", "1"), np.array([1]), "RTE: 1 predictions of 2 different ids"),
        ("RTE", ("0", "0"), np.array([1, 0]), "RTE: 2 predictions of 1 different ids"),
        ("RTE", ("0",), np.array([2]), "RTE: a prediction is none of the classes 0 to 1"),
        ("rte", ("0",), np.array([1]), "GLUE's server knows no rte, only CoLA"),
    ):
        with pytest.raises(UserError, match=message):
            write_submission(path, {part: (task, ids, predicted)})
    with pytest.raises(UserError, match="STS-B: a prediction is not a finite number"):
        write_submission(path, {"STS-B": (find_task("stsb"), ("0",), np.array([np.nan]))})
    assert not list(tmp_path.iterdir())
