"""A corpus: the words of a text as memory-mapped ids, its documents, and its lexicon.

On disk, in one folder:
  words.bin       little-endian uint32 [words], each an entry of the lexicon.
  documents.npy   int64 [documents + 1], where each document starts in words.bin, and the end.
  lexicon.txt     UTF-8, one word a line, sorted by bytes; the first is empty: all words over 100 characters.
  counts.npy      int64 [types], how often each entry stands in the corpus.
  manifest.json   what it was made of, the counts, the SHA-256 of every file; written last: it says that all is there.
"""

import hashlib
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from tqdm import tqdm

from jaxdistill import __version__, files
from jaxdistill.data import lexicon, parts, words
from jaxdistill.data.lexicon import Lexicon
from jaxdistill.data.sources import Source, describe, find_source
from jaxdistill.errors import UserError
from jaxdistill.places import local

FORMAT = 1
MANIFEST = "manifest.json"
WORDS = "words.bin"
DOCUMENTS = "documents.npy"
FILES = (WORDS, DOCUMENTS, lexicon.WORDS, lexicon.COUNTS)
PARTS = ".parts"


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, opened.

    Attributes:
      folder: where it is.
      words: uint32 [n], memory-mapped; entries of the lexicon.
      documents: int64 [d + 1], memory-mapped; document i is words[documents[i] : documents[i + 1]], never empty.
      lexicon: the distinct words and their counts.
      manifest: what it was made of.
    """

    folder: pathlib.Path
    words: np.ndarray
    documents: np.ndarray
    lexicon: Lexicon
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the hashes of the corpus's files: equal for equal words, documents and counts."""
        return self.manifest["digest"]


def open_corpus(folder: str | os.PathLike) -> Corpus:
    """Opens a corpus and checks that its files are those it was prepared with: a second or two for each gigabyte.

    Raises:
      UserError: the folder is no finished corpus, or a file is missing, truncated or altered.
    """
    folder = local(folder, "copy the corpus there, as `gcloud storage rsync` does")
    if not (folder / MANIFEST).exists():
        started = "an unfinished corpus: run the same `prepare` again" if (folder / PARTS).exists() else "not a corpus"
        raise UserError(f"{folder} is {started}" if folder.is_dir() else f"there is no corpus at {folder}")
    manifest = files.read_json(folder / MANIFEST)
    _check_manifest(folder, manifest)
    for name in FILES:
        _check_file(folder / name, manifest["files"][name])
    entries = lexicon.read_lexicon(folder)
    corpus = Corpus(
        folder, np.memmap(folder / WORDS, "<u4", "r"), np.load(folder / DOCUMENTS, mmap_mode="r"), entries, manifest
    )
    counts = manifest["counts"]
    found = (len(corpus.words), len(corpus.documents) - 1, len(entries), len(entries.counts), int(entries.counts.sum()))
    if found != (counts["words"], counts["documents"], counts["types"], counts["types"], counts["words"]):
        raise UserError(f"{folder / MANIFEST} does not describe the files beside it: {_remedy(folder)}")
    return corpus


def _remedy(folder: pathlib.Path) -> str:
    return f"restore it, or remove {folder} and prepare the corpus again"


def _check_file(path: pathlib.Path, expected: dict[str, Any]) -> None:
    remedy = _remedy(path.parent)
    if not path.exists():
        raise UserError(f"{path} is missing: {remedy}")
    if path.stat().st_size != expected["bytes"]:
        size = f"{path.stat().st_size:,} bytes instead of {expected['bytes']:,}"
        raise UserError(f"{path} has {size}, it is truncated or foreign: {remedy}")
    if files.sha256(path) != expected["sha256"]:
        raise UserError(f"{path} was altered after the corpus was prepared: {remedy}")


def _check_manifest(folder: pathlib.Path, manifest: Any) -> None:
    try:
        version, digest, expected = manifest["format"], manifest["digest"], _digest(manifest["files"])
    except (KeyError, TypeError):
        raise UserError(f"{folder / MANIFEST} is not the manifest of a corpus") from None
    if version != FORMAT:
        raise UserError(
            f"{folder} has format {version}, this jaxdistill reads {FORMAT}: remove it and prepare the corpus again"
        )
    if digest != expected:
        raise UserError(f"{folder / MANIFEST} was altered, its digest does not match: {_remedy(folder)}")


def _digest(hashes: dict[str, dict]) -> str:
    """SHA-256 over the format, the hashes and the sizes of the files: no names, times or versions."""
    lines = [
        f"jaxdistill corpus {FORMAT}",
        *(f"{hashes[name]['sha256']} {hashes[name]['bytes']} {name}" for name in FILES),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def prepare(
    sources: Sequence[str],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    field: str = "text",
    chunk_bytes: int = parts.CHUNK,
) -> dict[str, Any]:
    """Turns text into a corpus; run again after a kill, it continues from the finished parts.

    The corpus depends on the text alone: not on the number of workers, the chunks, or where the files are. With more
    than one worker, processes are spawned: a script calls this under `if __name__ == "__main__":`.

    Args:
      sources: files (.txt, .txt.gz, .jsonl, .parquet), hf:NAME[:CONFIG][:SPLIT] or tfds:NAME[:SPLIT], in this order.
      out: the folder of the corpus.
      workers: processes; as many as there are processors unless given.
      field: the field of a row (.jsonl, .parquet, data sets) that holds its text.
      chunk_bytes: text per part; memory grows with it.

    Returns:
      The manifest.

    Raises:
      UserError: an input is missing or is not text, there is no word in it, or `out` holds something else.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: at least 1")
    out = local(out, "`--runner beam` writes to a bucket too")
    found = [find_source(spec) for spec in sources]
    settings = describe_settings(found, field)
    made = is_made(out, names_in(out))
    described = [describe(source) for source in found]
    if made:
        same = check_same(out, open_corpus(out).manifest, described, settings)
        shutil.rmtree(out / PARTS, ignore_errors=True)
        return same

    folder = out / PARTS
    folder.mkdir(parents=True, exist_ok=True)
    try:
        reading = parts.Reading(found, described, field)
        total = 0 if any(source.is_dataset for source in found) else sum(source.size for source in found)
        paths = parts.write_parts(
            folder, parts.split_chunks(reading, chunk_bytes), workers or os.cpu_count() or 1, total
        )
        counts = _merge(folder, paths)
        if not counts["words"]:
            shutil.rmtree(folder)
            raise UserError(f"there are no words in {', '.join(map(str, sources))}: an empty text makes no corpus")
    except UserError:
        remove_if_empty(folder, out)
        raise
    except OSError as error:
        what = f"{error.strerror or error} ({error.filename or out})"
        raise UserError(f"{what}: mend that and run the same command again; it continues from what is done") from None
    hashes = {name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)} for name in FILES}
    manifest = make_manifest(reading.described, settings, counts, hashes)
    for name in FILES:
        files.flush(folder / name)
        os.replace(folder / name, out / name)
    files.write_json(out / MANIFEST, manifest)
    shutil.rmtree(folder)
    return manifest


def names_in(out: pathlib.Path) -> set[str]:
    """What is in the folder `out`, which need not be there.

    Raises:
      UserError: it is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder for the corpus")
    return set(os.listdir(out)) if out.exists() else set()


def is_made(out: Any, names: set[str]) -> bool:
    """Whether the folder `out`, in which are `names`, holds a finished corpus.

    Raises:
      UserError: it holds something else.
    """
    if names and not names & {MANIFEST, PARTS}:
        raise UserError(f"{out} is not empty and holds no corpus: choose another --out")
    return MANIFEST in names


def describe_settings(found: Sequence[Source], field: str) -> dict[str, Any]:
    """What the words of a text depend on besides it.

    Raises:
      UserError: there is no text.
    """
    if not found:
        raise UserError("no text given: name at least one file")
    has_fields = any(source.has_fields for source in found)
    return {"longest_word": words.LONGEST_WORD, "field": field if has_fields else None}


def make_manifest(described: Sequence[dict], settings: dict, counts: dict, hashes: dict[str, dict]) -> dict[str, Any]:
    """The manifest of a corpus made now.

    Args:
      described: what is known of each source; see `sources.describe`.
      settings: see `describe_settings`.
      counts: see `Tally.counts`.
      hashes: of each of `FILES` its "bytes" and "sha256".
    """
    return {
        "format": FORMAT,
        "jaxdistill": __version__,
        "tokenizers": tokenizers.__version__,
        "sources": list(described),
        "settings": settings,
        "counts": counts,
        "files": hashes,
        "digest": _digest(hashes),
    }


def check_same(out: Any, manifest: dict[str, Any], described: list[dict], settings: dict) -> dict[str, Any]:
    """The manifest of the finished corpus at `out`, when it was made of the same inputs; data sets compare by name.

    Raises:
      UserError: it was made of others.
    """
    known = manifest.get("sources", [])
    same = len(known) == len(described) and all(
        new.items() <= old.items() for new, old in zip(described, known, strict=True)
    )
    if not same or manifest.get("settings") != settings:
        what = "other settings" if same else "other inputs: " + ", ".join(entry["name"] for entry in known)
        raise UserError(f"{out} already holds a corpus of {what}; choose another folder, or remove it")
    print(f"{out} already holds the corpus of these inputs: nothing to do", file=sys.stderr)
    return manifest


def _merge(folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> dict[str, int]:
    """Merges parts into the corpus's files, inside `folder`; returns the counts."""
    chains = lexicon.merge_runs(paths, folder / "merged")
    types = lexicon.publish_run(folder / "merged", folder)
    tally = Tally()
    with open(folder / WORDS, "wb") as ids_file, open(folder / "documents.tmp", "wb") as documents_file:
        steps = zip(paths, chains, strict=True)
        for path, chain in tqdm(steps, total=len(paths), unit="part", desc="merge", disable=None):
            ids, starts, structure = parts.read_part(path)
            lexicon.follow(chain)[ids].astype("<u4").tofile(ids_file)
            before = tally.words
            if tally.add(len(ids), len(starts), structure):
                starts = np.concatenate([[0], starts])
            (starts + before).astype("<i8").tofile(documents_file)
        np.array([tally.words], "<i8").tofile(documents_file)
    lexicon.add_header(folder / "documents.tmp", tally.documents + 1, folder / DOCUMENTS)
    return tally.counts(types)


@dataclass
class Tally:
    """Counts of the parts of a text put together so far, in order; it knows what goes on across their seams."""

    words: int = 0
    documents: int = 0
    lines: int = 0
    newlines: int = 2

    def add(self, amount: int, starts: int, structure: Sequence[int]) -> bool:
        """Counts the next part; returns whether a document starts with its first word.

        Args:
          amount: words in it.
          starts: documents that start inside.
          structure: its lines, leading and trailing newlines; see `words.Encoded`.
        """
        lines, leading, trailing = structure
        self.newlines += leading
        if not amount:
            return False
        opens, continues = self.newlines > 1, self.newlines == 0
        self.words += amount
        self.documents += starts + opens
        self.lines += lines + (not continues)
        self.newlines = trailing
        return opens

    def counts(self, types: int) -> dict[str, int]:
        """The counts as the manifest has them; `types` is the size of the lexicon."""
        return {"words": self.words, "documents": self.documents, "types": types, "lines": self.lines}


def remove_if_empty(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Leaves nothing behind after bad input, but keeps finished parts: with the input mended they count."""
    if folder.exists() and not any(folder.glob("*.npz")):
        shutil.rmtree(folder)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()
