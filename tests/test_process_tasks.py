"""Tasks and caches in several processes: the result of one, and a sweep that all of them stop."""

import json
import signal

import numpy as np
import pytest
from processes import started, wait_until
from test_cache import OWN
from test_cli_tasks import SST2, written
from test_processes import finish, losses_agree
from toy_tasks import write_glue

from jaxdistill.cache import NAME
from jaxdistill.train import SCORES

pytestmark = pytest.mark.slow
KNOBS = ["--task=sst2", "--batch=4", "--length=16", "--log-every=1", "--save-every=5", "--no-tensorboard"]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A fine-tuned model of random numbers, and the rows of a task; tests only read them."""
    folder = tmp_path_factory.mktemp("task")
    written(folder / "teacher", "sst2")
    for split in ("train", "dev"):
        write_glue(folder, "sst2", split, SST2)
    return folder


def sweep(task, workdir, epochs):
    models = [f"--teacher={task / 'teacher'}", "--depth=2", f"--source={task}", "--layers=last"]
    return ["finetune", "pkd", *models, *KNOBS, f"--epochs={epochs}", "--seeds=2", f"--workdir={workdir}"]


def read(path):
    return json.loads(path.read_text())


def test_a_sweep_on_a_task_and_its_scores(task, tmp_path):
    for processes in (1, 2):
        with started(sweep(task, tmp_path / str(processes), 2), processes, 4 // processes) as running:
            finish(running)
        assert "seed 1" in running[0].said and all(not process.out for process in running[1:])
    one, two = tmp_path / "1", tmp_path / "2"
    for seed in ("seed-0", "seed-1"):
        print("greatest relative difference of a loss:", losses_agree(two / seed, one / seed, 1e-5))
        assert read(two / seed / SCORES)["scores"] == read(one / seed / SCORES)["scores"]
    assert read(two / "results.json")[0]["scores"] == read(one / "results.json")[0]["scores"]
    with started(["evaluate", str(two / "seed-0"), f"--json={tmp_path / 'scores.json'}"], 2, 2) as running:
        finish(running)
    scores = {
        found["scores"]["accuracy"] for name, found in read(tmp_path / "scores.json").items() if "teacher" not in name
    }
    assert scores == {read(two / "seed-0" / SCORES)["scores"]["student"]["accuracy"]}


def test_sigterm_stops_a_sweep_in_its_second_run(task, tmp_path):
    lines = tmp_path / "runs" / "seed-1" / "metrics.jsonl"
    with started(sweep(task, tmp_path / "runs", 30), 2, 2) as running:
        wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 3, running)
        running[1].popen.send_signal(signal.SIGTERM)
        finish(running, 143)
    assert "which is saved; the same command continues" in running[0].said
    assert not (tmp_path / "runs" / "results.json").exists()


def test_a_cache_is_that_of_one_process(tiny_inputs, tmp_path):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    given = [str(tmp_path / "own.py"), f"--teacher={tiny_inputs.teacher}", f"--corpus={tiny_inputs.corpus}"]
    for processes in (1, 2):
        with started(["cache", *given, f"--out={tmp_path / str(processes)}", "--top=4"], processes, 2) as running:
            finish(running)
    assert "bytes a position" in running[0].said and not running[1].out
    names = sorted(path.name for path in (tmp_path / "1").glob("*.npy"))
    assert names and read(tmp_path / "2" / NAME)["key"] == read(tmp_path / "1" / NAME)["key"]
    for name in names:
        one, two = (np.load(tmp_path / folder / name) for folder in "12")
        assert one.dtype == two.dtype and one.shape == two.shape
        if one.dtype == np.float16:
            np.testing.assert_allclose(one.astype(float), two.astype(float), rtol=2e-3, atol=2e-3)
        else:
            assert np.mean(one != two) < 0.01, name
    with started(["cache", *given, f"--out={tmp_path / '2'}"], 2, 1) as running:
        finish(running, 2)
    assert all("exists already" in process.said for process in running)
