import contextlib
import gzip
import io
import json
import pathlib
import re
import shlex

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

beam = pytest.importorskip("apache_beam", reason="needs the extra `beam`")

from apache_beam.io.filesystem import FileMetadata, FileSystem  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from test_corpus import bytes_of, nasty_text, plain_text, write  # noqa: E402

from jaxdistill import cli  # noqa: E402
from jaxdistill.data import beam as ours  # noqa: E402
from jaxdistill.data import beam_files, corpus, parts  # noqa: E402
from jaxdistill.errors import UserError  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    """Many chunks and many ranges of the lexicon from little text."""
    monkeypatch.setattr(parts, "CHUNK", 3000)
    monkeypatch.setattr(ours, "SAMPLE", 4)
    monkeypatch.setattr(ours, "RANGE", 50)


def every_kind(folder):
    rows = [{"body": plain_text(seed, 6)} for seed in range(10, 16)]
    (folder / "b.txt.gz").write_bytes(gzip.compress(nasty_text(2, 3000).encode()))
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "e.parquet")
    return [
        write(folder / "c.txt", plain_text(1, 100).rstrip()),
        str(folder / "b.txt.gz"),
        write(folder / "empty.txt", "\n \u200b\n"),
        str(folder / "d.jsonl"),
        str(folder / "e.parquet"),
        write(folder / "c2.txt", "the same\n\n" * 3),
        write(folder / "a.txt", nasty_text(4, 2000)),
    ]


def same_files(one, other):
    assert bytes_of(one) == bytes_of(other)
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()
    assert {path.name for path in other.iterdir()} == {*corpus.FILES, "manifest.json"}


def test_the_bytes_of_the_local_prepare(tmp_path, small, monkeypatch):
    paths = every_kind(tmp_path)
    monkeypatch.chdir(tmp_path)
    written, write_new = [], beam_files.write_new
    monkeypatch.setattr(beam_files, "write_new", lambda path, blocks: written.append(path) or write_new(path, blocks))
    made = ours.prepare([pathlib.Path(path).name for path in paths], "beam", field="body")
    assert made == corpus.prepare(paths, tmp_path / "local", workers=1, field="body")
    names = [path.rpartition("/")[2] for path in written]
    assert names.count("part") > 20 and names.count("counts") > 5, "it was one chunk, or one range"
    same_files(tmp_path / "local", tmp_path / "beam")


@pytest.mark.parametrize(
    "text", ["a\n\nb\n c\n\n\n\nd e\nf" + "\n g h" * 30, "\n\n\na\n\n\n", "ab " * 9 + "\n\n" + "x" * 300]
)
def test_seams_between_chunks(tmp_path, monkeypatch, text):
    paths = [write(tmp_path / "a.txt", text), write(tmp_path / "b.txt", text)]
    monkeypatch.setattr(parts, "CHUNK", 5)
    ours.prepare(paths, tmp_path / "beam")
    corpus.prepare(paths, tmp_path / "local", workers=1)
    same_files(tmp_path / "local", tmp_path / "beam")


class _Upload(io.BytesIO):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def close(self):
        Store.objects[self.name] = self.getvalue()
        super().close()


class Store(FileSystem):
    """Objects by name in memory, as in a bucket: whole when closed, no folders."""

    objects: dict[str, bytes] = {}  # noqa: RUF012

    @classmethod
    def scheme(cls):
        return "fake"

    def join(self, base, *paths):
        return "/".join([base, *paths])

    def split(self, path):
        return path.rpartition("/")[::2]

    def mkdirs(self, path):
        raise AssertionError("a bucket has no folders")

    def has_dirs(self):
        return False

    def _list(self, prefix):
        return [self.metadata(name) for name in list(self.objects) if name.startswith(prefix)]

    def create(self, path, mime_type="", compression_type=""):
        return _Upload(path)

    def open(self, path, mime_type="", compression_type=""):
        return io.BytesIO(self.objects[path])

    def copy(self, sources, targets):
        raise AssertionError("nothing is copied")

    def rename(self, sources, targets):
        for source, target in zip(sources, targets, strict=True):
            assert target not in self.objects
            self.objects[target] = self.objects.pop(source)

    def exists(self, path):
        return path in self.objects

    def size(self, path):
        return len(self.objects[path])

    def last_updated(self, path):
        return 0.0

    def checksum(self, path):
        return ""

    def metadata(self, path):
        return FileMetadata(path, len(self.objects[path]), 0.0)

    def delete(self, paths):
        for path in paths:
            for name in [
                name for name in self.objects if name == path or (path.endswith("/") and name.startswith(path))
            ]:
                del self.objects[name]


@pytest.fixture
def store():
    Store.objects.clear()
    yield Store.objects
    Store.objects.clear()


def test_from_a_bucket_to_a_bucket(tmp_path, small, store, capsys):
    paths = every_kind(tmp_path)
    for path in paths:
        store[f"fake://b/text/{pathlib.Path(path).name}"] = pathlib.Path(path).read_bytes()
    store["fake://b/out/.parts/beam/part-left"] = b"of a run that was killed"
    store["fake://b/out/words.bin"] = b"of a run that was killed while it gave names"
    made = ours.prepare(["fake://b/text/*.txt", "fake://b/text/d.jsonl"], "fake://b/out/", field="body")
    ordered = [path for path in sorted(paths) if path.endswith(".txt")]
    assert made == corpus.prepare([*ordered, str(tmp_path / "d.jsonl")], tmp_path / "local", workers=1, field="body")
    left = {name.removeprefix("fake://b/out/"): store[name] for name in store if "/out/" in name}
    assert left == {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}

    assert made == ours.prepare(["fake://b/text/*.txt", "fake://b/text/d.jsonl"], "fake://b/out", field="body")
    assert "nothing to do" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"fake://b/out already holds a corpus of other inputs: a\.txt"):
        ours.prepare(["fake://b/text/a.txt"], "fake://b/out")
    with pytest.raises(UserError, match="fake://b/text is not empty and holds no corpus"):
        ours.prepare(["fake://b/text/a.txt"], "fake://b/text")
    with pytest.raises(UserError, match=r"fake://b/none\.txt does not exist"):
        ours.prepare(["fake://b/none.txt"], "fake://b/new")


def test_a_finished_corpus_is_the_local_ones_too(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "some words")
    made = ours.prepare([path], tmp_path / "out")
    assert corpus.prepare([path], tmp_path / "out", workers=1) == ours.prepare([path], tmp_path / "out") == made
    assert capsys.readouterr().err.count("nothing to do") == 2
    write(tmp_path / "a.txt", "some Words")
    with pytest.raises(UserError, match="already holds a corpus of other inputs"):
        ours.prepare([path], tmp_path / "out")


def test_bad_text_is_one_line_and_leaves_nothing(tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"good words " * 10 + b"\xff bad")
    good = write(tmp_path / "good.txt", "words")
    with pytest.raises(UserError) as caught:
        ours.prepare([good, bad], tmp_path / "out")
    assert str(caught.value) == (
        f"{bad} is not UTF-8 text: byte 0xff at byte 110; convert it to UTF-8, or leave the file out"
    )
    with pytest.raises(UserError, match=r"no words in .*empty\.txt"):
        ours.prepare([write(tmp_path / "empty.txt", "\n \n")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_of_the_pipeline_leaves_nothing_but_parts_of_the_local_prepare(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", plain_text(7, 60))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    write_part = parts.write_part
    monkeypatch.setattr(
        parts, "write_part", lambda to, pieces: full() if "000003" in to.name else write_part(to, pieces)
    )
    with pytest.raises(UserError, match="No space left"):
        corpus.prepare([path], tmp_path / "out", workers=1, chunk_bytes=4000)
    monkeypatch.setattr(ours, "_join", full)
    with pytest.raises(Exception, match="No space left"):
        ours.prepare([path], tmp_path / "out")
    assert len(list((tmp_path / "out/.parts").glob("*.npz"))) == 3
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {".parts"}
    with pytest.raises(Exception, match="No space left"):
        ours.prepare([path], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_stopped_while_files_get_their_names(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", plain_text(8, 30))
    rename = beam_files.FileSystems.rename

    def stopped(sources, targets):
        if targets[0].endswith("lexicon.txt"):
            raise KeyboardInterrupt
        rename(sources, targets)

    monkeypatch.setattr(beam_files.FileSystems, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        ours.prepare([path], tmp_path / "beam")
    with pytest.raises(UserError, match="an unfinished corpus: run the same `prepare` again"):
        corpus.open_corpus(tmp_path / "beam")
    monkeypatch.undo()
    ours.prepare([path], tmp_path / "beam")
    corpus.prepare([path], tmp_path / "local", workers=1)
    same_files(tmp_path / "local", tmp_path / "beam")


def test_another_version_on_a_worker_is_refused(tmp_path, monkeypatch):
    found = iter([{"tokenizers": "1"}, {"tokenizers": "2"}])
    monkeypatch.setattr(ours, "_versions", lambda: next(found))
    with pytest.raises(UserError, match="a worker has tokenizers 2, this machine tokenizers 1"):
        ours.prepare([write(tmp_path / "a.txt", "words")], tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hf:wikitext"], "a data set of a hub is one stream"),
        (["a.txt", "--runner", "beam:NoRunner"], "Beam refuses to run on NoRunner"),
        (["a.txt", "--direct_num_worker", "2"], "knows the option --direct_num_worker"),
        (["a.txt", "--direct_num_workers=2", "b.txt"], "'b.txt' is neither a file nor an option"),
        (["a.txt", "--workers", "2"], "by Beam's options"),
        (["missing.txt"], "missing.txt does not exist"),
        (["nowhere://b/a.txt"], "cannot be listed"),
        (["a.txt", "--out", "nowhere://b/out"], "cannot be listed"),
        (["a.txt", "--out", "a.txt"], "is a file: name a folder"),
        (["a.txt", "--runner", "spark"], "--runner spark: give local, beam"),
    ],
)
def test_bad_command_lines(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", "words")
    assert cli.main(["prepare", "--out", "out", "--runner", "beam", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("jaxdistill: ") and message in said[-1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "some words and some more")
    command = ["prepare", path, "--out", str(tmp_path / "out"), "--runner", "beam:FnApiRunner", "--job_name", "words"]
    assert cli.main(command) == 0
    assert "5 words of 5 kinds in 1 documents" in capsys.readouterr().out
    with contextlib.suppress(SystemExit):
        cli.main(["prepare", path, "--out", str(tmp_path / "other"), "--job_name", "words"])
    assert "unrecognized arguments: --job_name words" in capsys.readouterr().err


def shown():
    page = pathlib.Path(__file__).parent.parent / "docs" / "corpora.md"
    block = re.search(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    return [shlex.split(line) for line in block.splitlines()]


@pytest.mark.parametrize("line", shown(), ids=" ".join)
def test_commands_that_are_shown(line):
    program, *arguments = line
    options = cli._parse(arguments)
    assert program == "jaxdistill" and options.runner.startswith("beam") and "FILE" not in options.rest
    asked = PipelineOptions(options.rest)
    assert asked.get_all_options() == asked.get_all_options(retain_unknown_options=True)


@pytest.mark.slow
def test_worker_processes(tmp_path):
    paths = [write(tmp_path / f"{seed}.txt", plain_text(seed, 40)) for seed in range(4)]
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    ours.prepare(paths, tmp_path / "beam", options=options)
    corpus.prepare(paths, tmp_path / "local", workers=1)
    same_files(tmp_path / "local", tmp_path / "beam")
    assert np.fromfile(tmp_path / "beam/words.bin", "<u4").size == corpus.open_corpus(tmp_path / "beam").words.size
