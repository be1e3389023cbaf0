"""Where text comes from: .txt, .txt.gz, .jsonl, .parquet, hf:NAME, tfds:NAME, each a stream of UTF-8 blocks.

Every source becomes the same plain form: a line is a paragraph, a blank line ends a document. A row of a table is one
document, its own newlines read as spaces.
"""

import codecs
import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from jaxdistill.errors import UserError
from jaxdistill.places import local

BLOCK = 1 << 20

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")

Blocks = Iterator[tuple[bytes, int]]
"""Blocks of UTF-8 text (cut anywhere), each with how many bytes of the source have been read so far."""


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


@dataclass(frozen=True)
class Source:
    """One input of `prepare`.

    Attributes:
      spec: as the user wrote it.
      kind: one of `SUFFIXES`, "hf" or "tfds".
      size: bytes of the file; 0 where it is not a file.
      opener: opens the file to read its bytes: of a path, or of a name that another file system knows.
    """

    spec: str
    kind: str
    size: int
    opener: Callable[[str], BinaryIO] = _open

    @property
    def name(self) -> str:
        """The file's name without its folder, or the data set as written."""
        return self.spec if self.is_dataset else pathlib.Path(self.spec).name

    @property
    def is_dataset(self) -> bool:
        """Whether this is a data set of a hub instead of a file."""
        return self.kind in ("hf", "tfds")

    @property
    def has_fields(self) -> bool:
        """Whether the text is a named field of rows."""
        return not self.kind.startswith(".txt")


def find_source(spec: str) -> Source:
    """Resolves what a user named.

    Raises:
      UserError: the file is missing, is a folder, or has an extension that is not known.
    """
    prefix, colon, rest = str(spec).partition(":")
    if colon and prefix in ("hf", "tfds"):
        if not rest.split(":")[0]:
            raise UserError(f"{spec!r} names no data set: write {prefix}:NAME")
        return Source(str(spec), prefix, 0)
    path = local(spec, "`--runner beam` reads a bucket too")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name its files, for example {path}/*.txt")
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: check its permissions")
    return Source(str(path), find_kind(str(path)), path.stat().st_size)


def find_kind(path: str) -> str:
    """Which of `SUFFIXES` a file has.

    Raises:
      UserError: none of them.
    """
    kind = next((suffix for suffix in SUFFIXES if path.endswith(suffix)), None)
    if kind is None:
        raise UserError(
            f"{path} has an unknown extension: text is read from {', '.join(SUFFIXES)}, hf:NAME or tfds:NAME"
        )
    return kind


def describe(source: Source) -> dict[str, Any]:
    """What the manifest says of a source before it is read: name, and of a file its bytes and SHA-256."""
    if source.is_dataset:
        return {"name": source.name}
    with source.opener(source.spec) as file:
        return {"name": source.name, "bytes": source.size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read(source: Source, field: str) -> Blocks:
    """Reads a source as blocks of UTF-8 text.

    Args:
      source: what to read.
      field: the field of a row that holds its text.

    Raises:
      UserError: the source is damaged, is not UTF-8 text, or a row lacks the field.
    """
    if source.kind.startswith(".txt"):
        return _read_text(source)
    if source.kind.startswith(".jsonl"):
        return _read_jsonl(source, field)
    if source.kind == ".parquet":
        return _read_parquet(source, field)
    rows = _huggingface_rows(source.spec) if source.kind == "hf" else _tensorflow_rows(source.spec)
    return _read_rows(source.spec, rows, field)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """Opens a file, unpacked where it ends in .gz; yields (its bytes, the raw file, whose position is the progress)."""
    try:
        with source.opener(source.spec) as raw:
            if source.kind.endswith(".gz"):
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream, raw
            else:
                yield raw, raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{source.spec} is a damaged or incomplete gzip file ({error}): fetch it again") from None


def _not_text(where: str, offset: int, found: str) -> UserError:
    return UserError(f"{where} is not UTF-8 text: {found} at byte {offset}; convert it to UTF-8, or leave the file out")


def _read_text(source: Source) -> Blocks:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with _opened(source) as (stream, raw):
        while True:
            block = stream.read(BLOCK)
            if block.count(0) * 10 > len(block):
                raise _not_text(source.spec, offset + block.index(0), "binary data (a NUL byte)")
            start = offset - len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                found = f"byte 0x{error.object[error.start]:02x}"
                raise _not_text(source.spec, start + error.start, found) from None
            if not block:
                return
            offset += len(block)
            yield block, raw.tell()


def _read_jsonl(source: Source, field: str) -> Blocks:
    offset = 0
    with _opened(source) as (stream, raw):
        for number, line in enumerate(stream, 1):
            where = f"{source.spec}, line {number}"
            try:
                row = json.loads(line.decode()) if line.strip() else {field: ""}
            except UnicodeDecodeError as error:
                raise _not_text(where, offset + error.start, f"byte 0x{line[error.start]:02x}") from None
            except json.JSONDecodeError as error:
                raise UserError(f"{where} is not JSON ({error}): write one object per line") from None
            if not isinstance(row, dict):
                raise UserError(f"{where} is not a JSON object: write one object per line, its text in {field!r}")
            yield _document(_text(row, field, where)), raw.tell()
            offset += len(line)


def _read_parquet(source: Source, field: str) -> Blocks:
    import pyarrow
    import pyarrow.parquet

    try:
        with source.opener(source.spec) as file, pyarrow.parquet.ParquetFile(file) as table:
            columns = table.schema_arrow.names
            if field not in columns:
                raise UserError(f"{source.spec} has no column {field!r}, only {_names(columns)}: choose with --field")
            rows = table.metadata.num_rows
            done = 0
            for batch in table.iter_batches(batch_size=256, columns=[field]):
                texts = batch.column(0).to_pylist()
                blocks = [
                    _document(_text({field: text}, field, f"{source.spec}, row {done + number}"))
                    for number, text in enumerate(texts, 1)
                ]
                done += len(texts)
                yield b"".join(blocks), source.size * done // rows
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"{source.spec} is not a readable parquet file: {error}") from None


def _read_rows(spec: str, rows: Iterable[dict], field: str) -> Blocks:
    for number, row in enumerate(rows, 1):
        yield _document(_text(row, field, f"{spec}, row {number}")), 0


def _huggingface_rows(spec: str) -> Iterable[dict]:
    """Streams the rows of hf:NAME[:CONFIG][:SPLIT]; the split is "train" unless given."""
    import datasets  # here: most runs never need it, and it is slow to import

    _, name, config, split = (spec + "::").split(":", 3)
    try:
        yield from datasets.load_dataset(name, config or None, split=split.rstrip(":") or "train", streaming=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{spec} cannot be read: {error}") from None


def _tensorflow_rows(spec: str) -> Iterable[dict]:
    """Streams the rows of tfds:NAME[:SPLIT]; the split is "train" unless given."""
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError(f'{spec} needs TensorFlow Datasets: pip install "jaxdistill[tfds]"') from None
    _, name, split = (spec + ":").split(":", 2)
    try:
        table = tensorflow_datasets.load(name, split=split.rstrip(":") or "train", shuffle_files=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{spec} cannot be read: {error}") from None
    yield from tensorflow_datasets.as_numpy(table)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))


def _text(row: dict, field: str, where: str) -> str:
    if field not in row:
        raise UserError(f"{where} has no field {field!r}, only {_names(list(row))}: choose with --field")
    text = row[field]
    if isinstance(text, bytes):
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise _not_text(where, error.start, f"byte 0x{text[error.start]:02x}") from None
    if not isinstance(text, str):
        raise UserError(f"{where}: field {field!r} is {type(text).__name__}, not text: mend or drop the row")
    return text


def _document(text: str) -> bytes:
    """A row's text as one line and a blank one; an unpaired surrogate becomes U+FFFD, which BERT's cleaning drops."""
    text = text.replace("\n", " ") + "\n\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
