import errno
import gzip
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

import jaxdistill
from jaxdistill import files
from jaxdistill.data import lexicon, parts, words
from jaxdistill.data.corpus import FILES, open_corpus, prepare
from jaxdistill.data.sources import find_source
from jaxdistill.errors import UserError

NASTY = [
    *"abcXYZ019",
    *"  \n\n\t\r",
    *".,;-_'\"[]$`~|@#",
    *"中文日本語ひらカナ한국",
    *"éÉßñçİıŒﬁ",
    *"e\u0301o\u0308\u0327",
    *"العربيةעִבְרִית",
    *"😀👩🏽\u200d🚀🇫🇷",
    *"\x00\x01\x02\x07\x0b\x0c\x1b\x1c\x1d\x1e\x1f\x7f\x85",
    *"\xa0\xad\u1680\u2003\u2028\u2029\u200b\u202e\u3000\ufeff\ufffd",
    *"—…“”«»¿！、。",
    *"\U00020000\U0002f800\U000e0020\ue000\u0378",
]


def oracle_words(line):
    """The Rust library over a whole line."""
    normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    found = BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(line))
    return [word if len(word) <= 100 else "" for word, _ in found]


def oracle(texts):
    """Documents as lists of words, and the number of lines with words, in the plainest way."""
    documents, lines = [[]], 0
    for text in texts:
        for line in text.split("\n"):
            found = oracle_words(line)
            lines += bool(found)
            if found:
                documents[-1] += found
            else:
                documents.append([])
        documents.append([])
    return [document for document in documents if document], lines


def documents_of(corpus):
    entries = np.array(corpus.lexicon.words, dtype=object)
    bounds = corpus.documents
    return [entries[corpus.words[a:b]].tolist() for a, b in itertools.pairwise(bounds)]


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def nasty_text(seed, length):
    draw = random.Random(seed)
    return "".join(draw.choices(NASTY, k=length))


def plain_text(seed, documents):
    draw = random.Random(seed)
    entries = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(1, 9))) for _ in range(3000)]
    paragraphs = [
        "\n".join(" ".join(draw.choices(entries, k=40)) + "." for _ in range(draw.randint(1, 4)))
        for _ in range(documents)
    ]
    return "\n\n".join(paragraphs) + "\n"


def write(path, text):
    path.write_bytes(text.encode())
    return str(path)


def chunks_of(path, size):
    return list(parts.split_chunks(parts.Reading([find_source(path)], [{}], "text"), size))


def check(corpus, texts):
    documents, lines = oracle(texts)
    assert documents_of(corpus) == documents
    flat = [word for document in documents for word in document]
    assert list(corpus.lexicon.words) == sorted({"", *flat}, key=str.encode)
    assert corpus.lexicon.counts.tolist() == [flat.count(word) for word in corpus.lexicon.words]
    assert corpus.manifest["counts"] == {
        "words": len(flat),
        "documents": len(documents),
        "types": len(set(flat) | {""}),
        "lines": lines,
    }


def test_a_small_text(tmp_path):
    text = "Hello, [MASK] World's naïve\n second line\n\n\n \t\n中文 new_document\n\n"
    path = write(tmp_path / "a.txt", text)
    manifest = prepare([path], tmp_path / "out", workers=1)
    corpus = open_corpus(tmp_path / "out")
    assert documents_of(corpus) == [
        ["Hello", ",", "[", "MASK", "]", "World", "'", "s", "naïve", "second", "line"],
        ["中", "文", "new", "_", "document"],
    ]
    assert corpus.manifest == manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["sources"] == [{"name": "a.txt", "bytes": len(text.encode()), "sha256": files.sha256(path)}]
    assert manifest["counts"] == {"words": 16, "documents": 2, "types": 17, "lines": 3}
    assert corpus.words.dtype == np.dtype("<u4") and corpus.documents.dtype == np.int64
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == sorted([*FILES, "manifest.json"])


@pytest.mark.parametrize("seed", range(6))
def test_odd_scripts_as_the_rust_library_reads_whole_lines(tmp_path, seed):
    texts = [nasty_text(seed, 2500), nasty_text(seed + 100, 300)]
    paths = [write(tmp_path / f"{number}.txt", text) for number, text in enumerate(texts)]
    prepare(paths, tmp_path / "out", workers=1, chunk_bytes=(64, 1000, 1 << 22)[seed % 3])
    check(open_corpus(tmp_path / "out"), texts)


def test_every_code_point_as_the_rust_library_reads_it():
    points = [*range(0xD800), *range(0xE000, 0x32400), *range(0x32400, 0x110000, 97), *range(0xE0000, 0xE0200)]
    lines = []
    for start in range(0, len(points), 256):
        characters = map(chr, points[start : start + 256])
        lines.append(" ".join(f"a{c}b {c}" for c in characters if c != "\n"))
    expected = [word for line in lines for word in oracle_words(line)]
    encoded = words.encode(["\n".join(lines).encode()])
    assert [encoded.words[i] for i in encoded.ids] == expected


@pytest.mark.parametrize("seed", range(40))
def test_pieces_never_part_a_word(seed):
    draw = random.Random(seed)
    alphabet = draw.sample(NASTY, k=draw.randint(2, 12)) if seed % 2 else NASTY
    text = "".join(
        "".join(draw.choices(alphabet, k=60)) + "x" * draw.choice([0, 0, 3, 95, 101, 300]) for _ in range(12)
    )
    data = text.encode()
    blocks, start = [], 0
    while start < len(data):
        step = draw.choice([1, 2, 7, 50, 400])
        blocks.append(data[start : start + step])
        start += step
    pieces = list(words.split_pieces(blocks, draw.choice([8, 30, 200, 1000])))
    encoded = words.encode(pieces)
    assert [encoded.words[i] for i in encoded.ids] == [word for line in text.split("\n") for word in oracle_words(line)]


def test_a_giant_word_is_the_over_long_entry_in_little_memory(tmp_path):
    text = "before " + "x" * 100_000 + "\u0301" * 5_000 + " 'after'\n\n" + "ab,c" * 20_000 + "\n" + "字" * 20_000
    assert max(len(piece) for piece in words.split_pieces([text.encode()], 4096)) < 3 * 4096
    prepare([write(tmp_path / "giant.txt", text)], tmp_path / "out", workers=1, chunk_bytes=4096)
    corpus = open_corpus(tmp_path / "out")
    first, second = documents_of(corpus)
    assert first == ["before", "", "'", "after", "'"]
    assert second == ["ab", ",", *["cab", ","] * 19_999, "c", *"字" * 20_000]
    assert corpus.lexicon.counts[0] == 1


def test_words_of_100_and_101_characters(tmp_path):
    text = "é" * 100 + " " + "é" * 101 + " " + "\u200b".join("x" * 101) + " " + "y" * 101
    prepare([write(tmp_path / "a.txt", text)], tmp_path / "out", workers=1)
    assert documents_of(open_corpus(tmp_path / "out")) == [["é" * 100, "", "", ""]]


def test_same_bytes_whatever_the_workers_and_the_chunks(tmp_path, monkeypatch):
    texts = [plain_text(1, 300), nasty_text(2, 3000), plain_text(3, 100)]
    paths = [write(tmp_path / f"{number}.txt", text) for number, text in enumerate(texts)]
    prepare(paths, tmp_path / "whole", workers=1)
    prepare(paths, tmp_path / "three", workers=3, chunk_bytes=20_000)
    monkeypatch.setattr(lexicon, "FAN", 3)
    monkeypatch.setattr(lexicon, "BLOCK", 500)
    manifest = prepare(paths, tmp_path / "many", workers=1, chunk_bytes=3_000)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "three") == bytes_of(tmp_path / "many")
    assert manifest == open_corpus(tmp_path / "whole").manifest == open_corpus(tmp_path / "three").manifest


def test_the_manifest_does_not_depend_on_the_place(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        write(tmp_path / place / "a.txt", "some words\n\nand more")
    here = prepare([str(tmp_path / "here/a.txt")], tmp_path / "here/out", workers=1)
    assert here == prepare([str(tmp_path / "there/a.txt")], tmp_path / "there/out", workers=1)


SCRIPT = """
import sys
from jaxdistill.data.corpus import prepare

if __name__ == "__main__":
    prepare(sys.argv[3:], sys.argv[2], workers=2, chunk_bytes=int(sys.argv[1]))
"""


def start(tmp_path, *arguments, chunk_bytes=parts.CHUNK):
    """Runs `prepare` in a process of its own, with two workers."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = [str(pathlib.Path(jaxdistill.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen([sys.executable, str(script), str(chunk_bytes), *map(str, arguments)], env=environment)


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry), *children(int(entry))]
    return found


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds the workers in /proc")
def test_killed_and_run_again(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", plain_text(5, 2000))
    whole = prepare([path], tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    process = start(tmp_path, out, path, chunk_bytes=6000)
    while len(list(out.glob(".parts/*.npz"))) < 10:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    until = time.time() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.time() < until, "workers outlive their parent"
        time.sleep(0.05)
    finished = len(list(out.glob(".parts/*.npz")))
    assert finished >= 10 and not (out / "manifest.json").exists()
    with pytest.raises(UserError, match="unfinished"):
        open_corpus(out)

    written = []
    write_part = parts.write_part
    monkeypatch.setattr(parts, "write_part", lambda *arguments: (written.append(1), write_part(*arguments)))
    manifest = prepare([path], out, workers=1, chunk_bytes=6000)
    assert len(written) == len(chunks_of(path, 6000)) - finished
    assert manifest == whole and bytes_of(out) == bytes_of(tmp_path / "whole")
    assert not (out / ".parts").exists()


def test_finished_parts_are_kept_and_changed_text_is_not_mixed_in(tmp_path, monkeypatch):
    text = plain_text(6, 200)
    path = write(tmp_path / "a.txt", text)
    write_part = parts.write_part
    written = []

    def failing(*arguments):
        if len(written) == 8:
            raise KeyboardInterrupt
        written.append(1)
        write_part(*arguments)

    monkeypatch.setattr(parts, "write_part", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare([path], tmp_path / "out", workers=1, chunk_bytes=4000)

    changed = text[:2000] + "QQ" + text[2002:]
    write(tmp_path / "a.txt", changed)
    again = []
    monkeypatch.setattr(parts, "write_part", lambda *arguments: (again.append(1), write_part(*arguments)))
    prepare([path], tmp_path / "out", workers=1, chunk_bytes=4000)
    assert len(again) == len(chunks_of(path, 4000)) - 8 + 1
    documents, _ = oracle([changed])
    assert documents_of(open_corpus(tmp_path / "out")) == documents


def test_a_finished_corpus_is_not_made_again(tmp_path, capsys):
    path = write(tmp_path / "a.txt", "some words")
    first = prepare([path], tmp_path / "out", workers=1)
    before = (tmp_path / "out/words.bin").stat().st_mtime_ns
    assert prepare([path], tmp_path / "out", workers=1, chunk_bytes=100) == first
    assert "already holds the corpus of these inputs" in capsys.readouterr().err
    assert (tmp_path / "out/words.bin").stat().st_mtime_ns == before
    other = write(tmp_path / "b.txt", "other words")
    for inputs in ([other], [path, other]):
        with pytest.raises(UserError, match=r"already holds a corpus of other inputs: a\.txt"):
            prepare(inputs, tmp_path / "out", workers=1)
    write(tmp_path / "a.txt", "some Words")
    with pytest.raises(UserError, match="other inputs"):
        prepare([path], tmp_path / "out", workers=1)


@pytest.mark.parametrize("text", ["", "\n\n \t\n", "\u200b\x07\n\u3000"])
def test_a_text_without_words(tmp_path, text):
    path = write(tmp_path / "a.txt", text)
    with pytest.raises(UserError, match=r"no words in .*a\.txt"):
        prepare([path], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_bad_input_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good words " * 10 + b"\xff bad")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text: byte 0xff at byte 110"):
        prepare([str(path)], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no text given"):
        prepare([], tmp_path / "out")
    with pytest.raises(UserError, match="is a file: name a folder"):
        prepare([write(tmp_path / "b.txt", "words")], path)


def test_a_folder_of_other_files_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "some words")
    (tmp_path / "thesis").mkdir()
    write(tmp_path / "thesis/chapter.txt", "precious")
    with pytest.raises(UserError, match="thesis is not empty and holds no corpus: choose another --out"):
        prepare([path], tmp_path / "thesis", workers=1)
    assert [entry.name for entry in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    (tmp_path / "empty").mkdir()
    prepare([path], tmp_path / "empty", workers=1)


def test_a_full_disk(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", plain_text(7, 60))
    write_part, written = parts.write_part, []

    def failing(*arguments):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        written.append(1)
        write_part(*arguments)

    monkeypatch.setattr(parts, "write_part", failing)
    with pytest.raises(UserError, match=r"No space left on device \(somewhere\): .* run the same command again"):
        prepare([path], tmp_path / "out", workers=1, chunk_bytes=4000)
    assert not (tmp_path / "out/manifest.json").exists()
    monkeypatch.undo()
    prepare([path], tmp_path / "out", workers=1, chunk_bytes=4000)
    prepare([path], tmp_path / "whole", workers=1)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.fixture
def made(tmp_path):
    prepare([write(tmp_path / "a.txt", "some words and some more\n\nanother one")], tmp_path / "out", workers=1)
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["words.bin", "documents.npy", "counts.npy", "lexicon.txt"])
def test_truncated_missing_or_altered_files(made, name):
    whole = (made / name).read_bytes()
    (made / name).write_bytes(whole[:-4])
    with pytest.raises(UserError, match=f"{name} has .* bytes instead of .* truncated"):
        open_corpus(made)
    (made / name).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(UserError, match=f"{name} was altered after"):
        open_corpus(made)
    (made / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_corpus(made)
    (made / name).write_bytes(whole)
    open_corpus(made)


def test_folders_that_are_no_corpus(tmp_path, made):
    with pytest.raises(UserError, match="there is no corpus at"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a corpus"):
        open_corpus(tmp_path)
    manifest = files.read_json(made / "manifest.json")
    for change, message in (
        ({"format": 99}, "format 99"),
        ({"digest": "0"}, "was altered"),
        ({"counts": {**manifest["counts"], "words": 3}}, "does not describe"),
        ({"files": None}, "not the manifest"),
    ):
        files.write_json(made / "manifest.json", manifest | change)
        with pytest.raises(UserError, match=message):
            open_corpus(made)


def test_merge_of_runs_with_unequal_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(lexicon, "FAN", 4)
    monkeypatch.setattr(lexicon, "BLOCK", 40)
    draw = random.Random(0)
    runs, total = [], {}
    for number in range(37):
        entries = sorted(
            {"".join(draw.choices("aé字😀\U0010ffff", k=draw.randint(1, 4))) for _ in range(draw.randint(0, 60))}
        )
        counts = np.array([draw.randint(1, 2**40) for _ in entries], np.int64)
        runs.append(tmp_path / f"run{number}")
        lexicon.write_run(runs[-1], entries, counts)
        for word, count in zip(entries, counts.tolist(), strict=True):
            total[word] = total.get(word, 0) + count
    chains = lexicon.merge_runs(runs, tmp_path / "merged")
    merged = (tmp_path / "merged.words").read_text().split("\n")[:-1]
    assert merged == sorted(total, key=str.encode)
    assert np.fromfile(tmp_path / "merged.counts", "<i8").tolist() == [total[word] for word in merged]
    for run, chain in zip(runs, chains, strict=True):
        entries = run.with_name(f"{run.name}.words").read_text().split("\n")[:-1]
        assert [merged[rank] for rank in lexicon.follow(chain)] == entries


def peak_memory(process):
    """The highest sum of resident sizes over a process and its children until it ends, in bytes."""
    peak = 0
    while process.poll() is None:
        total = 0
        for pid in (process.pid, *children(process.pid)):
            try:
                with open(f"/proc/{pid}/statm") as file:
                    total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue
        peak = max(peak, total)
        time.sleep(0.02)
    assert process.returncode == 0
    return peak


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    draw = np.random.default_rng(0)
    peaks = []
    for megabytes in (50, 200):
        path = tmp_path / f"{megabytes}.txt.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(megabytes):
                ranks = np.minimum(draw.zipf(1.3, 150_000), 10**7)
                file.write("\n\n".join(" ".join(f"w{n:x}" for n in line) for line in np.split(ranks, 500)).encode())
        peaks.append(peak_memory(start(tmp_path, tmp_path / f"out{megabytes}", path)))
    assert peaks[1] < 1.3 * peaks[0], peaks


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["x", "some words ", "字"], ids=["word", "line", "chinese"])
def test_a_line_of_50_megabytes_takes_no_more_memory(tmp_path, unit):
    peaks = []
    for megabytes in (10, 50):
        path = write(tmp_path / f"{megabytes}.txt", unit * (megabytes * 2**20 // len(unit.encode())) + " end")
        peaks.append(peak_memory(start(tmp_path, tmp_path / f"out{megabytes}", path)))
    assert peaks[1] < 1.3 * peaks[0], peaks
