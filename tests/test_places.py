import os
import pathlib

import fsspec
import pytest

from jaxdistill.errors import UserError
from jaxdistill.places import absolute, file_names, file_size, local, move_folder, place, remote, remove_folder

BOTH = pytest.mark.parametrize("root", ["disk", "bucket"], indirect=True)


def fill(folder):
    for name in ("top", "a/one", "a/b/two", "a-b/three"):
        path = folder / name
        if not remote(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def test_a_name_is_a_local_path_or_in_a_bucket(bucket):
    assert place("a/b") == pathlib.Path("a/b") and place(pathlib.Path("a")) == pathlib.Path("a")
    there = place("gs://bucket/a//b/")
    assert remote(there) and not remote(place("a")) and os.fspath(there / "c") == "gs://bucket/a/b/c"
    assert place(there) is there and absolute(there) is there
    assert absolute("a") == pathlib.Path.cwd() / "a"
    for name in ("s3://bucket/a", "gs://", "gs:///a", "gs:/bucket/a", "https://host/a"):
        with pytest.raises(UserError, match=f"{name}: give a local path or gs://"):
            place(name)


def test_what_has_to_be_on_a_disk():
    assert local("a/b") == pathlib.Path("a/b") == local(pathlib.Path("a/b"))
    for name in ("gs://bucket/a", "gs:/bucket/a", "s3://bucket/a"):
        with pytest.raises(UserError, match=f"{name}: this has to be on a disk; copy it"):
            local(name, "copy it")


def test_a_missing_client_is_named(bucket, monkeypatch):
    def missing(name):
        raise ImportError("no gcsfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"pip install 'jaxdistill\[gcs\]'"):
        place("gs://bucket/a")


def test_listings_are_never_remembered(bucket):
    place("gs://bucket/a")
    assert fsspec.config.conf["gcs"]["use_listings_cache"] is False


@BOTH
def test_files_of_a_folder(root):
    folder = fill(root / "folder")
    assert file_names(folder) == ["a-b/three", "a/b/two", "a/one", "top"]
    assert file_size(folder / "a" / "b" / "two") == len("a/b/two")
    assert file_names(root / "missing") == []


@BOTH
def test_a_folder_is_removed_with_all_in_it(root):
    fill(root / "folder")
    fill(root / "folder2")
    for _ in range(2):
        remove_folder(root / "folder")
        assert not (root / "folder").exists() and len(file_names(root / "folder2")) == 4


@BOTH
def test_a_folder_is_moved_with_all_in_it(root):
    names = file_names(fill(root / "folder"))
    move_folder(root / "folder", root / "moved")
    assert not (root / "folder").exists() and file_names(root / "moved") == names
    assert all((root / "moved" / name).read_bytes() == name.encode() for name in names)
