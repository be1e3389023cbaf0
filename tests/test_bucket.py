"""Runs in a bucket: the same numbers as on a disk, stopped, killed, damaged and continued. The bucket is a fake."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_metrics import read_events

from jaxdistill import cli
from jaxdistill import step as steps
from jaxdistill import train as loop
from jaxdistill.checkpoint import Checkpoints, abstract
from jaxdistill.errors import UserError
from jaxdistill.export import export, is_run
from jaxdistill.metrics import read_lines
from jaxdistill.places import file_names, place

ROOT = pathlib.Path(__file__).parents[1]
TIMING = {"positions_per_second", "data_wait", "mfu"}
RUN = {"devices": 1, "log_every": 1, "tensorboard": True}


def lines(workdir):
    found = read_lines(place(workdir) / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMING} for line in found]


def parameters(experiment, workdir):
    state = steps.kept(steps.init_state(experiment))
    with Checkpoints(place(workdir) / loop.CHECKPOINTS, readonly=True) as checkpoints:
        return jax.device_get(checkpoints.restore(abstract(state)))


def check_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def train(experiment, workdir, programs, **more):
    said = []
    return loop.train(experiment, workdir, notify=said.append, programs=programs, **more), "\n".join(said)


def test_a_run_in_a_bucket_is_the_run_on_a_disk(tiny_inputs, tmp_path, bucket):
    name = f"gs://tests/{tmp_path.name}/run"
    experiment = tiny_inputs.experiment(RUN, variant="nokd", held_out=str(tiny_inputs.held_out))
    local, _ = train(experiment, tmp_path / "run", tmp_path / "programs")
    with pytest.raises(UserError, match="is not the workdir of a run"):
        export(name, tmp_path / "out")
    result, said = train(experiment, name, tmp_path / "programs")
    assert result.finished and result.scores == local.scores and f"{name}/scores.json" in said
    assert lines(name) == lines(tmp_path / "run")
    check_same(parameters(experiment, name), parameters(experiment, tmp_path / "run"))
    there = set(file_names(place(name)))
    assert {"experiment.json", "metrics.jsonl", "scores.json", "vocabularies/student/vocab.txt"} <= there
    assert not [file for file in there if "partial-" in file or file.startswith(("lock", "checkpoints/2/"))]
    events, board = tmp_path / "events", tmp_path / "run" / "tensorboard"
    events.mkdir()
    for file in there:
        if file.startswith("tensorboard/"):
            (events / pathlib.PurePosixPath(file).name).write_bytes((place(name) / file).read_bytes())
    scalars = [[event for event in read_events(folder) if event[1] not in TIMING] for folder in (events, board)]
    assert scalars[0] == scalars[1] and len(scalars[0]) > 20
    again, said = train(experiment, name, tmp_path / "programs")
    assert again.finished and again.scores == result.scores and "continuing from step 6 of 6" in said
    assert is_run(name)
    export(name, tmp_path / "out")
    export(tmp_path / "run", tmp_path / "out2")
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("out", "out2")]
    assert weights[0] == weights[1]


def test_what_reads_runs_reads_them_in_a_bucket(tiny_inputs, tmp_path, bucket, capsys):
    """A sweep by `finetune` with profiler's traces; `evaluate` and `compare` of its runs beside one on a disk."""
    name, programs = f"gs://tests/{tmp_path.name}/sweep", tmp_path / "programs"
    changes = {"variant": "nokd", "steps": 4, "held_out": str(tiny_inputs.held_out)}
    there = tiny_inputs.arguments(name, RUN | {"profile": 1}, **changes)
    assert cli.main(["finetune", *there[1:], "--seeds", "2"]) == 0
    train(tiny_inputs.experiment(RUN, **changes), tmp_path / "run", programs)
    traces = [file for file in file_names(place(name)) if file.endswith(".xplane.pb")]
    assert len(traces) == 2 and all((place(name) / file).stat().length for file in traces)
    results = json.loads((place(name) / "results.json").read_text())
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    run = f"{name}/seed-0"
    capsys.readouterr()
    assert results[0]["scores"]["piece_accuracy"][0] == scores["scores"]["student"]["piece_accuracy"]
    assert cli.main(["evaluate", run, str(tmp_path / "run"), "--corpus", str(tiny_inputs.held_out)]) == 0
    rows = [line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert rows[0] == rows[1] and len(rows[0]) > 3
    assert cli.main(["compare", run, str(tmp_path / "run"), "--out", str(tmp_path / "compared")]) == 0
    assert json.loads((tmp_path / "compared" / "compare.json").read_text())


def test_a_damaged_checkpoint_in_a_bucket_is_refused_and_passed_over(tiny_inputs, tmp_path, bucket):
    name = f"gs://tests/{tmp_path.name}/run"
    experiment = tiny_inputs.experiment(RUN, variant="nokd")
    train(experiment, tmp_path / "run", tmp_path / "programs")
    train(experiment, name, tmp_path / "programs")
    damaged = place(name) / "checkpoints" / "6"
    largest = max(file_names(damaged), key=lambda file: len((damaged / file).read_bytes()))
    (damaged / largest).write_bytes((damaged / largest).read_bytes()[:-1])
    with pytest.raises(UserError, match=re.escape(f"{damaged / largest} is torn")):
        train(experiment, name, tmp_path / "programs")
    result, said = train(experiment, name, tmp_path / "programs", fallback=True)
    assert result.finished and "set it aside as" in said and "going on from the checkpoint of step 4" in said
    assert lines(name) == lines(tmp_path / "run")
    check_same(parameters(experiment, name), parameters(experiment, tmp_path / "run"))


CLI = """
import sys
import fake_bucket
from jaxdistill import lease
fake_bucket.connect()
lease.RENEWED, lease.SILENT, lease.WATCHED = 0.2, 2, 0.1
from jaxdistill.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(arguments):
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": folders, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", CLI, *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_kills_in_a_bucket_leave_no_trace(tiny_inputs, tmp_path, bucket):
    """Kills within saves and at random instants; and SIGTERM; a second run is refused while the first one lives."""
    name, settings = f"gs://tests/{tmp_path.name}/run", {"variant": "nokd", "steps": 60}
    run = RUN | {"save_every": 2}
    experiment = tiny_inputs.experiment(run, **settings)
    train(experiment, tmp_path / "run", tmp_path / "programs")
    arguments, draw, within = tiny_inputs.arguments(name, run, **settings), random.Random(3), 0
    folder = f"{tmp_path.name}/run/"

    def partial():
        return any("/partial-" in found for found in bucket.names("tests", folder + "checkpoints/"))

    def saved():
        found = bucket.names("tests", folder + "checkpoints/")
        return max([0, *(int(key.split("/")[3]) for key in found if key.endswith("seal.json"))])

    for number in range(6):
        child, before, ends = start(arguments), saved(), time.monotonic() + 300
        while child.poll() is None and time.monotonic() < ends and not (saved() > before and (partial() or number % 2)):
            time.sleep(0.001)
        time.sleep(0 if number % 2 == 0 else draw.uniform(0, 0.3))
        if number == 3:
            with pytest.raises(UserError, match="is in use by process"):
                train(experiment, name, tmp_path / "programs")
        child.send_signal(signal.SIGTERM if number == 5 else signal.SIGKILL)
        said = child.communicate()[0]
        assert child.returncode == (143 if number == 5 else -signal.SIGKILL), said
        within += partial()
    child = start(arguments)
    said = child.communicate(timeout=600)[0]
    assert child.returncode == 0 and "continuing from step" in said, said
    assert within >= 1
    assert lines(name) == lines(tmp_path / "run")
    check_same(parameters(experiment, name), parameters(experiment, tmp_path / "run"))


@pytest.mark.slow
def test_the_real_client_with_the_fake_server(tmp_path, bucket):
    """gcsfs in the place of the tests' own client: `pip install 'jaxdistill[gcs]'`."""
    pytest.importorskip("gcsfs")
    code = f"""
        import jax.numpy as jnp
        from jaxdistill.checkpoint import Checkpoints
        from jaxdistill.lock import locked
        from jaxdistill.places import file_names, place
        folder = place("gs://tests/{tmp_path.name}")
        state = {{"a": jnp.arange(6.0), "step": jnp.int32(0)}}
        with locked(folder), Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
            for step in (1, 2, 3):
                checkpoints.save(step, state | {{"step": jnp.int32(step)}}, wait=True)
            assert checkpoints.steps() == [2, 3]
            assert int(checkpoints.restore(state)["step"]) == 3
            (folder / "checkpoints" / "3" / file_names(folder / "checkpoints" / "3")[-1]).unlink()
            assert int(checkpoints.restore(state, fallback=True)["step"]) == 2
        print(file_names(folder))
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "bad-3/seal.json" in done.stdout and "lock" not in done.stdout
