"""Finished runs as JSON lines, which a benchmark that is run again continues."""

import json
import pathlib


def finished(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: pathlib.Path, record: dict) -> None:
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")
