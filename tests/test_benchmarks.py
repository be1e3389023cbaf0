"""Every benchmark of speed runs, at a tiny size; the contestants of the step compute the same losses."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(script: str, *arguments: str, smoke: bool = True) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS",)}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    command += ["--smoke", "--threads", "1"] if smoke else []
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


def test_a_cached_teacher_is_measured(tiny_inputs):
    sizes = ("--length", "16", "--batch", "8", "--steps", "2", "--rounds", "1")
    table = run("cache.py", str(tiny_inputs.corpus), str(tiny_inputs.teacher), *sizes, smoke=False)
    assert "bytes a position" in table and "| cached |" in table


@pytest.fixture
def rte(tmp_path):
    """GLUE's folder with eight examples."""
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    header, row = "index\tsentence1\tsentence2\tlabel\n", "{}\tthe river\ta bridge\t{}\n"
    rows = "".join(row.format(number, ("entailment", "not_entailment")[number % 2]) for number in range(8))
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(header + rows)
    return folder.parent


def test_fine_tuning_is_compared_over_seeds_and_goes_on(tiny_inputs, rte, tmp_path):
    given = (str(tiny_inputs.teacher), "--task", "rte", "--source", str(rte), "--length", "24", "--seeds", "1")
    out = tmp_path / "runs.jsonl"
    table = run("finetune.py", *given, "--out", str(out), smoke=False)
    assert "| jaxdistill | 1 |" in table and "| transformers | 1 |" in table
    lines = out.read_text()
    assert len(lines.splitlines()) == 2
    run("finetune.py", *given, "--out", str(out), smoke=False)
    assert out.read_text() == lines


def test_students_of_several_stages_are_compared_and_a_finished_one_is_not_run_again(tiny_inputs, rte, tmp_path):
    out, bert = tmp_path / "runs.jsonl", tiny_inputs.teacher
    chain = (
        f"teacher: finetune --model {bert}",
        f"inside: tinybert_task --stage 1 --teacher {{teacher}} --student {bert}",
        "plain: tinybert_task --stage 2 --teacher {teacher} --student {inside}",
    )
    given = ("--task", "rte", "--source", str(rte), "--seeds", "0", "1", "--out", str(out))
    after = ("--workdir", str(tmp_path / "runs"), "--", "--epochs", "1", "--length", "24", "--batch", "8")
    table = run("students.py", *chain, *given, *after, smoke=False)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["contestant"], r["seed"], bool(r["scores"])) for r in records] == [
        (name, seed, name != "inside") for seed in (0, 1) for name in ("teacher", "inside", "plain")
    ]
    assert "| inside |" not in table and f"| plain | {records[0]['parameters']:,} | 2 |" in table
    share = sum(r["scores"]["accuracy"] for r in records if r["contestant"] == "plain") / sum(
        r["scores"]["accuracy"] for r in records if r["contestant"] == "teacher"
    )
    assert f"{share:.1%}" in table
    lines = out.read_text()
    assert run("students.py", *chain, *given, *after, smoke=False) == table[table.index("\nrte\n") :]
    assert out.read_text() == lines
    other = [dict(record, task="mnli", scores={"accuracy": 0.5}) for record in records if record["scores"]]
    out.write_text(lines + "".join(f"{json.dumps(record)}\n" for record in other))
    *_, teacher, plain = run("students.py", "--report", "--out", str(out), smoke=False).splitlines()
    assert teacher.endswith("| 50.0 ± 0.0 | 100.0% |") and plain.endswith(f"| 50.0 ± 0.0 | {(share + 1) / 2:.1%} |")


def test_candidates_of_augmentation_are_those_of_torch(tiny_inputs, rte):
    sizes = ("--task", "rte", "--source", str(rte), "--rounds", "1", "--threads", "1")
    table = run("augment.py", str(tiny_inputs.teacher), *sizes, smoke=False)
    contestants = ("jaxdistill", "one by one", "256 pieces", "1,024 pieces", "4,096 pieces")
    assert all(re.search(rf"\| {name} \| .*\| 100\.0% \|", table) for name in contestants)
