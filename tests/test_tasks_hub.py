import sys

import numpy as np
import pytest
from toy_tasks import GLUE_FILES, IMPOSSIBLE, POSSIBLE, squad_file, write_glue

from jaxdistill.errors import UserError
from jaxdistill.tasks.read import TASKS, find_task, read_split


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
    if name == "mnli":
        tables["test"] = tables["test_matched"]
        assert read_split(name, "test_diagnostic").first == files["test"].first and calls[-1] == ("nyu-mll/glue", "ax")
    with pytest.raises(UserError, match=r"train of nyu-mll/glue can't be read \(Unknown split\): name a folder"):
        read_split(name, "train")


def test_a_clone_of_a_hubs_data_set_and_its_classes_by_name(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(split, label):
        features = datasets.Features({"text": datasets.Value("string"), "label": label})
        table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 0]}, features=features)
        (tmp_path / split / "plain_text").mkdir(parents=True)
        table.to_parquet(tmp_path / split / "plain_text" / f"{split}-00000-of-00001.parquet")

    write("train", datasets.ClassLabel(names=["pos", "neg"]))
    assert read_split("imdb", "train", str(tmp_path / "train")).labels.tolist() == [0, 1, 1]
    write("test", datasets.Value("int64"))
    with pytest.raises(UserError, match=r"has numbers without names"):
        read_split("imdb", "test", str(tmp_path / "test"))


def test_other_classes_on_the_hub(monkeypatch):
    import datasets

    table = datasets.Dataset.from_dict(
        {"sentence1": ["a"], "sentence2": ["b"], "label": [1], "idx": [0]},
        features=hub_features("rte", ["entailment", "contradiction"], sentence1=1, sentence2=1),
    )
    calls = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *call, split: calls.append(call) or table)
    for source in ("", "hf:someone/glue"):
        with pytest.raises(UserError, match=r"unknown label 'contradiction', none of entailment, not_entail"):
            read_split("rte", "dev", source)
    assert calls == [("nyu-mll/glue", "rte"), ("someone/glue", "rte")]


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
    with pytest.raises(UserError, match=r"question q3 has no answer, as in SQuAD 2.0"):
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
