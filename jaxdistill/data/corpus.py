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
from jaxdistill.data.sources import describe, find_source
from jaxdistill.errors import UserError

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
    folder = pathlib.Path(folder)
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
    if not sources:
        raise UserError("no text given: name at least one file")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: at least 1")
    out = pathlib.Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder for the corpus")
    found = [find_source(spec) for spec in sources]
    described = [describe(source) for source in found]
    settings = {
        "longest_word": words.LONGEST_WORD,
        "field": field if any(source.has_fields for source in found) else None,
    }
    if (out / MANIFEST).exists():
        return _same_corpus(out, described, settings)
    if out.exists() and not (out / PARTS).exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no corpus: choose another --out")

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
        _remove_if_empty(folder, out)
        raise
    except OSError as error:
        what = f"{error.strerror or error} ({error.filename or out})"
        raise UserError(f"{what}: mend that and run the same command again; it continues from what is done") from None
    hashes = {name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)} for name in FILES}
    manifest = {
        "format": FORMAT,
        "jaxdistill": __version__,
        "tokenizers": tokenizers.__version__,
        "sources": reading.described,
        "settings": settings,
        "counts": counts,
        "files": hashes,
        "digest": _digest(hashes),
    }
    for name in FILES:
        files.flush(folder / name)
        os.replace(folder / name, out / name)
    files.write_json(out / MANIFEST, manifest)
    shutil.rmtree(folder)
    return manifest


def _same_corpus(out: pathlib.Path, described: list[dict], settings: dict) -> dict[str, Any]:
    """The manifest of the finished corpus at `out`, when it was made of the same inputs; data sets compare by name."""
    manifest = open_corpus(out).manifest
    known = manifest.get("sources", [])
    same = len(known) == len(described) and all(
        new.items() <= old.items() for new, old in zip(described, known, strict=True)
    )
    if not same or manifest.get("settings") != settings:
        what = "other settings" if same else "other inputs: " + ", ".join(entry["name"] for entry in known)
        raise UserError(f"{out} already holds a corpus of {what}; choose another folder, or remove it")
    shutil.rmtree(out / PARTS, ignore_errors=True)
    print(f"{out} already holds the corpus of these inputs: nothing to do", file=sys.stderr)
    return manifest


def _merge(folder: pathlib.Path, paths: Sequence[pathlib.Path]) -> dict[str, int]:
    """Merges parts into the corpus's files, inside `folder`; returns the counts."""
    chains = lexicon.merge_runs(paths, folder / "merged")
    types = lexicon.publish_run(folder / "merged", folder)
    total = documents = lines = 0
    newlines = 2
    with open(folder / WORDS, "wb") as ids_file, open(folder / "documents.tmp", "wb") as documents_file:
        steps = zip(paths, chains, strict=True)
        for path, chain in tqdm(steps, total=len(paths), unit="part", desc="merge", disable=None):
            ids, starts, (inner, leading, trailing) = parts.read_part(path)
            newlines += leading
            if not len(ids):
                continue
            lexicon.follow(chain)[ids].astype("<u4").tofile(ids_file)
            if newlines > 1:
                starts = np.concatenate([[0], starts])
            (starts + total).astype("<i8").tofile(documents_file)
            lines += inner + (newlines > 0)
            documents += len(starts)
            total += len(ids)
            newlines = trailing
        np.array([total], "<i8").tofile(documents_file)
    lexicon.add_header(folder / "documents.tmp", documents + 1, folder / DOCUMENTS)
    return {"words": total, "documents": documents, "types": types, "lines": lines}


def _remove_if_empty(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Leaves nothing behind after bad input, but keeps finished parts: with the input mended they count."""
    if folder.exists() and not any(folder.glob("*.npz")):
        shutil.rmtree(folder)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()
