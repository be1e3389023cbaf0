"""Before several processes join: which one this is, who is there, and the one error that all of them get."""

import concurrent.futures
import contextlib
import dataclasses
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from processes import Process, environment, free_port, started, wait_until

from jaxdistill import cli, distributed, member, roll_call, sharding
from jaxdistill.errors import UserError
from jaxdistill.line import Line
from jaxdistill.member import Member, asked


def test_options_say_which_process_this_is():
    words = ["train", "extreme", "--coordinator=10.0.0.2:8476", "--processes", "4", "--process=3", "--steps", "5"]
    one, rest = asked(words, {})
    assert one == Member("10.0.0.2", 8476, 4, 3, member.WAIT) and rest == ["train", "extreme", "--steps", "5"]
    assert asked(["train", "x", "--coordinator", "[::1]:9", "--processes=2", "--process=0", "--wait=7"], {})[
        0
    ] == Member("::1", 9, 2, 0, 7)


def test_environment_variables_stand_for_options_that_are_left_out():
    variables = {"JAX_COORDINATOR_ADDRESS": "head:81", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
    assert asked(["train"], variables)[0] == Member("head", 81, 3, 2, member.WAIT)
    assert asked(["train", "--process", "1"], variables)[0].process == 1


def test_without_options_there_is_one_process():
    assert asked(["train", "extreme", "--seed", "1"], {}) == (None, ["train", "extreme", "--seed", "1"])
    assert asked(["train", "--coordinator=a:1", "--processes=1", "--process=0"], {}) == (None, ["train"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--processes=2 --process=0", "need --coordinator HOST:PORT"),
        ("--coordinator=a:1 --processes=2", "needs --process too"),
        ("--coordinator=a:1", "needs --processes and --process too"),
        ("--coordinator=a --processes=2 --process=0", "'a' is not HOST:PORT"),
        ("--coordinator=a:99999 --processes=2 --process=0", "is not HOST:PORT"),
        ("--coordinator=a:1 --processes=-1 --process=0", "--processes -1: give at least 1"),
        ("--coordinator=a:1 --processes=2 --process=2", "--process 2 of --processes 2: number them from 0 to 1"),
        ("--coordinator=a:1 --processes=two --process=0", "'two' is not INT"),
        ("--coordinator=a:1 --processes=2 --process", "--process needs a value"),
        ("--coordinator=a:1 --processes=2 --process=0 --wait=0", "at least 1 second"),
    ],
)
def test_options_that_make_no_sense(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        asked(["train", *words.split()], {})


def test_auto_takes_what_jax_finds(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, {"SLURM_STEP_NODELIST": "node[07-09]", "SLURM_NTASKS": "3"}.get(name, "2"))
    one, _ = asked(["train", "--coordinator", "auto"], {})
    assert (one.host, one.processes, one.process) == ("node07", 3, 2)


def test_auto_without_a_cluster(monkeypatch):
    monkeypatch.setattr(member, "_DETECT", "print('[null, null, null]')")
    with pytest.raises(UserError, match="jax finds no cluster here"):
        asked(["train", "--coordinator", "auto"], {})


def test_nothing_of_jax_is_imported_before_the_roll_call():
    program = "import jaxdistill.cli, sys; print(sorted({'jax', 'flax', 'orbax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def call(process, processes=3, **more):
    return roll_call.call_of(Member("127.0.0.1", 1, processes, process), "train") | more


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], ""),
        ([call(1), call(2)], ""),
        (
            [call(1), call(1, host="b", pid=7)],
            "two processes have the number 1: .* and process 1 on b .pid 7.; give each its own --process, from 0 to 2",
        ),
        ([call(0, pid=7)], "two processes have the number 0"),
        ([call(1, 4)], "was started with --processes 3, process 1 .* with --processes 4"),
        ([call(1, command="evaluate")], "process 0 .* runs train, process 1 .* runs evaluate"),
        (
            [call(1, versions=call(1)["versions"] | {"jax": "0.0.1"})],
            f"process 0 .* has jax {jax.__version__}, process 1 .* has 0.0.1: install the same",
        ),
    ],
)
def test_what_is_wrong_with_those_who_called(others, message):
    found = roll_call.trouble([call(0), *others])
    assert bool(found) == bool(message) and re.search(message, found), found


def roll(calls, wait=20.0, port=None):
    """What each of some callers gets, the first of them being process 0: an error, or None."""
    port = port or free_port()

    def take(own):
        with roll_call.listen(Member("127.0.0.1", port, own["processes"], 0)) as ear:
            lines, _ = roll_call.take(ear, own, wait)
            for line in lines.values():
                line.close()

    def ask(own):
        roll_call.answer(Member("127.0.0.1", port, own["processes"], own["process"], wait), own)[0].close()

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        jobs = [pool.submit(take if number == 0 else ask, own) for number, own in enumerate(calls)]
        return [error and str(error) for error in (job.exception() for job in jobs)]


def test_all_are_told_to_go():
    assert roll([call(0), call(1), call(2)]) == [None] * 3


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([call(1), call(1, pid=7)], "two processes have the number 1"),
        ([call(1, 4), call(2)], "--processes 4"),
        ([call(2), call(1, versions=call(1)["versions"] | {"jax": "0.0.1"})], "has 0.0.1: install"),
    ],
)
def test_all_get_the_same_error(others, message):
    errors = roll([call(0), *others])
    assert len(set(errors)) == 1 and message in errors[0], errors


def test_a_missing_process_is_named_after_the_wait():
    began = time.monotonic()
    errors = roll([call(0), call(2)], wait=1.0)
    assert time.monotonic() - began < 20
    assert len(set(errors)) == 1 and "2 of 3 processes were there after 1 s; missing: 1." in errors[0], errors


def test_strangers_do_not_disturb_a_roll_call():
    one, other = (Member("127.0.0.1", free_port(), 2, process) for process in (0, 1))
    other = dataclasses.replace(other, port=one.port)
    with roll_call.listen(one) as ear, concurrent.futures.ThreadPoolExecutor(1) as pool:
        job = pool.submit(roll_call.take, ear, call(0, 2), 20.0)
        strangers = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(4)]
        for stranger, text in zip(
            strangers, (b"GET / HTTP/1.1\r\n\r\n", b'{"process": 1}\n', b"[1, 2]\n", b""), strict=True
        ):
            stranger.sendall(text)
        strangers.pop().close()
        line, host = roll_call.answer(other, call(1, 2))
        lines, calls = job.result()
        assert host == socket.gethostname() and list(lines) == [1] and [known["process"] for known in calls] == [0, 1]
        for open_one in (line, *lines.values(), *strangers):
            open_one.close()


def test_an_unreachable_coordinator(capsys):
    options = ["--processes=2", "--process=1", "--wait=1"]
    began = time.monotonic()
    assert cli.main(["train", "extreme", f"--coordinator=127.0.0.1:{free_port()}", *options]) == 2
    assert time.monotonic() - began < 10
    assert "process 0 could not be reached at 127.0.0.1:" in capsys.readouterr().err


def test_somebody_else_at_the_coordinators_port(capsys):
    def serve(server):
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(serve, server)
        where = f"--coordinator=127.0.0.1:{server.getsockname()[1]}"
        assert cli.main(["train", "extreme", where, "--processes=2", "--process=1", "--wait=1"]) == 2
        server.shutdown(socket.SHUT_RDWR)
    assert "it hung up, or is no process of jaxdistill" in capsys.readouterr().err


def test_a_command_for_one_process_has_no_such_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["prepare", "a.txt", "--out", "b", "--coordinator=a:1"])
    assert "unrecognized arguments: --coordinator" in capsys.readouterr().err


def test_a_line_carries_values_whole():
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = Line(socket.create_connection(server.getsockname()))
        other = Line(server.accept()[0])
    values = [{"text": "é\n" * 40_000}, 1, [None]]
    found = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: [one.send(value) for value in values])
        while len(found) < 3:
            found += other.receive()
    assert found == values
    one.close()
    assert other.receive() is None
    other.close()


def test_one_process_needs_no_agreement():
    assert distributed.gather({"a": [1]}) == [{"a": [1]}]
    mesh = sharding.make_mesh(1, 4)
    whole = np.arange(8.0)
    placed = distributed.put({"x": whole}, {"x": sharding.batch_sharding(mesh)})["x"]
    assert placed.sharding == sharding.batch_sharding(mesh) and (distributed.to_host(placed) == whole).all()


def test_sigterm_before_all_are_there_ends_as_sigterm_does():
    port = free_port()
    words = ["train", "mlm", f"--coordinator=127.0.0.1:{port}", "--processes=2", "--process=0"]
    process = Process(words, environment(1))
    try:
        wait_until(lambda: is_open(port), [process])
        process.popen.terminate()
        assert process.ended() == 143, process.said
    finally:
        process.popen.kill()


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def test_processes_that_would_part_ways_are_refused():
    with started(["train", "mlm", "--corpus=c"], 2, 1, each={1: ["--dry-run"]}) as running:
        assert [process.ended() for process in running] == [2, 2]
    assert len({process.last for process in running}) == 1
    assert "runs train, " in running[0].last and "runs train --dry-run: start all alike" in running[0].last
