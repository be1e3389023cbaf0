"""Leases in a bucket: one run at a time, also after kills and pauses."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxdistill import lease
from jaxdistill.errors import UserError
from jaxdistill.lock import locked
from jaxdistill.places import place

HOLDER = """
import sys, time
import fake_bucket
from jaxdistill import lease
from jaxdistill.lock import locked
fake_bucket.connect()
lease.RENEWED, lease.SILENT, lease.WATCHED = 0.2, 3, 0.1
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def folder(bucket, tmp_path, monkeypatch):
    """A folder in a bucket; times are short, and the bucket's clock runs in seconds as a real one's does."""
    monkeypatch.setattr(lease, "RENEWED", 0.2)
    monkeypatch.setattr(lease, "SILENT", 3)
    monkeypatch.setattr(lease, "WATCHED", 0.1)
    return f"gs://tests/{tmp_path.parent.name}/{tmp_path.name}"


def leases(bucket, folder):
    return bucket.names("tests", folder.removeprefix("gs://tests/") + "/lock/")


def hold(folder):
    tests = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(tests), tests])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout.readline() == "held\n", process.communicate()
    return process


def end(process):
    process.kill()
    process.communicate()


def test_a_second_run_gives_way_and_leaves_no_lease(bucket, folder):
    process = hold(folder)
    try:
        refused = f"{folder} is in use by process {process.pid} on .*--workdir"
        with pytest.raises(UserError, match=refused), locked(folder):
            pass
        assert len(leases(bucket, folder)) == 1
    finally:
        end(process)


def test_a_killed_run_is_waited_for_and_followed(bucket, folder, capsys):
    process = hold(folder)
    end(process)
    began = time.monotonic()
    with locked(folder):
        waited = time.monotonic() - began
        assert len(leases(bucket, folder)) == 1
    assert 1 < waited < 30, "a lease is given its time, by a clock of whole seconds"
    assert f"{folder} was in use by process {process.pid}" in capsys.readouterr().out
    assert leases(bucket, folder) == []


def test_clocks_of_hosts_do_not_matter(bucket, folder, monkeypatch):
    """The bucket's clock is a day ahead: a living holder is no older for it, and a dead one no younger."""
    monkeypatch.setattr(bucket, "clock", lambda: time.time() + 86400)
    process = hold(folder)
    try:
        with pytest.raises(UserError, match="is in use"), locked(folder):
            pass
    finally:
        end(process)
    with locked(folder):
        pass


def test_a_paused_run_that_was_replaced_ends(bucket, folder):
    process = hold(folder)
    try:
        process.send_signal(signal.SIGSTOP)
        with locked(folder):
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 2
            assert "taken over by another process while this one was paused" in process.stderr.read()
            assert len(leases(bucket, folder)) == 1
    finally:
        end(process)


def test_a_pause_alone_ends_nothing(bucket, folder):
    process = hold(folder)
    try:
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        before = bucket.objects["tests", leases(bucket, folder)[0]][1]
        time.sleep(1)
        assert process.poll() is None and bucket.objects["tests", leases(bucket, folder)[0]][1] > before
    finally:
        end(process)


def test_of_many_that_start_at_once_at_most_one_goes_on(bucket, folder):
    """Threads stand for processes: a lease's name is drawn."""
    inside, most, guard = [], [], threading.Lock()

    def run():
        try:
            with locked(folder):
                with guard:
                    inside.append(None)
                    most.append(len(inside))
                time.sleep(1)
                with guard:
                    inside.pop()
        except UserError as error:
            assert "is in use by" in str(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most, default=0) <= 1 and leases(bucket, folder) == []


def test_a_bucket_that_can_not_be_used(bucket, folder, monkeypatch):
    monkeypatch.setattr(bucket, "fail", lambda method, path: 403 if method == "POST" else None)
    with pytest.raises(UserError, match=f"can't use {folder}: .*403"), locked(folder):
        pass


def test_an_unreachable_bucket_does_not_end_a_run(bucket, folder, monkeypatch):
    with locked(folder):
        monkeypatch.setattr(bucket, "fail", lambda method, path: 503)
        time.sleep(1)
        monkeypatch.setattr(bucket, "fail", lambda method, path: None)
        time.sleep(0.5)
        assert place(folder).exists()
