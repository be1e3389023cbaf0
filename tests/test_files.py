import os
import stat

import pytest

from jaxdistill import files
from jaxdistill.errors import UserError


def mode(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


@pytest.fixture
def umask():
    """Sets a umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new folder" / "file"
    files.write_text(path, "first\n")
    with pytest.raises(KeyboardInterrupt), files.atomic(path) as temporary:
        temporary.write_text("second")
        raise KeyboardInterrupt
    assert path.read_text() == "first\n" and os.listdir(path.parent) == ["file"]


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
