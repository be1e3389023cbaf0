import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from toy_corpus import equal, make

from jaxdistill.data.loader import Prefetch, to_global
from jaxdistill.errors import UserError


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}


@pytest.mark.parametrize("ahead", [1, 4, 20])
def test_gives_the_batches_in_order_from_any_step(ahead):
    batches = make()
    with Prefetch(batches, 5, 17, ahead=ahead) as loader:
        found = list(loader)
    assert len(found) == 12
    assert all(equal(batch, batches(step)) for step, batch in enumerate(found, start=5))


def test_an_empty_range_ends_at_once():
    assert list(Prefetch(make(), 4, 4)) == []
    assert list(Prefetch(make(), 4, 2)) == []


def test_runs_ahead_and_no_further():
    seen, enough = [], threading.Event()

    def batches(step):
        seen.append(step)
        if len(seen) == 3:
            enough.set()
        return step

    with Prefetch(batches, 10, 1_000_000, ahead=3) as loader:
        assert enough.wait(10)
        time.sleep(0.05)
        assert seen == [10, 11, 12]
        assert next(loader) == 10


def test_exception_comes_in_the_place_of_its_batch():
    def batches(step):
        if step == 3:
            raise UserError("step 3 is broken")
        return step

    with Prefetch(batches, 0, 10) as loader:
        assert [next(loader) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(UserError, match="step 3 is broken"):
            next(loader)


def test_closing_stops_the_thread():
    before = threads()
    loader = Prefetch(lambda step: step, 0, 10**9)
    next(loader)
    (own,) = threads() - before
    loader.close()
    loader.close()
    own.join(10)
    assert not own.is_alive()


def test_waiting_is_measured():
    def slow(step):
        time.sleep(0.05)
        return step

    with Prefetch(slow, 0, 4, ahead=1) as loader:
        assert list(loader) == [0, 1, 2, 3]
        assert 0.04 < loader.waited < 5
    with Prefetch(slow, 0, 4, ahead=4) as loader:
        time.sleep(0.5)
        next(loader)
        assert loader.waited < 0.04


def test_global_arrays_of_one_process():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    batch = make(batch=16)(0)
    arrays = to_global(batch, sharding)
    assert jax.tree.structure(arrays) == jax.tree.structure(batch)
    for role in batch:
        for name, array in arrays[role].items():
            assert array.sharding == sharding and len(array.addressable_shards) == 8
            assert array.dtype == batch[role][name].dtype
            assert np.array_equal(array, batch[role][name])


def test_devices_must_divide_the_rows():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with pytest.raises(UserError, match="12 rows does not divide"):
        to_global(make(batch=12)(0), NamedSharding(mesh, PartitionSpec("data")))


WORKER = textwrap.dedent(
    """
    import sys
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
    from toy_corpus import make
    from jaxdistill.data.loader import to_global
    from jaxdistill.errors import UserError

    process = int(sys.argv[1])
    jax.distributed.initialize(sys.argv[2], 2, process)
    batches = make(batch=16)
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    arrays = to_global(batches(3, process, 2), NamedSharding(mesh, PartitionSpec("data")))
    whole = batches(3)
    for role in whole:
        for name, array in arrays[role].items():
            assert array.shape == whole[role][name].shape, array.shape
            for shard in array.addressable_shards:
                assert np.array_equal(shard.data, whole[role][name][shard.index])
    backwards = Mesh(np.array(jax.devices())[::-1], ("data",))
    replicated = Mesh(np.array(jax.devices()).reshape(4, 1), ("model", "data"))
    for wrong in (backwards, replicated):
        try:
            to_global(batches(3, process, 2), NamedSharding(wrong, PartitionSpec("data")))
        except UserError as error:
            assert "wants rows" in str(error), error
        else:
            raise AssertionError("rows of another process were taken for granted")
    print("fine", len(jax.local_devices()), len(jax.devices()))
    """
)


def test_global_arrays_of_two_processes():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.dirname(here), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(process), address],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0 and "fine 2 4" in output, output
