"""How many rows fit a device: an estimate of a training step's bytes, and the micro-batch that follows from it."""

import math
import os
import pathlib
import re
from collections.abc import Iterator

import jax

from jaxdistill import bert, tree
from jaxdistill.attention import attention_kernel
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment

CPU_ROWS = 8
"""On a CPU larger micro-batches run slower: each step takes their memory afresh, and it leaves the caches."""


def row_bytes(experiment: Experiment) -> int:
    """Bytes that a step takes for one row: an estimate, from above.

    From the forward to the backward pass a layer keeps its matrix products: seven of width `hidden`, one of width
    `ffn`, and the scores of each head, which only cuDNN never forms; recomputing and differentiating the rest takes up
    to three times that in float32, for one layer at a time. The MLM head has its scores, as float32 three times over.
    """
    length, predictions, total = experiment.data.length, experiment.data.predictions, 0
    for view in experiment.running():
        config = experiment.models[experiment.reader(view)]
        scores = 0 if attention_kernel(config) == "cudnn" else 4 * config.heads * length
        products = 7 * config.hidden + config.ffn
        kept, apart = (length * (products * size + scores) for size in (2 if config.dtype == "bfloat16" else 4, 4))
        vocab = config.vocab
        if experiment.data.views[view].mixed_with:
            vocab += experiment.models[experiment.mixed.other].vocab
        total += config.layers * kept + 3 * apart + (predictions * vocab * 12 if config.mlm else 0)
    return total


def state_bytes(experiment: Experiment) -> int:
    """Bytes on a device of parameters, gradients and two moments of every model that trains, in float32.

    With `run.fsdp` parameters and moments are sharded; in a step there is a gathered copy, and whole gradients.
    """
    shards, total = experiment.run.fsdp, 0
    for role, config in experiment.models.items():
        for name, leaf in tree.flatten(bert.shapes(config)).items():
            trains = experiment.trains_name(f"{role}/{name}")
            kept, whole = (12, 4) if trains else (4, 0)
            total += math.prod(leaf.shape) * (-(-kept // shards) + whole + (4 if shards > 1 else 0))
    return total


def device_bytes(device: jax.Device) -> int:
    """Memory that a device has for us; a CPU's is its share of what is free now."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return available_bytes() // len([other for other in jax.local_devices() if other.platform == device.platform])


def available_bytes(root: pathlib.Path = pathlib.Path("/")) -> int:
    """Bytes of main memory to be had now, within the limits of our control groups; off Linux, half of the machine's.

    The page cache gives way, so it counts as free. Folders are those below `root`.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.M)
    if not found:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([1024 * int(found[1]), *_group_rooms(root)])


def _group_rooms(root: pathlib.Path) -> Iterator[int]:
    """What each limit on a control group of this process leaves, of version 1 or 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if not kinds:
            limit, use = "memory.max", "memory.current"
        elif "memory" in kinds.split(","):
            top, limit, use = top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            most, used = _text(folder / limit).strip(), _text(folder / use).strip()
            if folder.is_relative_to(top) and most.isdigit() and used.isdigit():
                cache = re.findall(r"^(?:in)?active_file (\d+)", _text(folder / "memory.stat"), re.M)
                yield max(int(most) - int(used) + sum(map(int, cache)), 0)


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def choose_micro_batch(experiment: Experiment, devices: int, memory: int, cpu: bool) -> int:
    """Rows per device at a time: as many as fit in two thirds of what the state leaves, by halves of the whole.

    Args:
      experiment: what runs; its `run.micro_batch` is taken as it is when it is not 0.
      devices: how many share the batch.
      memory: bytes of one of them.
      cpu: whether they are CPUs.

    Raises:
      UserError: the batch does not divide, or a single row does not fit.
    """
    batch, given = experiment.data.batch, experiment.run.micro_batch
    if batch % devices:
        raise UserError(f"a batch of {batch} rows does not divide over {devices} devices: choose a multiple")
    rows = batch // devices
    if given:
        if rows % given:
            raise UserError(
                f"micro_batch={given} does not divide the {rows} rows of each device (batch {batch}, {devices} devices)"
            )
        return given
    room = (memory - state_bytes(experiment)) * 2 // 3
    most = room // max(row_bytes(experiment), 1)
    if most < 1:
        raise UserError(
            f"one row needs about {row_bytes(experiment) / 2**20:,.0f} MiB beside a state of "
            f"{state_bytes(experiment) / 2**20:,.0f} MiB, more than the {memory / 2**20:,.0f} MiB of a device: use a "
            "smaller model, a shorter length, or --fsdp"
        )
    most = min(most, CPU_ROWS) if cpu else most
    return max(divisor for divisor in range(1, min(rows, most) + 1) if rows % divisor == 0)
