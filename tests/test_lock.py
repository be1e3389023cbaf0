import fcntl
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxdistill.errors import UserError
from jaxdistill.lock import locked

ROOT = pathlib.Path(__file__).parents[1]
HOLDER = """
import os, sys, time
from jaxdistill.lock import locked
with locked(sys.argv[1]):
    if sys.argv[2:]:
        if not os.fork():
            print(os.getpid(), flush=True)
    else:
        print("held", flush=True)
    time.sleep(60)
"""


def hold(folder, *arguments):
    """A process that holds the lock, and the line it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return process, process.stdout.readline().strip()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()


def test_a_second_process_is_refused_and_a_kill_lets_go(tmp_path):
    process, _ = hold(tmp_path)
    try:
        refused = rf"{tmp_path} is in use by process {process.pid} on .*--workdir"
        with pytest.raises(UserError, match=refused), locked(tmp_path):
            pass
    finally:
        kill(process)
    with locked(tmp_path):
        pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    process, child = hold(tmp_path, "fork")
    try:
        with pytest.raises(UserError, match=f"process {process.pid} "), locked(tmp_path):
            pass
        kill(process)
        os.kill(int(child), 0)
        with locked(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_the_same_process_is_refused_too(tmp_path):
    with locked(tmp_path / "new"):
        with pytest.raises(UserError, match=f"process {os.getpid()} "), locked(tmp_path / "new"):
            pass
        with locked(tmp_path / "other"):
            pass
    with locked(tmp_path / "new"):
        pass


def test_lets_go_when_the_body_raises(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_a_body_that_fails_leaves_only_what_it_wrote(tmp_path):
    new, kept = tmp_path / "outer" / "new", tmp_path / "kept"
    kept.mkdir()
    for folder in (new, kept):
        with pytest.raises(KeyError), locked(folder):
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and not any(kept.iterdir())
    with pytest.raises(KeyError), locked(new):
        (new / "work").write_text("")
        raise KeyError
    assert sorted(path.name for path in new.iterdir()) == ["lock", "work"]
    (new / "work").unlink()
    with pytest.raises(KeyError), locked(new):
        raise KeyError
    assert [path.name for path in new.iterdir()] == ["lock"], "it was there before"


def test_a_lock_that_was_just_removed_is_not_taken(tmp_path, monkeypatch):
    """Between opening the file and locking it, the process that made it fails and removes it."""
    folder, flock = tmp_path / "run", fcntl.flock

    def late(*arguments):
        (folder / "lock").unlink()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="in use by another process"), locked(folder):
        pass


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't use"), locked(tmp_path / "file"):
        pass
