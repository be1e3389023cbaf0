"""Every benchmark of speed runs, at a tiny size; the contestants of the step compute the same losses."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(script: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS",)}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--smoke", "--threads", "1", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "contestants"),
    [
        ("step.py", ("jaxdistill", "every position", "gathered")),
        ("distil.py", ("jaxdistill", "all logits", "chunked")),
    ],
)
def test_contestants_of_a_step_compute_the_same_thing(script, contestants, tmp_path):
    path = tmp_path / "found.json"
    table = run(script, "--json", str(path))
    assert all(name in table for name in contestants)
    found = json.loads(path.read_text())["found"]["float32"]
    assert tuple(found) == contestants
    losses = [[step["loss"] for step in result["steps"]] for result in found.values()]
    assert len(losses[0]) >= 3
    assert losses[0][0] > losses[0][-1] > 0
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-4)


def test_inference_runs():
    table = run("inference.py")
    assert "jax" in table and "torch" in table
