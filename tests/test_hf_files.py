"""Model folders as files: shards, pickles, torn files, and the hub replaced at its boundary."""

import json
import shutil

import huggingface_hub
import pytest
from hf_folders import OURS, WEIGHTS, WORDS, change_config, same, shard, torch_model

from jaxdistill import hf
from jaxdistill.data.vocab import write_tokenizer
from jaxdistill.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A masked LM as `transformers` saves it, to change."""
    torch_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_shards_are_read(folder):
    expected = hf.read_hf(folder).params
    shard(folder)
    same(hf.read_hf(folder).params, expected)


def test_shards_as_transformers_cuts_them_are_read(tmp_path):
    model = torch_model()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "cut", max_shard_size="12KB")
    assert len(list((tmp_path / "cut").glob("model-*"))) > 2
    same(hf.read_hf(tmp_path / "cut").params, hf.read_hf(tmp_path / "one").params)


@pytest.mark.parametrize("how", ["parent", "absolute", "link", "missing", "disagree"])
def test_an_index_that_leads_astray_is_refused(folder, tmp_path, how):
    index = shard(folder)
    name = "cls.predictions.bias"
    file = index["weight_map"][name]
    shutil.copy(folder / file, tmp_path / "outside.safetensors")
    message = "lies outside the folder"
    if how == "parent":
        index["weight_map"][name] = "../outside.safetensors"
    elif how == "absolute":
        index["weight_map"][name] = str(tmp_path / "outside.safetensors")
    elif how == "link":
        (folder / file).unlink()
        (folder / file).symlink_to(tmp_path / "outside.safetensors")
    elif how == "missing":
        (folder / file).unlink()
        message = f"names {file}, which is missing"
    else:
        del index["weight_map"][name]
        message = f"disagree on {name}"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        hf.read_hf(folder)


def test_a_pickle_is_refused_with_the_way_out(folder):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickle \(pytorch_model.bin\).*AutoModelForMaskedLM.*save_pretrained"):
        hf.read_hf(folder)
    for named, auto in (("BertForQuestionAnswering", "QuestionAnswering"), (5, "MaskedLM"), ([], "MaskedLM")):
        change_config(folder, architectures=[named] if isinstance(named, str) else named)
        with pytest.raises(UserError, match=f"AutoModelFor{auto}.*AutoModelFor{auto}"):
            hf.read_hf(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        hf.read_hf(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", "torn"])
def test_a_torn_file_is_refused(folder, content):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100] if content == "torn" else content)
    with pytest.raises(UserError, match="can't be read as safetensors"):
        hf.read_hf(folder)


def test_places_that_hold_no_model_are_refused(tmp_path, folder):
    for source, message in [
        (tmp_path / "nowhere", "does not exist"),
        ("./nowhere", "does not exist"),
        ("a/b/c", "does not exist"),
        (folder / WEIGHTS, "is a file: give the folder"),
        (tmp_path, "has no config.json: it is no model folder"),
    ]:
        with pytest.raises(UserError, match=message):
            hf.read_hf(source)
    with pytest.raises(UserError, match="a folder, which has no revision 'main'"):
        hf.read_hf(folder, revision="main")
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        hf.read_config(folder)


def hub(monkeypatch, tmp_path, folder, asked):
    """Replaces the download by a snapshot of `folder` laid out as the hub's cache lays it out, in links to blobs."""

    def snapshot_download(repo_id, *, revision=None, allow_patterns=None, **options):
        assert not options
        asked.append((repo_id, revision, allow_patterns))
        root = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}"
        snapshot = root / "snapshots" / COMMIT
        shutil.rmtree(root, ignore_errors=True)
        (root / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        names = huggingface_hub.utils.filter_repo_objects(
            sorted(path.name for path in folder.iterdir()), allow_patterns=allow_patterns
        )
        for number, name in enumerate(names):
            shutil.copy(folder / name, root / "blobs" / str(number))
            (snapshot / name).symlink_to(f"../../blobs/{number}")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_hub_model_is_pinned_to_its_commit(folder, tmp_path, monkeypatch, sharded):
    expected = hf.read_hf(folder).params
    write_tokenizer(WORDS, folder, 20)
    if sharded:
        shard(folder)
    for name in ("pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling.py", "model.fp16.safetensors"):
        (folder / name).write_text("never fetched")
    asked = []
    hub(monkeypatch, tmp_path, folder, asked)
    found = hf.read_hf("someone/model", revision="v1")
    assert found.revision == COMMIT and found.source == "someone/model" and found.vocabulary == WORDS
    same(found.params, expected)
    assert asked[0][:2] == ("someone/model", "v1")
    fetched = {path.name for path in (tmp_path / "cache/models--someone--model/snapshots" / COMMIT).iterdir()}
    assert "config.json" in fetched
    assert not [
        name for name in fetched if not name.endswith((".json", "vocab.txt", "model.safetensors")) and not sharded
    ]
    assert not fetched & {"pytorch_model.bin", "tf_model.h5", "model.onnx", "modeling.py", "model.fp16.safetensors"}
    assert hf.read_config("someone/model") == OURS
    assert asked[1] == ("someone/model", None, ["config.json"])


def test_a_pickle_on_the_hub_is_refused(folder, tmp_path, monkeypatch):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    hub(monkeypatch, tmp_path, folder, [])
    with pytest.raises(UserError, match=r"someone/model has no model.safetensors; .*pickle.*save_pretrained"):
        hf.read_hf("someone/model")


@pytest.mark.parametrize(
    "error",
    [
        huggingface_hub.errors.LocalEntryNotFoundError("cannot find it in the cache\nmore"),
        huggingface_hub.errors.HFValidationError("not a repo id"),
        ConnectionError("no route to host"),
        RuntimeError("the transport's own"),
    ],
)
def test_a_hub_out_of_reach_says_what_was_asked(monkeypatch, error):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError) as caught:
        hf.read_hf("someone/model", revision="v1")
    message = str(caught.value)
    assert "someone/model at revision 'v1'" in message and str(error).splitlines()[0] in message
    assert "more" not in message.split("cache")[-1]


def test_offline_without_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="the Hugging Face hub could not give nobody/nothing"):
        hf.read_config("nobody/nothing")


def test_a_hub_tokenizer_is_fetched_without_weights(monkeypatch, tmp_path):
    import huggingface_hub

    from jaxdistill.hf import find_tokenizer

    asked = {}

    def fake(source, revision, allow_patterns):
        asked.update(source=source, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    assert find_tokenizer("google-bert/bert-base-uncased", revision="main") == str(tmp_path)
    assert asked["source"] == "google-bert/bert-base-uncased" and asked["revision"] == "main"
    assert not any("safetensors" in pattern for pattern in asked["patterns"])
    assert find_tokenizer(tmp_path) == str(tmp_path)
