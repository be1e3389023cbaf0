import errno
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxdistill.checkpoint
from jaxdistill.checkpoint import Checkpoints, abstract
from jaxdistill.checksum import checksums, hexadecimal
from jaxdistill.errors import UserError
from jaxdistill.seal import write_seal

ROOT = pathlib.Path(__file__).parents[1]


def mesh(count=8, names=("data",), shape=None):
    devices = np.array(jax.devices()[:count]).reshape(shape or (count,))
    return jax.sharding.Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))


def make_state(step, devices=8):
    """A state like a training run's, its values a function of the step alone."""
    here = mesh(devices)
    generator = np.random.default_rng(step)
    params = {
        "word": jax.device_put(generator.normal(size=(64, 16)).astype(np.float32), NamedSharding(here, P("data"))),
        "bias": jax.device_put(generator.normal(size=(16,)).astype(np.float32), NamedSharding(here, P())),
        "half": jax.device_put(jnp.asarray(generator.normal(size=(5,)), jnp.bfloat16), NamedSharding(here, P())),
        "mask": jax.device_put(generator.random(9) < 0.5, NamedSharding(here, P())),
        "none": jax.device_put(np.zeros((0, 3), np.float32), NamedSharding(here, P())),
    }
    everywhere = NamedSharding(here, P())
    moments = optax.ScaleByAdamState(
        jax.device_put(jnp.int32(step), everywhere),
        {"word": params["word"] * 0.5},
        {"word": params["word"] ** 2},
    )
    step = jax.device_put(jnp.int32(step), everywhere)
    return {"step": step, "params": {"student": params}, "optimizer": {"student": (moments, optax.EmptyState())}}


def same(left, right):
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.fixture
def notices():
    return []


@pytest.fixture
def saved(tmp_path, notices):
    """A folder with the checkpoints of steps 10, 20 and 30."""
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, notify=notices.append) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, make_state(step))
    return folder


# Checksums


def oracle(name, array):
    """The checksum in plain Python integers."""
    import hashlib

    digest = hashlib.sha256(name.encode()).digest()
    seeds = [int.from_bytes(digest[at : at + 4], "little") for at in (0, 4)]

    def mix(x):
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    size = min(array.dtype.itemsize, 4)
    words = np.ascontiguousarray(array).reshape(-1).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[size])
    sums = [0, 0]
    for index, word in enumerate(words.tolist()):
        hashed = mix(word ^ mix(index ^ seeds[0]))
        sums = [(sums[0] + hashed) % 2**32, (sums[1] + mix(hashed ^ seeds[1])) % 2**32]
    return f"{sums[0]:08x}{sums[1]:08x}"


ARRAYS = {
    "float32": np.array([[0.0, -0.0, np.nan], [np.inf, 1e-45, 1.5]], np.float32),
    "bfloat16": np.asarray(jnp.array([[0.0, -0.0], [1.5, np.nan]], jnp.bfloat16)),
    "float16": np.linspace(-2, 2, 12, dtype=np.float16).reshape(3, 2, 2),
    "int32": np.array([-1, 0, 2**31 - 1], np.int32),
    "uint32": np.array([2**32 - 1, 7], np.uint32),
    "uint8": np.arange(7, dtype=np.uint8),
    "int8": np.arange(-3, 4, dtype=np.int8),
    "bool": np.array([True, False, True]),
    "scalar": np.int32(-5).reshape(()),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_checksum_is_the_oracle(name):
    assert hexadecimal(checksums({name: jnp.asarray(ARRAYS[name])})[name]) == oracle(name, ARRAYS[name])


def test_checksum_of_8_byte_elements_and_of_none():
    with jax.enable_x64(True):
        value = np.array([1.0, -2.5, np.nan])
        assert hexadecimal(checksums({"x": jnp.asarray(value)})["x"]) == oracle("x", value)
    with pytest.raises(TypeError, match="complex64"):
        checksums({"x": jnp.zeros(2, jnp.complex64)})


def test_checksum_does_not_depend_on_the_sharding():
    value = np.random.default_rng(0).normal(size=(16, 24, 3)).astype(np.float32)
    square = mesh(8, ("data", "fsdp"), (2, 4))
    specs = [P(), P("data"), P("fsdp"), P(None, "fsdp"), P("data", "fsdp"), P(None, ("data", "fsdp"))]
    found = {hexadecimal(checksums({"x": jax.device_put(value, NamedSharding(square, s))})["x"]) for s in specs}
    assert found == {oracle("x", value)}


def test_checksum_sees_every_bit_swap_and_name():
    value = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    seen = {hexadecimal(checksums({"x": jnp.asarray(value)})["x"])}
    for bit in range(value.size * 32):
        flipped = value.copy().reshape(-1).view(np.uint32)
        flipped[bit // 32] ^= np.uint32(1 << bit % 32)
        seen.add(hexadecimal(checksums({"x": jnp.asarray(flipped.view(np.float32).reshape(3, 4))})["x"]))
    seen.add(hexadecimal(checksums({"x": jnp.asarray(value[::-1])})["x"]))
    seen.add(hexadecimal(checksums({"x": jnp.asarray(value.reshape(4, 3).T)})["x"]))
    seen.add(hexadecimal(checksums({"y": jnp.asarray(value)})["y"]))
    assert len(seen) == 1 + value.size * 32 + 3


# Saving and restoring


def test_round_trip(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [10, 20, 30]
        want = make_state(30)
        got = checkpoints.restore(abstract(want))
        assert same(got, want)
        assert all(a.sharding == b.sharding for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True))
        assert same(checkpoints.restore(abstract(want), 10), make_state(10))


def test_restores_a_part(saved):
    part = {"params": make_state(0)["params"]}
    with Checkpoints(saved, readonly=True) as checkpoints:
        assert same(checkpoints.restore(abstract(part), partial=True), {"params": make_state(30)["params"]})
        with pytest.raises(UserError, match="it has step besides"):
            checkpoints.restore(abstract(part))


def test_the_state_may_be_donated_at_once(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x * 1.01 + 1, state), donate_argnums=0)
    state = {f"x{i}": jnp.full((256, 256), float(i)) for i in range(4)}
    with Checkpoints(tmp_path, keep=20) as checkpoints:
        for step in range(8):
            checkpoints.save(step, state)
            for _ in range(20):
                state = advance(state)
        checkpoints.wait()
        for step in range(8):
            checkpoints.restore(abstract(state), step)


def test_no_save_is_skipped(tmp_path, monkeypatch):
    hold = threading.Event()
    monkeypatch.setattr(jaxdistill.checkpoint, "write_seal", lambda *args: (hold.wait(60), write_seal(*args)))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1))
        assert checkpoints.steps() == []
        threading.Timer(0.1, hold.set).start()
        checkpoints.save(2, make_state(2))
        assert 1 in checkpoints.steps()
        checkpoints.save(3, make_state(3), wait=True)
        assert checkpoints.steps() == [1, 2, 3]


def test_a_step_is_saved_once(saved):
    with Checkpoints(saved) as checkpoints:
        before = (saved / "30" / "seal.json").stat().st_mtime_ns
        checkpoints.save(30, make_state(30), wait=True)
        assert (saved / "30" / "seal.json").stat().st_mtime_ns == before
        with pytest.raises(ValueError, match="another state of step 30"):
            checkpoints.save(30, make_state(31))
        with pytest.raises(ValueError, match="step 20 comes after step 30"):
            checkpoints.save(20, make_state(20))


@pytest.mark.parametrize("keep", [2, 3])
def test_keeps_at_least_two_at_any_time(tmp_path, monkeypatch, keep):
    counts = []

    def count(function):
        def counted(*args, **kwargs):
            counts.append(len(checkpoints.steps()))
            result = function(*args, **kwargs)
            counts.append(len(checkpoints.steps()))
            return result

        return counted

    monkeypatch.setattr(jaxdistill.checkpoint, "write_seal", count(write_seal))
    monkeypatch.setattr(jaxdistill.checkpoint, "remove_folder", count(jaxdistill.checkpoint.remove_folder))
    monkeypatch.setattr(Checkpoints, "_unmark", count(Checkpoints._unmark))
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in range(6):
            checkpoints.save(step, make_state(step))
        checkpoints.wait()
        assert checkpoints.steps() == list(range(6 - keep, 6))
    assert sorted(counts) != counts and min(counts[counts.index(2) :]) >= 2 and max(counts) == keep + 1
    with pytest.raises(ValueError, match="at least two"):
        Checkpoints(tmp_path, keep=1)


def test_removes_unfinished_saves_with_a_notice(saved, notices):
    for step in (40, 5):
        (saved / str(step) / "state").mkdir(parents=True)
        (saved / str(step) / "state" / "data").write_bytes(b"half")
        (saved / f"partial-{step}").write_bytes(b"")
    (saved / "notes.txt").write_text("mine")
    with Checkpoints(saved, readonly=True, notify=notices.append) as checkpoints:
        assert checkpoints.steps() == [10, 20, 30]
    assert (saved / "40").exists() and not notices
    with Checkpoints(saved, notify=notices.append) as checkpoints:
        assert checkpoints.steps() == [10, 20, 30]
    assert sorted(path.name for path in saved.iterdir()) == ["10", "20", "30", "notes.txt"]
    assert notices == [f"removed {saved / name}: a save or a removal that was not finished" for name in ("40", "5")]


def test_read_only(tmp_path):
    with Checkpoints(tmp_path / "absent", readonly=True) as checkpoints:
        assert checkpoints.steps() == []
        with pytest.raises(UserError, match="holds no checkpoint; it holds none"):
            checkpoints.restore(abstract(make_state(0)))
        with pytest.raises(ValueError, match="read-only"):
            checkpoints.save(1, make_state(1))
    assert not (tmp_path / "absent").exists()


def test_missing_step(saved):
    with Checkpoints(saved) as checkpoints, pytest.raises(UserError, match=r"no checkpoint of step 15.*10, 20, 30"):
        checkpoints.restore(abstract(make_state(0)), 15)


def test_a_state_that_is_no_tree_of_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="a/b has no sharding"):
            checkpoints.save(1, {"a": {"b": np.zeros(3)}})
        with pytest.raises(ValueError, match=r"two leaves.*a/b"):
            checkpoints.save(1, {"a/b": jnp.zeros(3), "a": {"b": jnp.zeros(3)}})
        assert checkpoints.steps() == []


# Bad checkpoints; tests/test_damage.py has more


def test_nothing_is_set_aside_when_none_is_good(saved, notices):
    for step in (10, 20, 30):
        (saved / str(step) / "seal.json").unlink()
    with Checkpoints(saved, notify=notices.append) as checkpoints:
        with pytest.raises(UserError, match=r"(?s)no checkpoint in .* can be restored.*another --workdir") as caught:
            checkpoints.restore(abstract(make_state(0)), fallback=True)
        assert all(str(saved / str(step)) in str(caught.value) for step in (10, 20, 30))
        assert checkpoints.steps() == [10, 20, 30] and not notices
        with pytest.raises(UserError, match="no checkpoint before it"):
            checkpoints.restore(abstract(make_state(0)), 10)


def test_set_aside_twice_keeps_both(saved):
    wanted = abstract(make_state(0))
    with Checkpoints(saved, notify=lambda line: None) as checkpoints:
        for _ in range(2):
            (saved / "30" / "seal.json").unlink()
            checkpoints.restore(wanted, fallback=True)
            checkpoints.save(30, make_state(30), wait=True)
    assert {"bad-30", "bad-30-2", "30"} <= {path.name for path in saved.iterdir()}


def test_foreign_states_name_the_leaves(saved):
    other = make_state(0)
    student = other["params"]["student"]
    student["word"] = student["word"][:, :8]
    student["half"] = student["half"].astype(jnp.float32)
    student["extra"] = student.pop("bias")
    with Checkpoints(saved) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.restore(abstract(other))
    text = str(caught.value)
    assert f"{saved / '30'} is foreign" in text
    assert "it lacks params/student/extra" in text
    assert "it has params/student/bias besides" in text
    assert "params/student/word has shape [64, 16], not [64, 8]" in text
    assert "params/student/half has dtype bfloat16, not float32" in text
    assert "step" not in text.split(":", 1)[1].split("\n")[0]


def test_what_is_no_damage_is_not_set_aside(saved, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError("out of memory")

    monkeypatch.setattr(jaxdistill.checkpoint.ocp, "load", out_of_memory)
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(UserError, match=r"files are as they were written.*out of memory"):
            checkpoints.restore(abstract(make_state(0)), fallback=True)
        assert checkpoints.steps() == [10, 20, 30]


# A full disk


def test_full_disk_while_sealing(saved, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jaxdistill.checkpoint, "write_seal", full)
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(UserError, match=f"step 40 could not be saved in {saved}: no space is left") as caught:
            checkpoints.save(40, make_state(40), wait=True)
        assert "10, 20, 30" in str(caught.value)
        monkeypatch.undo()
        assert sorted(path.name for path in saved.iterdir()) == ["10", "20", "30"]
        assert same(checkpoints.restore(abstract(make_state(0))), make_state(30))
        checkpoints.save(40, make_state(40), wait=True)


def test_a_failed_save_is_raised_by_the_next_call(saved, notices, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jaxdistill.checkpoint, "write_seal", full)
    with pytest.raises(UserError, match="step 40"), Checkpoints(saved) as checkpoints:
        checkpoints.save(40, make_state(40))
    with pytest.raises(KeyError), Checkpoints(saved, notify=notices.append) as checkpoints:
        checkpoints.save(40, make_state(40))
        raise KeyError
    assert "step 40 could not be saved" in notices[-1]


def run(code, *arguments, devices=1, **options):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_collective_call_terminate_timeout_seconds=600"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


def test_full_disk_while_writing(tmp_path):
    code = """
        import resource, sys
        import jax.numpy as jnp
        from jaxdistill.checkpoint import Checkpoints
        from jaxdistill.errors import UserError
        import jax
        # Orbax meets a limit on the size of a file as it would meet a full disk: a write that fails half-way.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with Checkpoints(sys.argv[1]) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, {"x": jnp.full((4, 4), float(step))})
            try:
                checkpoints.save(3, {"x": jax.random.normal(jax.random.key(0), (1000, 1000))}, wait=True)
            except UserError as error:
                print(error)
            print(checkpoints.steps())
    """
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"step 3 could not be saved in {tmp_path}" in done.stdout
    assert done.stdout.strip().endswith("[1, 2]")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with Checkpoints(tmp_path) as checkpoints:
        assert np.asarray(checkpoints.restore(abstract({"x": jnp.zeros((4, 4))}))["x"]).tolist() == [[2.0] * 4] * 4


# Other devices


def test_goes_on_on_another_number_of_devices(tmp_path):
    code = """
        import sys
        import jax
        from test_checkpoint import abstract, make_state, same, Checkpoints
        folder, devices = sys.argv[1], int(sys.argv[2])
        assert len(jax.devices()) == devices
        with Checkpoints(folder) as checkpoints:
            state = make_state(1, devices)
            restored = checkpoints.restore(abstract(state))
            assert same(restored, state)
            assert len(restored["params"]["student"]["word"].sharding.device_set) == devices
            restored["step"] = restored["step"] * 0 + 2
            checkpoints.save(2, restored, wait=True)
    """
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), wait=True)
        done = run(code, tmp_path, 2, devices=2)
        assert done.returncode == 0, done.stderr
        back = checkpoints.restore(abstract(make_state(1)))
        assert int(back["step"]) == 2
        assert same({**back, "step": make_state(1)["step"]}, make_state(1))


# Kills

SAVER = """
    import os, shutil, signal, sys, threading
    import jax, jax.numpy as jnp, numpy as np
    import jaxdistill.checkpoint as module

    def die_in(owner, name, after):
        function = getattr(owner, name)
        def dying(*args, **kwargs):
            if not after:
                os.kill(os.getpid(), signal.SIGKILL)
            function(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        setattr(owner, name, dying)

    def half_removed(path):
        victim = next(os.path.join(top, name) for top, _, names in os.walk(path) for name in names)
        os.unlink(victim)
        os.kill(os.getpid(), signal.SIGKILL)

    POINTS = {
        "before seal": lambda: die_in(module, "write_seal", False),
        "after seal": lambda: die_in(module, "write_seal", True),
        "after marking": lambda: die_in(module.Checkpoints, "_mark", True),
        "before commit": lambda: die_in(module.Checkpoints, "_unmark", False),
        "after commit": lambda: die_in(module.Checkpoints, "_unmark", True),
        "while removing": lambda: setattr(shutil, "rmtree", half_removed),
        "none": lambda: None,
    }

    def main(folder, point):
        advance = jax.jit(lambda s: {"step": s["step"] + 1, "x": s["x"] + 3.0 * s["step"]}, donate_argnums=0)
        state = {"step": jnp.int32(0), "x": jnp.arange(40_000.0).reshape(200, 200)}
        checkpoints = module.Checkpoints(folder, keep=2)
        if checkpoints.steps():
            state = checkpoints.restore(state)
        begun = int(state["step"])
        while True:
            state = advance(state)
            if int(state["step"]) == begun + 4:
                POINTS[point]()
            checkpoints.save(int(state["step"]), state)
            print(int(state["step"]), flush=True)

    # One process imports, its forks run: a start-up for each kill would take most of the time.
    for line in sys.stdin:
        folder, point = line.rstrip("\\n").split("\\t")
        child = os.fork()
        if not child:
            try:
                main(folder, point)
            except BaseException as error:
                print("error", repr(error), flush=True)
            os._exit(1)
        print("child", child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)
"""


def expected(step):
    state = {"step": jnp.int32(0), "x": jnp.arange(40_000.0).reshape(200, 200)}
    advance = jax.jit(lambda s: {"step": s["step"] + 1, "x": s["x"] + 3.0 * s["step"]})
    for _ in range(step):
        state = advance(state)
    return state


class Saver:
    """The process above; `kill` runs it until a kill and returns the last step whose save it began."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def kill(self, folder, point="none", delay=None):
        self.process.stdin.write(f"{folder}\t{point}\n")
        self.process.stdin.flush()
        begun, child, lines = 0, None, 0
        for line in self.process.stdout:
            word, *rest = line.split()
            assert word != "error", line
            if word == "dead":
                return begun
            if word == "child":
                child = int(rest[0])
            elif word.isdigit():
                begun, lines = int(word), lines + 1
                if delay is not None and lines == 3:
                    time.sleep(delay)
                    os.kill(child, signal.SIGKILL)
        raise AssertionError("the saver ended")

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture
def saver():
    saver = Saver()
    yield saver
    saver.close()


def check_after_kill(folder, begun, before):
    with Checkpoints(folder, notify=lambda line: None) as checkpoints:
        steps = checkpoints.steps()
        assert len(steps) >= 2 and steps[-1] >= before
        assert steps[-1] in (begun - 1, begun, begun + 1)
        for step in steps:
            assert same(checkpoints.restore(abstract(expected(0)), step), expected(step))
        assert {path.name for path in folder.iterdir()} == set(map(str, steps))
        return steps[-1]


def kills(saver, folder, count, seed):
    generator, newest = random.Random(seed), 0
    for _ in range(count):
        begun = saver.kill(folder, delay=generator.uniform(0, 0.12))
        newest = check_after_kill(folder, begun, newest)


def test_kills_at_random_instants(tmp_path, saver):
    kills(saver, tmp_path, 10, 0)


@pytest.mark.slow
def test_kills_at_a_hundred_random_instants(tmp_path, saver):
    kills(saver, tmp_path, 100, 1)


def test_kills_at_each_stage_of_a_save(tmp_path, saver):
    newest = 0
    for point in ("after marking", "before seal", "after seal", "before commit", "after commit", "while removing"):
        newest = check_after_kill(tmp_path, saver.kill(tmp_path, point), newest)
