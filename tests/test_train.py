"""Runs in a workdir: stopped, killed, damaged and moved, they go on to the same bits or say why not."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxdistill
from jaxdistill import cli, files, signals, stopwatch
from jaxdistill import step as steps
from jaxdistill import train as loop
from jaxdistill.checkpoint import Checkpoints, abstract
from jaxdistill.errors import UserError
from jaxdistill.inputs import Inputs, open_inputs
from jaxdistill.lock import locked
from jaxdistill.metrics import read_lines

STEPS, STOP = 6, 3
TIMING = {"positions_per_second", "data_wait", "mfu"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiled programs that the runs of this file share."""
    return tmp_path_factory.mktemp("programs")


def fresh(workdir, programs):
    workdir.mkdir(parents=True)
    (workdir / "programs").symlink_to(programs)
    return workdir


def one_device(tiny_inputs, run=None, **changes):
    run = {"devices": 1, "log_every": 1} | (run or {})
    return tiny_inputs.experiment(run, **{"variant": "nokd", "steps": STEPS} | changes)


def train(experiment, workdir, **more):
    """Trains; the result, and what was said."""
    said = []
    return loop.train(experiment, workdir, notify=said.append, **more), "\n".join(said)


def train_until(monkeypatch, step, experiment, workdir):
    """Trains from the start until SIGTERM arrives during a step."""
    with monkeypatch.context() as patch:
        real, calls = signals.catching, []

        @contextlib.contextmanager
        def catching():
            with real() as stopped:

                def count():
                    calls.append(None)
                    if len(calls) == step:
                        os.kill(os.getpid(), signal.SIGTERM)
                    return stopped()

                yield count

        patch.setattr(signals, "catching", catching)
        return train(experiment, workdir)


def parameters(experiment, workdir, step=None):
    """The trained trees and the optimizer in a checkpoint, by name."""
    state = steps.kept(steps.init_state(experiment))
    with Checkpoints(workdir / loop.CHECKPOINTS, readonly=True) as checkpoints:
        state = jax.device_get(checkpoints.restore(abstract(state), step))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def lines(workdir):
    """The metrics file without what depends on the clock."""
    found = read_lines(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMING} for line in found]


def check_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


@pytest.fixture(scope="module")
def whole(tiny_inputs, programs, tmp_path_factory):
    """A run that nothing interrupted: its workdir, result, and what it said."""
    workdir = fresh(tmp_path_factory.mktemp("whole") / "run", programs)
    result, said = train(one_device(tiny_inputs, held_out=str(tiny_inputs.held_out)), workdir)
    return workdir, result, said


@pytest.fixture(scope="module")
def stopped(tiny_inputs, programs, tmp_path_factory, whole):
    """A run that a signal stopped half-way: its workdir and what it said. Tests copy it."""
    workdir = fresh(tmp_path_factory.mktemp("stopped") / "run", programs)
    with pytest.MonkeyPatch.context() as monkeypatch:
        result, said = train_until(monkeypatch, STOP, one_device(tiny_inputs), workdir)
    assert (result.step, result.finished, result.scores) == (STOP, False, {})
    return workdir, said


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of the stopped run."""
    return shutil.copytree(stopped[0], tmp_path / "half", symlinks=True)


@pytest.fixture(scope="module")
def goal(tiny_inputs, whole):
    """What every run of these settings must end with."""
    return parameters(one_device(tiny_inputs), whole[0])


def test_a_fresh_run_leaves_what_it_promises(tiny_inputs, whole):
    workdir, result, said = whole
    assert result.finished and result.step == STEPS and set(result.scores) == {"student"}
    assert [line["step"] for line in lines(workdir)] == list(range(1, STEPS + 1))
    for line in read_lines(workdir / "metrics.jsonl"):
        assert 0 < line["student_mlm"] < 10 and "finite" not in line
        assert (line["step"] == 1) != ("positions_per_second" in line)  # the first one is the compiler's
        assert 0 <= line.get("data_wait", 0) <= 1
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    assert (workdir / "vocabularies" / "student" / "vocab.txt").exists()
    assert json.loads((workdir / "experiment.json").read_text())["config"]["run"]["micro_batch"] == 8
    assert "1 x cpu" in said and f"done: {STEPS} steps" in said


def test_a_finished_run_says_so_and_stays(tiny_inputs, whole, monkeypatch):
    workdir, result, _ = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(loop._Run, "go_on", None)
    monkeypatch.setattr(loop._Run, "_score", None)
    again, said = train(one_device(tiny_inputs, held_out=str(tiny_inputs.held_out)), workdir)
    assert again == result and "done" in said
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_what_is_left_out_does_not_count_as_time_of_steps(monkeypatch):
    class Ahead:
        waited = 0.0

    now, ahead = [100.0], Ahead()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    clock = stopwatch.Clock(ahead)

    def spend(seconds, waiting=0.0):
        now[0] += seconds
        ahead.waited += waiting

    spend(2.0, 0.5)
    clock.read(10)
    clock.pause()
    spend(50.0, 9.0)  # compiling
    clock.resume()
    spend(1.0)
    clock.read(20)
    assert clock.lap() == (30, 3.0, 0.5)
    spend(7.0)  # saving
    clock.resume()
    spend(4.0, 1.0)
    clock.read(5)
    assert clock.lap() == (5, 4.0, 1.0)


def test_a_finished_run_is_scored_again_on_other_rows(tiny_inputs, whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "again", symlinks=True)
    result, _ = train(one_device(tiny_inputs, {"score_rows": 5}, held_out=str(tiny_inputs.held_out)), workdir)
    saved = json.loads((workdir / "scores.json").read_text())
    assert saved["rows"] == 5 and saved["scores"]["student"]["words"] == result.scores["student"]["words"]
    assert result.scores["student"]["words"] < whole[1].scores["student"]["words"]


def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(tiny_inputs, whole, stopped, half, goal):
    assert f"stopped by SIGTERM after step {STOP}, which is saved; the same command continues" in stopped[1]
    assert Checkpoints(half / "checkpoints", readonly=True).steps() == [2, STOP]
    result, said = train(one_device(tiny_inputs), half)
    assert result.finished and f"continuing from step {STOP} of {STEPS}" in said
    check_same(parameters(one_device(tiny_inputs), half), goal)
    assert lines(half) == lines(whole[0])


def test_few_steps_wait_to_be_computed_so_a_signal_is_obeyed_soon(tiny_inputs, tmp_path, monkeypatch):
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 60, lambda _, y: y @ x, x)[0, 0])
    matrix, made, waiting, real = jax.numpy.ones((500, 500)), [], [], steps.make_train_step

    def slower(*arguments):
        update = real(*arguments)

        def step(state, batch):
            waiting.append(sum(not value.is_ready() for value in made))
            state, metrics = update(state, batch)
            made.append(work(matrix))
            return state, metrics | {"work": (made[-1], jax.numpy.ones(()))}

        return step

    monkeypatch.setattr(steps, "make_train_step", slower)
    train(one_device(tiny_inputs, {"log_every": 9, "save_every": 9}), tmp_path / "run")
    assert len(waiting) == STEPS and max(waiting) <= loop.AHEAD


def test_a_signal_in_the_last_step_is_no_stop(tiny_inputs, programs, workdir, monkeypatch):
    result, said = train_until(monkeypatch, 2, one_device(tiny_inputs, steps=2), fresh(workdir, programs))
    assert result.finished and "stopped" not in said


def test_metrics_after_the_last_checkpoint_are_cut(tiny_inputs, whole, half, goal):
    """As after a kill between a line and its checkpoint, or within a line."""
    with open(half / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": STOP + 1, "loss": 1.0}) + '\n{"step": 5, "lo')
    train(one_device(tiny_inputs), half)
    assert lines(half) == lines(whole[0])


def test_an_unfinished_save_is_removed(tiny_inputs, half, goal):
    shutil.copytree(half / "checkpoints" / "2", half / "checkpoints" / "9")
    (half / "checkpoints" / "partial-9").write_text("")
    _, said = train(one_device(tiny_inputs), half)
    assert "checkpoints/9: a save or a removal that was not finished" in said
    check_same(parameters(one_device(tiny_inputs), half), goal)


def test_a_run_that_was_killed_before_its_first_save_starts_again(tiny_inputs, whole, half, goal):
    shutil.rmtree(half / "checkpoints")
    train(one_device(tiny_inputs), half)
    check_same(parameters(one_device(tiny_inputs), half), goal)
    assert lines(half) == lines(whole[0])


def test_a_damaged_checkpoint_is_refused_and_passed_over(tiny_inputs, half, goal):
    largest = max((half / "checkpoints" / str(STOP)).rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(UserError, match="--fallback"):
        train(one_device(tiny_inputs), half)
    _, said = train(one_device(tiny_inputs), half, fallback=True)
    assert "going on from the checkpoint of step 2" in said and (half / "checkpoints" / f"bad-{STOP}").is_dir()
    check_same(parameters(one_device(tiny_inputs), half), goal)


def test_checkpoints_without_a_manifest_are_refused(tiny_inputs, half):
    (half / "experiment.json").unlink()
    with pytest.raises(UserError, match=r"checkpoints but no experiment\.json"):
        train(one_device(tiny_inputs), half)


def test_another_config_is_refused_by_the_names_of_its_fields(tiny_inputs, half):
    before = (half / "experiment.json").read_bytes()
    with pytest.raises(UserError) as caught:
        train(one_device(tiny_inputs, learning_rate=0.5, seed=3), half)
    for told in ("optimizers.student.learning_rate: 0.01 there, 0.5 now", "seed: 0 there, 3 now"):
        assert told in str(caught.value)
    assert "data." not in str(caught.value) and (half / "experiment.json").read_bytes() == before


def test_how_a_run_runs_may_change(tiny_inputs, half, goal):
    how = {"devices": 2, "micro_batch": 2, "log_every": 5, "prefetch": 1, "save_every": 3, "keep": 3, "unroll": 2}
    train(one_device(tiny_inputs, how), half)
    for name, leaf in parameters(one_device(tiny_inputs), half).items():
        np.testing.assert_allclose(leaf, goal[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_a_deterministic_run_computes_the_same_on_a_cpu(tiny_inputs, half, goal):
    train(one_device(tiny_inputs, {"deterministic": True}), half)
    check_same(parameters(one_device(tiny_inputs), half), goal)


def test_the_corpus_may_move_but_not_change(tiny_inputs, half, tmp_path, goal):
    moved = shutil.copytree(tiny_inputs.corpus, tmp_path / "moved")
    with pytest.raises(UserError, match="contents of corpus"):
        train(one_device(tiny_inputs, corpus=str(tiny_inputs.held_out)), half)
    train(one_device(tiny_inputs, corpus=str(moved)), half)
    check_same(parameters(one_device(tiny_inputs), half), goal)


def test_a_second_process_is_refused(tiny_inputs, half):
    before = sorted(path.name for path in half.rglob("*"))
    with locked(half), pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        train(one_device(tiny_inputs), half)
    assert sorted(path.name for path in half.rglob("*")) == before


def test_programs_are_kept_in_each_workdir(tiny_inputs, whole, stopped, programs, tmp_path):
    names = {path.name for path in programs.iterdir()}
    assert any("jit_step" in name for name in names)
    workdir = tmp_path / "own"
    train(one_device(tiny_inputs, steps=1), workdir)
    assert any("jit_step" in path.name for path in (workdir / "programs").iterdir())
    assert {path.name for path in programs.iterdir()} == names
    assert jax.config.jax_compilation_cache_dir is None


def test_a_run_goes_on_on_other_devices(tiny_inputs, programs, workdir, monkeypatch, goal):
    fresh(workdir, programs)
    for devices, until in ((8, 2), (2, 2), (8, STEPS)):
        result, said = train_until(monkeypatch, until, one_device(tiny_inputs, {"devices": devices}), workdir)
        assert f"{devices} x cpu" in said
    assert result.finished
    for name, leaf in parameters(one_device(tiny_inputs), workdir).items():
        np.testing.assert_allclose(leaf, goal[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_inputs, programs, workdir, capsys):
    """A rate of 1e30 breaks the second step; it shows at the next line or save, the batch is that step's."""
    fresh(workdir, programs)
    run = {"devices": 1, "log_every": 5, "save_every": 1}
    assert cli.main(tiny_inputs.arguments(workdir, run, variant="nokd", learning_rate=1e30)) == 2
    assert f"{loop.BAD_BATCH}, the last good checkpoint is that of step 1" in capsys.readouterr().err
    later = fresh(workdir.parent / "later", programs)
    experiment = tiny_inputs.experiment(run | {"save_every": 4, "log_every": 4}, variant="nokd", learning_rate=1e30)
    with pytest.raises(UserError, match="no checkpoint was saved yet"):
        train(experiment, later)
    batches = open_inputs(experiment.data).batches(experiment.data, 0)
    for folder in (workdir, later):
        saved = dict(np.load(folder / loop.BAD_BATCH))
        assert saved.pop("step") == 1
        check_same(saved, {f"student.{name}": rows for name, rows in batches(1)["student"].items()})
    assert all(np.isfinite(leaf).all() for leaf in parameters(experiment, workdir, 1).values())
    assert not (later / "metrics.jsonl").read_bytes()


def test_an_error_in_a_batch_ends_the_run_where_it_came(tiny_inputs, programs, workdir, monkeypatch):
    real = Inputs.batches

    def broken(*arguments):
        batches = real(*arguments)

        def at(step, *share):
            if step == 3:
                raise UserError("the disk with the corpus is gone")
            return batches(step, *share)

        return at

    monkeypatch.setattr(Inputs, "batches", broken)
    with pytest.raises(UserError, match="the disk with the corpus is gone"):
        train(one_device(tiny_inputs), fresh(workdir, programs))
    assert Checkpoints(workdir / "checkpoints", readonly=True).steps() == [2]


# Child processes.


def start(arguments):
    root = pathlib.Path(jaxdistill.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxdistill.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def count_lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(child, condition, seconds=300):
    """Polls until the condition holds; False when the child has ended before."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        if child.poll() is not None:
            return False
        time.sleep(0.0005)
    child.kill()
    raise AssertionError(f"nothing happened for {seconds} s: {child.communicate()[0]}")


def saving(workdir):
    return any((workdir / "checkpoints").glob("partial-*"))


def test_kills_and_a_signal_leave_no_trace(tiny_inputs, programs, tmp_path):
    """kill -9 within a save, soon after a line and at once; then SIGTERM; then the same command to the end."""
    settings, run = {"variant": "nokd", "steps": 40}, {"devices": 1, "log_every": 1, "save_every": 1}
    experiment = tiny_inputs.experiment(run, **settings)
    reference, workdir = (fresh(tmp_path / name, programs) for name in ("reference", "killed"))
    train(experiment, reference)
    arguments = tiny_inputs.arguments(workdir, run, **settings)
    for instant in ("save", "line", "start"):
        child, before = start(arguments), count_lines(workdir)
        if instant == "save":
            assert wait_for(child, lambda: count_lines(workdir) > 2 and saving(workdir))
        elif instant == "line":
            assert wait_for(child, lambda before=before: count_lines(workdir) > before + 3)
        else:
            time.sleep(1.0)
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    child, before = start(arguments), count_lines(workdir)
    assert wait_for(child, lambda: count_lines(workdir) != before)
    child.terminate()
    said = child.communicate()[0]
    assert child.returncode == 143 and "stopped by SIGTERM after step" in said, said
    reached = max(Checkpoints(workdir / "checkpoints", readonly=True).steps())
    assert f"after step {reached}, which is saved" in said and reached < 40
    child = start(arguments)
    said = child.communicate()[0]
    assert child.returncode == 0 and f"continuing from step {reached} of 40" in said, said
    assert "Warning" not in said and "Error" not in said, said
    check_same(parameters(experiment, workdir), parameters(experiment, reference))
    assert lines(workdir) == lines(reference)


@pytest.mark.slow
def test_many_kills_leave_no_trace(tiny_inputs, programs, tmp_path):
    """Twelve kills: within saves, soon after lines, and at random instants from the start on; `up`, with all files."""
    settings, run = {"variant": "up", "steps": 80}, {"devices": 1, "log_every": 1, "save_every": 1, "tensorboard": True}
    experiment = tiny_inputs.experiment(run, **settings)
    reference, workdir = (fresh(tmp_path / name, programs) for name in ("reference", "killed"))
    train(experiment, reference)
    arguments, draw, instants = tiny_inputs.arguments(workdir, run, **settings), random.Random(5), []
    for number in range(12):
        child, before = start(arguments), count_lines(workdir)
        if number % 3:
            lines_more = draw.randint(1, 4)
            wait_for(child, lambda before=before, more=lines_more: count_lines(workdir) >= before + more)
        if number % 3 == 0:
            time.sleep(draw.uniform(0, 8))
        elif number % 3 == 1:
            time.sleep(draw.uniform(0, 0.2))
        else:
            wait_for(child, lambda: saving(workdir))
        child.kill()
        said = child.communicate()[0]
        assert child.returncode == -signal.SIGKILL, said
        instants.append((count_lines(workdir), saving(workdir)))
    child = start(arguments)
    said = child.communicate()[0]
    assert child.returncode == 0, said
    print("killed after lines", instants)
    assert sum(within for _, within in instants) >= 3
    check_same(parameters(experiment, workdir), parameters(experiment, reference))
    assert lines(workdir) == lines(reference)
    assert files.read_json(workdir / "experiment.json") == files.read_json(reference / "experiment.json")
