import io
import json
import math
import os
import pathlib
import struct
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.errors import UserError
from jaxdistill.events import cut_events
from jaxdistill.metrics import MetricsLog, cut_lines, means, read_lines
from jaxdistill.progress import Progress

# Sums and counts


def test_means_are_sums_over_counts():
    sums = [
        {"loss": (jnp.float32(step + 0.5), jnp.int32(2)), "empty": (jnp.float32(0), jnp.int32(0))} for step in range(3)
    ]
    got = means(sums)
    assert got["loss"] == 4.5 / 6 and math.isnan(got["empty"])
    assert means([]) == {}


def test_means_add_in_float64():
    steps = [{"loss": (np.float32(1 / 3), 1)}] * 10_000
    assert means(steps)["loss"] == pytest.approx(float(np.float32(1 / 3)), rel=1e-12)


def test_the_device_is_waited_for_once(monkeypatch):
    fetched = []
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(1) or tree)
    means([{"loss": (jnp.float32(1), jnp.int32(1))}] * 5)
    assert len(fetched) == 1


# JSONL


def test_lines_hold_floats_to_the_last_bit(tmp_path):
    values = {"third": 1 / 3, "tiny": 5e-324, "single": float(np.float32(0.1)), "nan": math.nan, "low": -math.inf}
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(7, values)
        log.write(8, {"loss": np.float32(0.1)})
    first, second = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert first == {"step": 7, **values, "nan": "nan", "low": "-inf"}
    assert math.isnan(float(first["nan"])) and float(first["low"]) == -math.inf
    assert second == {"step": 8, "loss": float(np.float32(0.1))}


def test_a_line_is_a_single_write(tmp_path, monkeypatch):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        writes, write = [], os.write
        monkeypatch.setattr(os, "write", lambda handle, data: writes.append(data) or write(handle, data))
        log.write(1, {f"metric {i}": i / 7 for i in range(500)})
        assert len(writes) == 1 and writes[0].endswith(b"}\n")


def test_resuming_cuts_back_and_no_step_appears_twice(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in range(0, 60, 10):
            log.write(step, {"loss": step / 3})
            log.write(step, {"held_out": step / 7})
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step": 20, "los')
    with MetricsLog(tmp_path, 30, tensorboard=False) as log:
        for step in (40, 50):
            log.write(step, {"loss": step / 3})
            log.write(step, {"held_out": step / 7})
    assert path.read_bytes() == before
    with MetricsLog(tmp_path, tensorboard=False):
        assert path.read_bytes() == b""


def test_every_torn_end_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": step / 3, "é": "nan"}, ensure_ascii=False) + "\n" for step in range(4)]
    whole = "".join(lines).encode()
    ends = np.cumsum([len(line.encode()) for line in lines])
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert len(read_lines(path)) == int((ends <= length).sum())
        cut_lines(path, 1)
        assert path.read_bytes() == whole[: max([0, *(end for end in ends[:2] if end <= length)])]


def test_cutting_is_atomic(tmp_path, monkeypatch):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": 1.0})
        log.write(2, {"loss": 2.0})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=f"can't write metrics in {tmp_path}: No space"):
        MetricsLog(tmp_path, 1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk(tmp_path, monkeypatch):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        monkeypatch.setattr(os, "write", lambda handle, data: len(data) // 2)
        with pytest.raises(UserError, match=f"{tmp_path}: no space left"):
            log.write(1, {"loss": 1.0})
        with pytest.raises(ValueError, match="named step"):
            log.write(1, {"step": 1.0})


# TensorBoard, read by another library's protocol buffers


def read_events(folder):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    crc32c = pytest.importorskip("tensorboardX.crc32c").crc32c

    def masked(data):
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32

    found = []
    for path in sorted(pathlib.Path(folder).glob("*tfevents*")):
        data, at, versions = path.read_bytes(), 0, []
        while at < len(data):
            (length,), (crc,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
            assert crc == masked(data[at : at + 8])
            body = data[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked(body)
            event = event_pb2.Event.FromString(body)
            versions.append(event.file_version)
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 16 + length
        assert versions[0] == "brain.Event:2" and not any(versions[1:])
    return found


def test_events_are_what_tensorboard_reads(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": 0.1, "huge": 1e300})
        log.write(2**40, {"name é": math.nan})
    got = read_events(tmp_path / "tensorboard")
    assert got[:2] == [(1, "loss", float(np.float32(0.1))), (1, "huge", math.inf)]
    assert got[2][:2] == (2**40, "name é") and math.isnan(got[2][2])


def test_events_are_cut_back(tmp_path):
    for resume, steps in ((None, range(5)), (3, range(4, 9)), (7, range(8, 12)), (2, range(3, 6))):
        with MetricsLog(tmp_path, resume) as log:
            for step in steps:
                log.write(step, {"loss": float(step)})
    want = [(step, "loss", float(step)) for step in range(6)]
    assert read_events(tmp_path / "tensorboard") == want
    with MetricsLog(tmp_path):
        assert read_events(tmp_path / "tensorboard") == []


def test_every_torn_event_is_cut(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(3):
            log.write(step, {"loss": float(step)})
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    seen = set()
    for length in range(len(whole), 0, -1):
        path.write_bytes(whole[:length])
        cut_events(tmp_path / "tensorboard", 100)
        assert whole.startswith(path.read_bytes())
        seen.add(len(read_events(tmp_path / "tensorboard")) if path.stat().st_size else 0)
    assert seen == {0, 1, 2, 3}
    altered = bytearray(whole)
    altered[-10] ^= 1
    path.write_bytes(altered)
    cut_events(tmp_path / "tensorboard", 100)
    assert len(read_events(tmp_path / "tensorboard")) == 2


# Weights & Biases


def test_wandb_is_off_unless_asked_for_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with MetricsLog(tmp_path):
        pass
    with pytest.raises(UserError, match=r"pip install 'jaxdistill\[wandb\]'"):
        MetricsLog(tmp_path, wandb="project")


def test_wandb_goes_on_under_the_same_id(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finish")
    )
    ids = iter(["first", "second"])
    fake = types.SimpleNamespace(
        init=lambda **options: calls.append(options) or run,
        util=types.SimpleNamespace(generate_id=lambda: next(ids)),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for resume in (None, 1):
        with MetricsLog(tmp_path, resume, wandb="project", config={"hidden": 48}) as log:
            log.write(1, {"loss": 0.5})
    assert calls[:3] == [
        {"project": "project", "id": "first", "resume": "allow", "dir": str(tmp_path), "config": {"hidden": 48}},
        (1, {"loss": 0.5}),
        "finish",
    ]
    assert calls[3]["id"] == "first"


# The progress line


def test_progress_prints_a_line_now_and_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    out = io.StringIO()
    with Progress(100, 20, every=30, file=out) as progress:
        for step in range(21, 101):
            clock[0] += 1
            progress.update(step, {"loss": 2.34567, "positions/s": 12345.6} if step % 10 == 0 else None)
        progress.say("done")
    lines = out.getvalue().splitlines()
    assert lines[0] == "step 30/100  loss 2.346  positions/s 12,346  01:10 left"
    assert [line.split()[1] for line in lines[:-1]] == ["30/100", "60/100", "90/100", "100/100"]
    assert lines[-1] == "done"


def test_progress_is_a_bar_on_a_terminal():
    out = io.StringIO()
    out.isatty = lambda: True
    with Progress(100, 20, file=out) as progress:
        progress.update(60, {"loss": 2.34567})
        progress.update(61)
        progress.say("saved")
        progress.update(100, {"loss": 1.0})
    shown = out.getvalue()
    assert "saved\n" in shown and "100/100" in shown and "loss=1" in shown
