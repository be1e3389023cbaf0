import os
import stat
import time

import pytest

from jaxdistill import files
from jaxdistill.errors import UserError

BOTH = pytest.mark.parametrize("root", ["disk", "bucket"], indirect=True)


def mode(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


@pytest.fixture
def umask():
    """Sets a umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@BOTH
def test_a_file_takes_its_place_whole_or_not_at_all(root):
    path = root / "new folder" / "file"
    files.write_text(path, "first\n")
    with pytest.raises(KeyboardInterrupt), files.atomic(path) as temporary:
        temporary.write_text("second")
        raise KeyboardInterrupt
    assert path.read_text() == "first\n" and [found.name for found in path.parent.iterdir()] == ["file"]


@BOTH
def test_json_and_digests(root):
    files.write_json(root / "file", {"é": [1]})
    assert files.read_json(root / "file") == {"é": [1]}
    assert files.sha256(root / "file") == "80bc6ad2734fed7bcd564526cbf26eea3ed6e756a185df8d3f3cdf3acdd6f2b8"
    files.write_text(root / "other", "{")
    for name, message in (("other", "is not a JSON file"), ("missing", "does not exist")):
        with pytest.raises(UserError, match=f"{name} {message}"):
            files.read_json(root / name)


@BOTH
def test_a_file_grows_by_records(root):
    path = root / "file"
    for record in (b"one\n", b"two\n"):
        file = files.Growing(path)
        file.append(record)
        file.close()
    assert path.read_bytes() == b"one\ntwo\n"
    with pytest.raises(FileExistsError):
        files.Growing(path, new=True)


@pytest.mark.parametrize("root", ["bucket"], indirect=True)
def test_what_a_growing_file_costs_in_a_bucket(root, bucket, monkeypatch):
    """A record a second for three hours: few uploads, and no more bytes a second the longer it lasts."""
    clock, uploads = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    file, record = files.Growing(root / "file"), b"x" * 1000
    monkeypatch.setattr(type(root), "write_bytes", lambda path, data: uploads.append(len(data)))
    for _ in range(10_800):
        clock[0] += 1
        file.append(record)
    assert len(uploads) <= 1 + clock[0] / 10 and sum(uploads) < 110_000 * clock[0]
    assert len(uploads) > 100, "it is written now and then"
    file.append(b"last", now=True)
    assert uploads[-1] == 10_800_004
    file.close()
    assert len(uploads) == len(uploads[:-1]) + 1, "nothing was left to write"


def test_permissions_are_those_of_any_other_file(tmp_path, umask):
    for mask, expected in ((0o022, "0o644"), (0o077, "0o600"), (0o002, "0o664")):
        umask(mask)
        files.write_text(tmp_path / "file", "text")
        (tmp_path / "plain").write_text("text")
        assert mode(tmp_path / "file") == mode(tmp_path / "plain") == expected
        (tmp_path / "plain").unlink()
    (tmp_path / "folder").mkdir(mode=0o700)
    files.settle(tmp_path / "folder")
    assert mode(tmp_path / "folder") == "0o775"


def test_what_is_written_reached_the_disk_first(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("flushed"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("renamed"), replace(*paths)))
    files.write_json(tmp_path / "file", {"é": [1]})
    assert done == ["flushed", "renamed"] and files.read_json(tmp_path / "file") == {"é": [1]}


@pytest.mark.parametrize(
    ("place", "message"), [("file/new", "is a file"), ("folder", "is a folder"), ("closed/new", "is read-only")]
)
def test_where_nothing_can_be_written(tmp_path, monkeypatch, place, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("closed"))
    with pytest.raises(UserError, match=message):
        files.check_writable(tmp_path / place)
    files.check_writable(tmp_path / "made" / "later" / "file")
