"""From what was asked for to what runs: micro-batches and commits that stay, changes that are told."""

import dataclasses
import json
import shutil

import pytest

from jaxdistill import files, hf_files, sharding
from jaxdistill.errors import UserError
from jaxdistill.inputs import open_inputs
from jaxdistill.resolve import describe, resolve
from jaxdistill.step import flops_per_step

HUB, FIRST, SECOND = "owner/teacher", "1" * 40, "2" * 40


@pytest.fixture(scope="module")
def read(tiny_inputs):
    data = tiny_inputs.experiment(variant="nokd").data
    return open_inputs(data)


@pytest.fixture
def settle(read, tmp_path):
    """Resolves an experiment; its manifest goes through JSON, as on the disk."""

    def settle(experiment, saved=None, devices=1):
        mesh = sharding.make_mesh(1, devices)
        made, current, notes = resolve(experiment, read, mesh, tmp_path, saved)
        return made, json.loads(json.dumps(current)), notes

    return settle


@pytest.fixture
def hub(tiny_inputs, monkeypatch):
    """A hub with one model, the tiny teacher, whose newest commit is `hub.newest`."""
    real = hf_files.locate

    class Hub:
        newest = FIRST

    def locate(source, revision, patterns):
        if str(source) != HUB:
            return real(source, revision, patterns)
        return tiny_inputs.teacher, revision or Hub.newest

    monkeypatch.setattr(hf_files, "locate", locate)
    return Hub


def from_hub(tiny_inputs, **changes):
    experiment = tiny_inputs.experiment(variant="dual", teacher=HUB, **changes)
    vocabularies = experiment.data.vocabularies | {"teacher": str(tiny_inputs.teacher)}
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, vocabularies=vocabularies))


def test_a_hub_model_is_pinned_to_its_commit_and_stays(tiny_inputs, settle, hub):
    made, saved, _ = settle(from_hub(tiny_inputs))
    assert made.start["teacher"].revision == FIRST == saved["config"]["start"]["teacher"]["revision"]
    assert not any("weights" in name for name in saved["data"])  # the commit says which they are
    hub.newest = SECOND
    again, _, notes = settle(from_hub(tiny_inputs), saved)
    assert again.start["teacher"].revision == FIRST and not notes
    assert settle(from_hub(tiny_inputs))[0].start["teacher"].revision == SECOND


def test_another_commit_that_was_asked_for_is_another_run(tiny_inputs, settle, hub):
    _, saved, _ = settle(from_hub(tiny_inputs))
    with pytest.raises(UserError, match=r"start\.teacher\.revision: '1+' there, '2+' now"):
        settle(from_hub(tiny_inputs, revision=SECOND), saved)


def test_a_folder_is_known_by_its_weights_wherever_it_is(tiny_inputs, settle, tmp_path, monkeypatch):
    hashed, real = [], files.sha256
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", lambda path: hashed.append(path.name) or real(path))
        _, saved, _ = settle(tiny_inputs.experiment(variant="dual"))
    assert len(saved["data"]["weights of teacher"]) == 64 and hashed == ["model.safetensors"]
    moved = shutil.copytree(tiny_inputs.teacher, tmp_path / "moved")
    settle(tiny_inputs.experiment(variant="dual", teacher=str(moved)), saved)
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="contents of weights of teacher"):
        settle(tiny_inputs.experiment(variant="dual", teacher=str(moved)), saved)


def test_the_micro_batch_is_recorded_and_kept_where_it_divides(tiny_inputs, settle):
    _, saved, _ = settle(tiny_inputs.experiment({"micro_batch": 2}, variant="nokd"))
    assert saved["config"]["run"]["micro_batch"] == 2
    assert settle(tiny_inputs.experiment(variant="nokd"), saved)[0].run.micro_batch == 2
    assert settle(tiny_inputs.experiment(variant="nokd"), saved, devices=4)[0].run.micro_batch == 2
    assert settle(tiny_inputs.experiment(variant="nokd"), saved, devices=8)[0].run.micro_batch == 1
    assert settle(tiny_inputs.experiment({"micro_batch": 4}, variant="nokd"), saved)[0].run.micro_batch == 4


def test_versions_and_devices_that_differ_are_noted(tiny_inputs, settle):
    _, saved, _ = settle(tiny_inputs.experiment(variant="nokd"))
    saved["packages"]["jax"] = "0.0.1"
    _, _, notes = settle(tiny_inputs.experiment(variant="nokd"), saved)
    assert len(notes) == 1 and notes[0].startswith("note: jax was 0.0.1, is now")


def test_a_vocabulary_larger_than_its_model_is_refused(tiny_inputs, settle):
    experiment = tiny_inputs.experiment(variant="nokd")
    small = dataclasses.replace(experiment.models["student"], vocab=50)
    with pytest.raises(UserError, match="'student' has 60 pieces, but the model 'student' only 50 rows"):
        settle(dataclasses.replace(experiment, models={"student": small}))


def test_the_description_says_what_runs(tiny_inputs, read, settle):
    made, _, _ = settle(tiny_inputs.experiment(variant="up"), devices=2)
    said = "\n".join(describe(made, read, sharding.make_mesh(1, 2)))
    for told in (
        "extreme/up: 6 steps of 8 rows of 16, seed 0",
        "student: 2 x 8, 2 heads, 60 pieces",
        "teacher: 2 x 12, 2 heads, 80 pieces",
        "mixed with student at 0.5",
        "2 x cpu (data 2, fsdp 1), 8 rows at a time",
        "padding under its own cut",
    ):
        assert told in said
    assert "matrix products" not in said, "a run of milliseconds"


def test_the_description_says_what_computes_fused_attention(tiny_inputs, read, settle):
    made, _, _ = settle(tiny_inputs.experiment(variant="nokd", attention="fused"))
    said = "\n".join(describe(made, read, sharding.make_mesh(1, 1)))
    assert "fused attention by xla (attention dropout 0)" in said


def test_a_long_run_is_told_how_long_it_takes(tiny_inputs, read, settle, monkeypatch):
    monkeypatch.setattr("jaxdistill.resolve.matmul_rate", lambda device, dtype: 1e9)
    made, _, _ = settle(tiny_inputs.experiment(variant="nokd"))
    mesh = sharding.make_mesh(1, 1)
    steps = round(7200e9 / flops_per_step(made))
    *_, last = describe(dataclasses.replace(made, steps=steps), read, mesh)
    assert last.endswith("run at 0.001 TFLOP/s here: the whole run takes at least 2.0 hours")
    *_, last = describe(dataclasses.replace(made, steps=steps // 800), read, mesh)
    assert "matrix products" not in last
