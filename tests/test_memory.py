"""The estimate of a step's memory, and the micro-batch that follows from it."""

import dataclasses

import jax
import pytest

from jaxdistill import memory, sharding
from jaxdistill import step as steps
from jaxdistill.errors import UserError
from jaxdistill.inputs import open_inputs


def compiled(experiment, batches):
    """XLA's own figures for a step."""
    place = sharding.replicated(sharding.make_mesh(1, 1))
    shaped = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
    state, batch = jax.tree.map(shaped, (steps.init_state(experiment), batches(0)))
    return steps.make_train_step(experiment).lower(state, batch).compile().memory_analysis()


@pytest.mark.parametrize("attention", ["plain", "fused"])
def test_the_estimate_is_an_upper_bound_and_no_wild_one(tiny_inputs, attention):
    made = [tiny_inputs.experiment(variant="nokd", batch=batch, hidden=32, attention=attention) for batch in (64, 128)]
    read = open_inputs(made[0].data)
    few, many = (compiled(experiment, read.batches(experiment.data, 0)) for experiment in made)
    grown = (many.temp_size_in_bytes - few.temp_size_in_bytes) / 64
    assert grown <= memory.row_bytes(made[0]) <= 2 * grown
    state = memory.state_bytes(made[0])  # parameters, two moments, and gradients, which are not among the arguments
    assert state * 0.7 <= few.argument_size_in_bytes <= state


def test_only_cudnn_has_no_scores(tiny_inputs, monkeypatch):
    experiment = tiny_inputs.experiment(variant="nokd", attention="fused")
    student, length = experiment.models["student"], experiment.data.length
    with_scores = memory.row_bytes(experiment)
    monkeypatch.setattr(memory, "attention_kernel", lambda config: "cudnn")
    scores = 4 * student.heads * length**2
    assert with_scores - memory.row_bytes(experiment) == (student.layers + 3) * scores


def test_a_tree_that_does_not_train_has_neither_gradient_nor_moments(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="dual")
    frozen = dataclasses.replace(experiment, trains=(("teacher/.*", False), (".*", True)))
    alone = tiny_inputs.experiment(variant="nokd")
    teacher = memory.state_bytes(experiment) - memory.state_bytes(alone)
    assert memory.state_bytes(frozen) - memory.state_bytes(alone) == teacher / 4 > 0


def rows(experiment, devices=1, room=2**40, cpu=False, **run):
    experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, **run))
    return memory.choose_micro_batch(experiment, devices, room, cpu)


def test_rows_divide_the_share_of_a_device(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="nokd", batch=24)
    one, state = memory.row_bytes(experiment), memory.state_bytes(experiment)
    assert rows(experiment) == 24 and rows(experiment, 4) == 6
    assert rows(experiment, room=state + 11 * one * 3 // 2) == 8  # 11 fit, of the divisors of 24
    assert rows(experiment, room=state + one * 8 // 5) == 1
    assert rows(experiment, 3, room=state + 3 * one * 8 // 5) == 2  # of 8 rows each, 3 fit
    sharded = state * (6 + 4 + 4) // 16  # half of parameters and moments, the gradients, a gathered copy
    assert rows(experiment, 4, room=sharded + one * 8 // 5, fsdp=2) == 1
    assert rows(experiment, 4, room=sharded + 2 * one * 8 // 5, fsdp=2) == 2
    assert rows(tiny_inputs.experiment(variant="nokd", batch=96), cpu=True) == memory.CPU_ROWS < 96
    assert rows(tiny_inputs.experiment(variant="nokd", batch=10**9), cpu=True) == memory.CPU_ROWS


def test_what_is_asked_for_is_taken(tiny_inputs):
    experiment = tiny_inputs.experiment(variant="nokd", batch=24)
    assert rows(experiment, 2, room=0, micro_batch=4) == 4


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"devices": 5}, "24 rows does not divide over 5 devices"),
        ({"devices": 2, "micro_batch": 5}, r"micro_batch=5 does not divide the 12 rows of each device"),
        ({"room": 1000}, "one row needs about"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_inputs, how, told):
    with pytest.raises(UserError, match=told):
        rows(tiny_inputs.experiment(variant="nokd", batch=24), **how)


def test_a_device_has_memory():
    total = memory.device_bytes(jax.devices()[0]) * len(jax.devices())
    assert 2**20 < total < 2**50


GIB = 2**30
INFO = "MemTotal: 16777216 kB\nMemFree: 102400 kB\nMemAvailable: 8388608 kB\nCached: 8286208 kB\n"


@pytest.fixture
def machine(tmp_path):
    """Makes a machine of files; the bytes that can be had on it."""

    def available(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory.available_bytes(tmp_path)

    return available


def test_the_page_cache_is_memory_to_be_had(machine):
    assert machine({"proc/meminfo": INFO}) == 8 * GIB


def test_the_limit_of_any_control_group_above_holds(machine):
    files = {"proc/meminfo": INFO, "proc/self/cgroup": "0::/job/step\n"}
    files |= {"sys/fs/cgroup/job/step/memory.max": "max\n", "sys/fs/cgroup/job/step/memory.current": f"{GIB}\n"}
    assert machine(files) == 8 * GIB
    files |= {"sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n", "sys/fs/cgroup/job/memory.current": f"{3 * GIB}\n"}
    assert machine(files) == GIB
    files |= {"sys/fs/cgroup/job/memory.stat": f"anon 7\ninactive_file {GIB}\nactive_file {GIB // 2}\n"}
    assert machine(files) == GIB * 5 // 2
    files |= {"sys/fs/cgroup/memory.max": "5\n", "sys/fs/cgroup/memory.current": "7\n"}
    assert machine(files) == 0


def test_control_groups_of_version_1_hold_too(machine):
    """In a container the path is the host's, and the files are at the top."""
    files = {"proc/meminfo": INFO, "proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n"}
    top = "sys/fs/cgroup/memory/memory"
    assert machine(files | {f"{top}.limit_in_bytes": str(2**63 - 4096), f"{top}.usage_in_bytes": "0"}) == 8 * GIB
    assert machine(files | {f"{top}.limit_in_bytes": str(3 * GIB), f"{top}.usage_in_bytes": str(GIB)}) == 2 * GIB


def test_without_linux_it_is_half_of_the_machine_s(machine, monkeypatch):
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert machine({}) == 500 * 4096
