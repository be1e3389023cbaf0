"""Fields of .tsv, .csv and .jsonl files, row by row."""

import csv
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from jaxdistill.data import sources
from jaxdistill.errors import UserError

Fields = Iterator[tuple[int, dict[str, Any]]]
"""The fields of each row by the names of their columns, and its number: the line of a file, the row of a data set."""


def find_file(folder: pathlib.Path, patterns: Sequence[str]) -> pathlib.Path:
    """The file of a folder that matches the first of the patterns that any file matches.

    Raises:
      UserError: there is none, or the pattern matches several.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise UserError(f"{folder} has {', '.join(path.name for path in found)}: leave only one of them there")
        if found:
            return found[0]
    wanted = " or ".join(patterns)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the one that holds {wanted}")
    there = sorted(path.name for path in folder.iterdir()) or ["nothing"]
    more = f" and {len(there) - 20} more" if len(there) > 20 else ""
    raise UserError(f"{folder} has no {wanted}, only {', '.join(there[:20])}{more}")


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a UTF-8 file, unpacked if its name ends in .gz, from 1, without their ends and a byte-order mark.

    Only "\n" ends a line; carriage returns before it are part of the end.

    Raises:
      UserError: there is no such file, it can't be read, is damaged or is not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: name a file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: check its permissions")
    source = sources.Source(str(path), ".txt.gz" if path.name.endswith(".gz") else ".txt", path.stat().st_size)
    number, rest = 0, b""
    for block, _ in sources.read(source, ""):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            yield number, _decoded(line, number)
    if rest:
        yield number + 1, _decoded(rest, number + 1)


def _decoded(line: bytes, number: int) -> str:
    return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")


def clean(text: str) -> str:
    """The text with U+FFFD for an unpaired surrogate, which JSON can hold and UTF-8 can't; no character moves."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def read_fields(path: pathlib.Path) -> Fields:
    """Reads a .tsv, .csv or .jsonl file, or one with .gz after that.

    Raises:
      UserError: it is another kind of file, or what the reader of its kind raises.
    """
    readers = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}
    reader = readers.get(pathlib.Path(path.name.removesuffix(".gz")).suffix)
    if reader is None:
        raise UserError(f"{path} has an unknown extension: examples are in {', '.join(readers)}, or .gz of these")
    return reader(path)


def read_tsv(path: pathlib.Path, header: Sequence[str] | None = None, broken: int = 0) -> Fields:
    """Reads rows whose fields are parted by tabs and by nothing else: a quote is a character like any other.

    Args:
      path: the file.
      header: the names of the columns, if they are not in the first line.
      broken: how many rows with too few fields may be there; they are left out.

    Raises:
      UserError: a row has more or fewer fields than the header, or two columns have one name.
    """
    for number, line in read_lines(path):
        values = line.split("\t")
        if header is None:
            header = _header(values, path)
        elif line:
            if len(values) < len(header) and broken:
                broken -= 1
            else:
                yield number, _named(header, values, f"{path}, line {number}")


def read_csv(path: pathlib.Path) -> Fields:
    """Reads comma-separated values, quoted where they hold a comma, a quote or a newline.

    Raises:
      UserError: a row has more or fewer fields than the header, two columns have one name, or a quote is astray.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((line + "\n" for _, line in read_lines(path)), strict=True)
    try:
        header = _header(next(reader, []), path)
        for values in reader:
            if values:
                yield reader.line_num, _named(header, values, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not CSV: {error}; quotes in a field are doubled") from None


def read_jsonl(path: pathlib.Path) -> Fields:
    """Reads one JSON object a line.

    Raises:
      UserError: a line is something else.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON ({error}): write one object per line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is not a JSON object: write one object per line")
        yield number, row


def _header(names: Sequence[str], path: pathlib.Path) -> Sequence[str]:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: the first line names two columns {name!r}; is it a header?")
    return names


def _named(header: Sequence[str], values: Sequence[str], place: str) -> dict[str, str]:
    if len(values) != len(header):
        raise UserError(
            f"{place} has {len(values)} field{'s' * (len(values) != 1)} where {len(header)} are expected"
            f" ({', '.join(header)}): mend or drop the line"
        )
    return dict(zip(header, values, strict=True))
