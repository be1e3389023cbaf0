"""Whole runs in several processes: the result of one, and ends that every process notices."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from processes import started, wait_until
from test_train import TIMING, parameters

from jaxdistill import cli
from jaxdistill import train as loop
from jaxdistill.checkpoint import Checkpoints
from jaxdistill.inputs import open_inputs
from jaxdistill.metrics import read_lines

RUN = {"log_every": 1, "save_every": 2, "keep": 20}
OWN = '''
"""`extreme`, with what a test does to a process by environment variables."""
import os
import resource
import time

import numpy as np

from jaxdistill import knobs
from jaxdistill import train as loop

real_clock, real_global, step = time.time, loop.to_global, iter(range(10**6))
time.time = lambda: real_clock() + float(os.environ.get("CLOCK", 0))
if "FULL" in os.environ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FULL"]), resource.RLIM_INFINITY))


def keep(batch, place):
    rows = {f"{role}.{name}": value for role, view in batch.items() for name, value in view.items()}
    np.savez(os.path.join(os.environ["RECORD"], f"{os.getpid()}-{next(step)}.npz"), **rows)
    return real_global(batch, place)


if "RECORD" in os.environ:
    loop.to_global = keep
config = knobs.extending("extreme")(lambda made: made)
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    return path


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiled programs that runs of this file share, by processes and devices."""
    return tmp_path_factory.mktemp("programs")


def arguments(tiny_inputs, own, workdir, programs, run=None, **changes):
    workdir.mkdir(parents=True, exist_ok=True)
    if not (workdir / "programs").exists():
        (workdir / "programs").symlink_to(programs)
    made = tiny_inputs.arguments(workdir, RUN | (run or {}), **{"variant": "nokd"} | changes)
    return ["train", str(own), *made[2:]]


def values(workdir, without=TIMING):
    """Metrics by step, but for those of the clock."""
    found = read_lines(workdir / "metrics.jsonl")
    return {line["step"]: {name: value for name, value in line.items() if name not in without} for line in found}


def check_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def check_close(one, other, rtol=1e-2, atol=1e-3):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=atol, err_msg=name)


def finish(running, code=0):
    """Waits for the end of all; the seconds it took."""
    began = time.monotonic()
    for process in running:
        assert process.ended() == code, [process.said for process in running]
    return time.monotonic() - began


def check_batches(experiment, folder, processes):
    """Every process's share of every step, against the batch computed whole, row for row and bit for bit."""
    batches = open_inputs(experiment.data).batches(experiment.data, experiment.seed)
    pids = sorted({path.name.partition("-")[0] for path in folder.iterdir()})
    assert len(pids) == processes
    for step in range(experiment.steps):
        whole = {f"{role}.{name}": rows for role, view in batches(step).items() for name, rows in view.items()}
        shares = [dict(np.load(folder / f"{pid}-{step}.npz")) for pid in pids]
        for name, rows in whole.items():
            parts = {share[name].tobytes() for share in shares}
            assert parts == {part.tobytes() for part in np.split(rows, processes)}, (step, name)


def losses_agree(workdir, other, tolerance):
    """The greatest relative difference of the losses, step by step."""
    one, two = values(workdir), values(other)
    assert one.keys() == two.keys()
    worst = max(abs(one[step]["loss"] / two[step]["loss"] - 1) for step in one)
    assert worst <= tolerance, worst
    return worst


def in_one_process(tiny_inputs, workdir, run=None, **changes):
    """The same run in this process on its eight devices."""
    experiment = tiny_inputs.experiment(RUN | (run or {}), **{"variant": "nokd"} | changes)
    assert loop.train(experiment, workdir, notify=lambda line: None).finished
    return experiment


def same_result(tiny_inputs, own, tmp_path, processes, devices):
    changes = {"variant": "up", "steps": 4, "held_out": str(tiny_inputs.held_out)}
    workdir, alone, record = (tmp_path / name for name in ("several", "alone", "record"))
    record.mkdir()
    made = arguments(tiny_inputs, own, workdir, tmp_path, **changes)
    variables = {process: {"RECORD": str(record)} for process in range(processes)}
    with started(made, processes, devices, variables=variables) as running:
        experiment = in_one_process(tiny_inputs, alone, **changes)
        finish(running)
    assert "done: 4 steps" in running[0].said and "words right" in running[0].said
    assert "compiled and ran" in "".join(running[0].err)
    assert all(process.said == "" for process in running[1:]), [process.said for process in running]
    # The sums over rows are taken in another order: within a process by its devices, between processes by Gloo.
    print("greatest relative difference of a loss:", losses_agree(workdir, alone, 1e-5))
    check_batches(experiment, record, processes)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    check_close(parameters(experiment, workdir), parameters(experiment, alone))
    scores = [json.loads((folder / loop.SCORES).read_text()) for folder in (workdir, alone)]
    for role, score in scores[0]["scores"].items():
        assert score == pytest.approx(scores[1]["scores"][role], rel=1e-4)
    for line in values(workdir).values():
        assert np.isfinite(list(line.values())).all()


def test_two_processes_of_four_devices_give_the_result_of_one(tiny_inputs, own, tmp_path):
    same_result(tiny_inputs, own, tmp_path, 2, 4)


@pytest.mark.slow
def test_four_processes_of_two_devices_give_the_result_of_one(tiny_inputs, own, tmp_path):
    same_result(tiny_inputs, own, tmp_path, 4, 2)


# Stopped, killed and started again: a run of 2 x 4 that nothing interrupted is what they must end with.

LONG = {"steps": 24}


@pytest.fixture(scope="module")
def reference(tiny_inputs, own, programs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reference") / "run"
    with started(arguments(tiny_inputs, own, workdir, programs, **LONG), 2, 4) as running:
        finish(running)
    return workdir


@pytest.fixture(scope="module")
def stopped(tiny_inputs, own, programs, reference, tmp_path_factory):
    """A run whose second process received SIGTERM: its workdir, and what each process said."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    with started(arguments(tiny_inputs, own, workdir, programs, **LONG), 2, 4) as running:
        wait_until(lambda: lines_of(workdir) >= 4, running)
        running[1].popen.terminate()
        finish(running, 143)
        return workdir, [process.said for process in running]


def lines_of(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check_goes_on(tiny_inputs, own, programs, workdir, reference, **more):
    """Started again, the run ends with the bits of the one that nothing interrupted."""
    with started(arguments(tiny_inputs, own, workdir, programs, **LONG), 2, 4, **more) as running:
        finish(running)
    assert "continuing from step" in running[0].said
    experiment = tiny_inputs.experiment(RUN, variant="nokd", **LONG)
    check_equal(parameters(experiment, workdir), parameters(experiment, reference))
    assert values(workdir) == values(reference)


@pytest.mark.slow
def test_sigterm_to_one_process_saves_on_all(tiny_inputs, own, programs, reference, stopped):
    workdir, said = shutil.copytree(stopped[0], stopped[0].parent / "copy", symlinks=True), stopped[1]
    reached = max(Checkpoints(workdir / "checkpoints", readonly=True).steps())
    for text in said:
        assert f"stopped by SIGTERM after step {reached}, which is saved; the same command continues" in text, said
    assert 4 <= reached < LONG["steps"]
    check_goes_on(tiny_inputs, own, programs, workdir, reference)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["command", "parent"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_and_the_run_goes_on(tiny_inputs, own, programs, reference, tmp_path, victim, part):
    workdir = tmp_path / "run"
    with started(arguments(tiny_inputs, own, workdir, programs, **LONG), 2, 4) as running:
        wait_until(lambda: lines_of(workdir) >= 4, running)
        workers = [process.worker() for process in running]
        os.kill(workers[victim] if part == "command" else running[victim].popen.pid, signal.SIGKILL)
        began = time.monotonic()
        codes = [process.ended(60) for process in running]
        print(f"process {victim}, {part}: all ended after {time.monotonic() - began:.1f} s")
        assert codes == [2 if part == "command" or at != victim else -signal.SIGKILL for at in range(2)]
        what = "was killed by SIGKILL" if part == "command" else "has gone without a word"
        for process, code in zip(running, codes, strict=True):
            if code == 2:
                assert process.last.startswith(f"process {victim} on ") and what in process.last, process.said
        wait_gone(workers)
    check_goes_on(tiny_inputs, own, programs, workdir, reference)


def wait_gone(pids):
    ends = time.monotonic() + 10
    while alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < ends, alive
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_stops_as_sigterm_does(tiny_inputs, own, programs, reference, tmp_path):
    workdir = tmp_path / "run"
    with started(arguments(tiny_inputs, own, workdir, programs, **LONG), 2, 4) as running:
        wait_until(lambda: lines_of(workdir) >= 4, running)
        running[0].popen.send_signal(signal.SIGINT)
        assert [process.ended() for process in running] == [130, 143], [process.said for process in running]
    assert "which is saved" in running[0].said
    check_goes_on(tiny_inputs, own, programs, workdir, reference)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (4, 2), (2, 1)])
def test_a_run_goes_on_in_other_processes(tiny_inputs, own, reference, stopped, tmp_path, processes, devices):
    workdir, record = shutil.copytree(stopped[0], tmp_path / "run", symlinks=True), tmp_path / "record"
    record.mkdir()
    reached = max(Checkpoints(workdir / "checkpoints", readonly=True).steps())
    (workdir / "programs").unlink()
    variables = {process: {"RECORD": str(record)} for process in range(processes)}
    made = arguments(tiny_inputs, own, workdir, tmp_path, **LONG)
    with started(made, processes, devices, variables=variables) as running:
        finish(running)
    assert "device count was 8" in running[0].said or devices * processes == 8
    experiment = tiny_inputs.experiment(RUN, variant="nokd", **LONG)
    check_close(parameters(experiment, workdir), parameters(experiment, reference))
    batches = open_inputs(experiment.data).batches(experiment.data, experiment.seed)
    for step in range(LONG["steps"] - reached):
        expected = np.split(batches(reached + step)["student"]["ids"], processes)
        shares = [dict(np.load(path))["student.ids"].tobytes() for path in record.glob(f"*-{step}.npz")]
        assert sorted(shares) == sorted(part.tobytes() for part in expected)


@pytest.mark.slow
def test_clocks_and_hash_seeds_that_differ_change_nothing(tiny_inputs, own, programs, reference, tmp_path):
    variables = {0: {"PYTHONHASHSEED": "1", "CLOCK": "-4000"}, 1: {"PYTHONHASHSEED": "77", "CLOCK": "90000"}}
    workdir = tmp_path / "run"
    made = arguments(tiny_inputs, own, workdir, programs, **LONG)
    with started(made, 2, 4, variables=variables) as running:
        finish(running)
    experiment = tiny_inputs.experiment(RUN, variant="nokd", **LONG)
    check_equal(parameters(experiment, workdir), parameters(experiment, reference))
    assert values(workdir) == values(reference)


# Bad input: one clear line, the same on every process, within a minute.


def refused(made, codes=(2, 2), devices=4, **more):
    """The line that all processes end with."""
    began = time.monotonic()
    with started(made, len(codes), devices, **more) as running:
        found = tuple(process.ended(120) for process in running)
        assert found == codes, [process.said for process in running]
    seconds, lines = time.monotonic() - began, {process.last for process in running}
    assert len(lines) == 1, [process.said for process in running]
    print(f"{seconds:.1f} s: {lines}")
    return lines.pop()


@pytest.mark.slow
def test_two_processes_of_one_number(tiny_inputs, own, programs, tmp_path):
    made = arguments(tiny_inputs, own, tmp_path / "run", programs)
    line = refused(made, (2, 2, 2), each={2: ["--process=1"]})
    assert line.startswith("two processes have the number 1: process 1 on ") and "give each its own --process" in line


@pytest.mark.slow
def test_another_number_of_processes(tiny_inputs, own, programs, tmp_path):
    made = arguments(tiny_inputs, own, tmp_path / "run", programs)
    assert "--processes 2, process 1" in refused(made, each={1: ["--processes=3"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "told"),
    [
        (["--learning-rate=0.02"], "optimizers.student.learning_rate: 0.01 and 0.02"),
        (["--save-every=3"], "run.save_every: 2 and 3"),
        (["--corpus={held_out}"], "contents of corpus"),
        (["--corpus=/nowhere"], "process 1 on "),
        (["--workdir={elsewhere}"], "is another folder for process 1 than for process 0"),
    ],
)
def test_a_process_that_was_asked_for_something_else(tiny_inputs, own, programs, tmp_path, each, told):
    places = {"held_out": tiny_inputs.held_out, "elsewhere": tmp_path / "elsewhere"}
    made = arguments(tiny_inputs, own, tmp_path / "run", programs)
    assert told in refused(made, each={1: [word.format(**places) for word in each]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "changes", "told"),
    [
        ({"fsdp": 3}, {}, "fsdp=3 does not divide the 8 devices"),
        ({"devices": 4}, {}, "--devices is for one process"),
        ({}, {"batch": 12}, "a batch of 12 rows does not divide over 8 devices"),
    ],
)
def test_devices_that_do_not_fit(tiny_inputs, own, programs, tmp_path, run, changes, told):
    assert told in refused(arguments(tiny_inputs, own, tmp_path / "run", programs, run, **changes))


@pytest.mark.slow
def test_processes_with_other_numbers_of_devices(tiny_inputs, own, programs, tmp_path):
    few = {1: {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}}
    line = refused(arguments(tiny_inputs, own, tmp_path / "run", programs), variables=few)
    assert "process 0 has 4, process 1 has 2" in line


@pytest.mark.slow
def test_a_workdir_that_cannot_be_written(tiny_inputs, own, programs, tmp_path):
    (tmp_path / "file").touch()
    made = arguments(tiny_inputs, own, tmp_path / "run", programs)
    line = refused([*made, f"--workdir={tmp_path / 'file' / 'run'}"])
    assert "can't use" in line and "Not a directory" in line


@pytest.mark.slow
def test_a_disk_that_becomes_full(tiny_inputs, own, programs, tmp_path):
    """Process 0 can't write files of more than 10 kB: the checkpoint of step 2 fails, and the other hears of it."""
    line = refused(arguments(tiny_inputs, own, tmp_path / "run", programs), variables={0: {"FULL": "10000"}})
    assert "could not be saved" in line or "File too large" in line


@pytest.mark.slow
def test_other_versions_need_a_flag(tiny_inputs, own, programs, reference, stopped, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run", symlinks=True)
    path = workdir / "experiment.json"
    saved = json.loads(path.read_text())
    saved["packages"]["optax"] = "0.0.1"
    path.write_text(json.dumps(saved))
    made = arguments(tiny_inputs, own, workdir, programs, **LONG)
    line = refused(made)
    assert "a run of other versions" in line and "optax: '0.0.1' there" in line and "--accept versions" in line
    with started([*made, "--accept=versions"], 2, 4) as running:
        finish(running)
    assert "optax was 0.0.1, is now" in running[0].said
    experiment = tiny_inputs.experiment(RUN, variant="nokd", **LONG)
    check_equal(parameters(experiment, workdir), parameters(experiment, reference))


@pytest.mark.slow
def test_other_data_need_a_flag(tiny_inputs, own, programs, stopped, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run", symlinks=True)
    made = arguments(tiny_inputs, own, workdir, programs, **LONG, corpus=str(tiny_inputs.held_out))
    line = refused(made)
    assert "a run of other data" in line and "contents of corpus" in line and "--accept data" in line
    with started([*made, "--accept=data"], 2, 4) as running:
        finish(running)
    assert "contents of corpus was" in running[0].said


@pytest.mark.slow
def test_several_processes_score_as_one(tiny_inputs, stopped, tmp_path):
    files = [tmp_path / name for name in ("several.json", "one.json")]
    words = ["evaluate", str(stopped[0]), str(tiny_inputs.teacher), "--corpus", str(tiny_inputs.held_out), "--rows=40"]
    with started([*words, f"--json={files[0]}"], 2, 4) as running:
        finish(running)
    assert "words right" in running[0].said and running[1].said == ""
    assert cli.main([*words, f"--json={files[1]}"]) == 0
    several, one = (json.loads(path.read_text()) for path in files)
    assert several.keys() == one.keys() and len(one) == 2
    for name, scores in one.items():
        assert several[name] == pytest.approx(scores, rel=1e-5), name
