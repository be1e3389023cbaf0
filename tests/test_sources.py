import gzip
import itertools
import json
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxdistill.data.corpus import open_corpus, prepare
from jaxdistill.data.sources import describe, find_source, read
from jaxdistill.errors import UserError


def text_of(spec, field="text"):
    return b"".join(block for block, _ in read(find_source(str(spec)), field)).decode()


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def documents_of(folder):
    corpus = open_corpus(folder)
    bounds = corpus.documents
    return [[corpus.lexicon.words[i] for i in corpus.words[a:b]] for a, b in itertools.pairwise(bounds)]


def test_plain_and_packed_text_are_the_same(tmp_path):
    text = "héllo\nworld\n\n" * 50_000 + "no newline at the end"
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_text(text, newline="")
    with gzip.open(packed, "wb") as file:
        file.write(text.encode())
    assert text_of(plain) == text_of(packed) == text
    *_, (_, position) = read(find_source(str(packed)), "text")
    assert position == packed.stat().st_size
    assert describe(find_source(str(plain))).keys() == {"name", "bytes", "sha256"}


def test_a_row_is_a_document(tmp_path):
    rows = [{"text": "One\n\ntwo"}, {"text": ""}, {"text": "\ud83dthree \ud83d\ude00"}, {"text": "four", "more": 1}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    path.write_text(path.read_text().replace('{"text": ""}\n', '{"text": ""}\n\n'))
    prepare([str(path)], tmp_path / "out", workers=1)
    assert documents_of(tmp_path / "out") == [["One", "two"], ["three", "😀"], ["four"]]


def test_another_field(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"body": "words"}])
    assert text_of(path, "body") == "words\n\n"
    assert prepare([str(path)], tmp_path / "out", workers=1, field="body")["settings"]["field"] == "body"


def test_packed_rows(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"text": "packed"}\n')
    assert text_of(tmp_path / "a.jsonl.gz") == "packed\n\n"


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"txt": "b"}', r"line 2 has no field 'text', only 'txt': choose with --field"),
        ('{"text": null}', r"line 2: field 'text' is NoneType, not text"),
        ('["text"]', r"line 2 is not a JSON object"),
        ('{"text": ', r"line 2 is not JSON"),
    ],
)
def test_bad_rows(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, " + message):
        prepare([str(path)], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_a_row_that_is_not_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 is not UTF-8 text: byte 0xe9 at byte 24"):
        text_of(tmp_path / "a.jsonl")


def test_parquet_by_row_groups(tmp_path):
    texts = [f"Row {number}\nof  café" for number in range(1000)]
    pq.write_table(pa.table({"n": range(1000), "text": texts}), tmp_path / "a.parquet", row_group_size=64)
    assert text_of(tmp_path / "a.parquet") == "".join(text.replace("\n", " ") + "\n\n" for text in texts)
    *_, (_, position) = read(find_source(str(tmp_path / "a.parquet")), "text")
    assert position == (tmp_path / "a.parquet").stat().st_size
    with pytest.raises(UserError, match=r"no column 'body', only 'n', 'text'"):
        text_of(tmp_path / "a.parquet", "body")


def test_bad_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"a\.parquet is not a readable parquet file"):
        text_of(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet, row 2: field 'text' is NoneType"):
        text_of(tmp_path / "b.parquet")


@pytest.mark.parametrize("before", [0, 10, 2**20 - 1, 2**20 + 5])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xe2\x82"])
def test_the_place_of_a_bad_byte(tmp_path, before, bad):
    (tmp_path / "a.txt").write_bytes(b"x" * before + bad)
    with pytest.raises(UserError, match=rf"a\.txt is not UTF-8 text: byte 0x{bad[0]:02x} at byte {before};"):
        text_of(tmp_path / "a.txt")


def test_binary_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("plain words in UTF-16".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text: binary data \(a NUL byte\) at byte 1"):
        text_of(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_bytes(gzip.compress(b"packed, but not named .gz"))
    with pytest.raises(UserError, match=r"b\.txt is not UTF-8 text"):
        text_of(tmp_path / "b.txt")


def test_a_damaged_gzip_file(tmp_path):
    draw = np.random.default_rng(0)
    packed = gzip.compress(bytes(draw.choice(list(b"abc \n"), 100_000).tolist()))
    for name, content in (
        ("cut.txt.gz", packed[:-20]),
        ("tail.txt.gz", packed[:-4]),
        ("plain.txt.gz", b"not gzip at all"),
        ("flip.txt.gz", packed[:5000] + bytes([packed[5000] ^ 255]) + packed[5001:]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is a damaged or incomplete gzip file"):
            prepare([str(tmp_path / name)], tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_sources(tmp_path):
    (tmp_path / "a.pdf").write_text("words")
    for spec, message in (
        (tmp_path / "none.txt", r"none\.txt does not exist"),
        (tmp_path, "is a folder: name its files"),
        (tmp_path / "a.pdf", r"a\.pdf has an unknown extension: text is read from \.txt, \.txt\.gz, \.jsonl"),
        ("hf:", "names no data set"),
        ("tfds::train", "names no data set"),
    ):
        with pytest.raises(UserError, match=message):
            find_source(str(spec))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the `datasets` library, which needs the network; its calls are kept."""
    calls = []

    def load_dataset(name, config=None, *, split, streaming):
        calls.append((name, config, split, streaming))
        if name == "nobody/nothing":
            raise FileNotFoundError("no such data set")
        return iter([{"text": "First row"}, {"text": "Second"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_huggingface_data_sets(tmp_path, hub):
    for spec, call in (
        ("hf:me/set", ("me/set", None, "train", True)),
        ("hf:me/set:en", ("me/set", "en", "train", True)),
        ("hf:me/set::test", ("me/set", None, "test", True)),
        ("hf:me/set:en:test[:5%]", ("me/set", "en", "test[:5%]", True)),
    ):
        assert text_of(spec) == "First row\n\nSecond\n\n"
        assert hub[-1] == call
    with pytest.raises(UserError, match="hf:nobody/nothing cannot be read: no such data set"):
        text_of("hf:nobody/nothing")

    manifest = prepare(["hf:me/set"], tmp_path / "out", workers=1)
    assert documents_of(tmp_path / "out") == [["First", "row"], ["Second"]]
    assert manifest["sources"][0]["name"] == "hf:me/set" and manifest["sources"][0]["bytes"] == 19
    read_before = len(hub)
    assert prepare(["hf:me/set"], tmp_path / "out", workers=1) == manifest
    assert len(hub) == read_before


def test_tensorflow_data_sets(monkeypatch):
    calls = []

    def load(name, *, split, shuffle_files):
        calls.append((name, split, shuffle_files))
        return [{"text": "Bytes, not café".encode()}, {"text": b"\xff" if split == "bad" else b"two"}]

    library = types.SimpleNamespace(load=load, as_numpy=iter)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    assert text_of("tfds:wiki40b/en") == "Bytes, not café\n\ntwo\n\n"
    assert text_of("tfds:wiki40b/en:test") == "Bytes, not café\n\ntwo\n\n"
    assert text_of("tfds:wiki40b/en:test[:5%]")
    assert [split for _, split, _ in calls] == ["train", "test", "test[:5%]"]
    assert calls[0] == ("wiki40b/en", "train", False)
    with pytest.raises(UserError, match="tfds:wiki40b/en:bad, row 2 is not UTF-8 text: byte 0xff at byte 0"):
        text_of("tfds:wiki40b/en:bad")


def test_a_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r'pip install "jaxdistill\[tfds\]"'):
        text_of("tfds:any")
