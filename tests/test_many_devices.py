"""The paper's mesh of 32 devices, emulated: every config compiles for it, in the sizes of a test."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
from tiny import KNOBS, TEACHER

from jaxdistill import bert, hf, knobs
from jaxdistill.data.vocab import read_vocabulary

ROOT = pathlib.Path(__file__).parents[1]
CODE = """
import json, sys
from jaxdistill.cli import main
for arguments in json.load(sys.stdin):
    print(">", *arguments, flush=True)
    sys.exit(1) if main(arguments) else None
"""
ROWS = {"batch": 64, "length": 16}
PRE_TRAINING = {
    "mlm": {"predictions": 3},
    "extreme": KNOBS | ROWS,
    "extreme_plus": {**KNOBS, **ROWS, "states": 1.0, "scores": 1.0},
    "cross_vocabulary": {"hidden": 8, "heads": 2, "positions": 24, "predictions": 3},
    "distilbert": {"layers": 1, "predictions": 4},
    "tinybert_general": {"size": "1x8"},
    "mixed_vocab": {"stage": 1, "hidden": 8, "heads": 2, "positions": 24, "predictions": 3},
}
OF_TASKS = {"finetune": {}, "pkd": {"layers": "none"}, "tinybert_task": {"stage": 1}}


@pytest.fixture(scope="module")
def commands(tiny_inputs, tmp_path_factory) -> list[list[str]]:
    """`train CONFIG ... --dry-run` for every config."""
    folder = tmp_path_factory.mktemp("commands")
    table = folder / "train.tsv"
    table.write_text("text\tkind\n" + "".join(f"the {x}\t{x}\n" for x in ("river", "bridge") * 64))
    config = bert.BertConfig(vocab=80, **TEACHER | {"heads": 2}, pooler=True, mlm=False, classifier=("bridge", "river"))
    hf.write_hf(
        folder / "tuned", config, bert.init(config, jax.random.key(0)), read_vocabulary(str(tiny_inputs.teacher))
    )
    corpus, teacher, tuned = str(tiny_inputs.corpus), str(tiny_inputs.teacher), str(folder / "tuned")
    given = {
        "mlm": {"vocabulary": teacher, **{name: TEACHER[name] for name in ("hidden", "layers", "heads", "positions")}},
        "finetune": {"model": teacher},
        "pkd": {"teacher": tuned, "base": teacher},
        "tinybert_task": {"teacher": tuned, "student": teacher},
    }
    made = []
    for name in knobs.names():
        if name in OF_TASKS:
            values = {"task": str(table), "columns": "first=text,label=kind", **ROWS, **given[name], **OF_TASKS[name]}
        else:
            values = {"corpus": corpus, **ROWS, **given.get(name, {"teacher": teacher}), **PRE_TRAINING[name]}
            if "vocabulary" not in values and name not in ("distilbert", "tinybert_general"):
                values["vocabulary"] = str(tiny_inputs.vocabulary)
        options = [f"--{key}={value}" for key, value in values.items()]
        made.append(["train", name, *options, f"--workdir={folder / name}", "--dry-run"])
    return made


def run(commands, devices, **more) -> subprocess.CompletedProcess:
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    return subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(commands),
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        **more,
    )


def check(done, count, mesh) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("bytes per device") == done.stdout.count(mesh) == count, done.stdout
    assert "rematerialization" not in done.stderr, "the partitioner moves whole arrays about"


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
def test_every_config_compiles_for_32_devices(fsdp, commands):
    done = run([[*command, f"--fsdp={fsdp}"] for command in commands], 32)
    check(done, len(commands), f"(data {32 // fsdp}, fsdp {fsdp})")


def test_the_papers_batch_on_32_devices_and_on_fewer(commands):
    """4,096 rows on 32 devices, sharded in four; and on 4 devices, where they are accumulated."""
    extreme = next(command for command in commands if command[1] == "extreme")
    extreme = [*(word for word in extreme if not word.startswith("--batch")), "--batch=4096"]
    check(run([[*extreme, "--fsdp=4"]], 32), 1, "(data 8, fsdp 4)")
    check(run([[*extreme, "--micro-batch=128"]], 4), 1, "512 rows at a time")
