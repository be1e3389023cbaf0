"""Chips: their rates from data sheets, how slices of them are named, and what a device here reaches now."""

import dataclasses
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdistill.errors import UserError

GB, GIB, TERA = 1e9, 2**30, 1e12
_COPIED = 2**26


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      kind: how jax's `device_kind` starts.
      bfloat16: dense FLOP/s of matrix products in bfloat16.
      float32: the same of float32 arrays at jax's default precision: TPUs multiply in bfloat16, GPUs in TF32.
      memory: bytes of high-bandwidth memory.
      bandwidth: bytes/s of that memory.
      link: bytes/s that a chip sends to others, all its links in one direction: half of a bidirectional figure.
      host: chips of one host.
      most: chips of the largest slice, or of one host where hosts are joined by a slower network.
      cores: TensorCores of a chip where slices are named by TensorCores; 1 where they are named by chips.
      devices: jax devices of a chip.
      beyond: bytes/s that a chip sends to other hosts, where that is another network; 0 where it is the same.
      source: where the figures are from.
    """

    kind: str
    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    link: float
    host: int
    most: int
    cores: int = 1
    devices: int = 1
    beyond: float = 0.0
    source: str = ""

    def rate(self, dtype: str) -> float:
        """FLOP/s of matrix products of arrays of a type, `float32` or `bfloat16`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32

    @property
    def room(self) -> float:
        """Bytes that a program can have on one jax device.

        Of a GPU's memory jax takes 75 % (docs.jax.dev, "GPU memory allocation"). TPUs keep some for themselves: their
        messages speak of 7.48 of 8 GiB on v2 and of 30.75 of 32 GiB on v4 (github.com/sokrypton/ColabFold issue 62,
        github.com/erfanzar/EasyDeL issue 166).
        """
        return self.memory / self.devices * (0.93 if self.kind.startswith("TPU") else 0.75)


_TPU = "docs.cloud.google.com/tpu/docs/"
_DOMAIN = "Jouppi et al., doi.org/10.1145/3360307"
_NVIDIA = "NVIDIA's data sheets, without sparsity, SXM: "

CHIPS = {
    "v2": Chip(
        *("TPU v2", 46 * TERA, 46 * TERA, 16 * GIB, 700 * GB, 4 * 62 * GB, 4, 256, 2, 2),
        source=f"{_TPU}v2; links: {_DOMAIN}",
    ),
    "v3": Chip(
        *("TPU v3", 123 * TERA, 123 * TERA, 32 * GIB, 900 * GB, 4 * 82 * GB, 4, 1024, 2, 2),
        source=f"{_TPU}v3; links: {_DOMAIN}",
    ),
    "v4": Chip(
        *("TPU v4", 275 * TERA, 275 * TERA, 32 * GIB, 1200 * GB, 1.1e15 / 4096, 4, 4096, 2),
        source=f"{_TPU}v4; link: its all-reduce bandwidth of a pod over its chips",
    ),
    "v5e": Chip(
        *("TPU v5 lite", 197 * TERA, 197 * TERA, 16 * GB, 819 * GB, 400 / 2 * GB, 8, 256),
        source=f"{_TPU}v5e",
    ),
    "v5p": Chip(
        *("TPU v5", 459 * TERA, 459 * TERA, 95 * GB, 2765 * GB, 1200 / 2 * GB, 4, 6144, 2),
        source=f"{_TPU}v5p",
    ),
    "v6e": Chip(
        *("TPU v6 lite", 918 * TERA, 918 * TERA, 32 * GB, 1638 * GB, 800 / 2 * GB, 8, 256),
        source=f"{_TPU}v6e",
    ),
    "a100": Chip(
        *("NVIDIA A100", 312 * TERA, 156 * TERA, 80 * GB, 2039 * GB, 600 / 2 * GB, 8, 8 * 560),
        beyond=200 / 8 * GB,
        source=f"{_NVIDIA}A100 80GB; DGX A100: 8 x 200 Gb/s a host",
    ),
    "h100": Chip(
        *("NVIDIA H100", 989 * TERA, 494 * TERA, 80 * GB, 3350 * GB, 900 / 2 * GB, 8, 8 * 512),
        beyond=400 / 8 * GB,
        source=f"{_NVIDIA}H100; DGX H100: 8 x 400 Gb/s a host",
    ),
    "h200": Chip(
        *("NVIDIA H200", 989 * TERA, 494 * TERA, 141 * GB, 4800 * GB, 900 / 2 * GB, 8, 8 * 512),
        beyond=400 / 8 * GB,
        source=f"{_NVIDIA}H200; DGX H200: 8 x 400 Gb/s a host",
    ),
}
"""Chips by the name that hardware has on the command line."""

COMPARED = ("v2-32", "v3-32", "v4-32", "v5e-32", "v5p-32", "v6e-8", "v6e-32", "a100-8", "h100-8", "h200-1", "h200-8")
"""What a comparison shows: of each kind of TPU 32, as many as the paper's job had, and of GPUs a host."""


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Some chips, joined.

    Attributes:
      name: such as `v4-32`.
      chip: of which kind; None for a CPU, whose rates are measured.
      chips: how many; of a CPU its cores.
    """

    name: str
    chip: Chip | None
    chips: int

    @property
    def devices(self) -> int:
        """Devices, as jax counts them: all cores of a CPU are one."""
        return self.chips * self.chip.devices if self.chip else 1

    @property
    def hosts(self) -> int:
        """Machines."""
        return -(-self.chips // self.chip.host) if self.chip else 1

    @property
    def link(self) -> float:
        """Bytes/s that a device sends over the slowest network that all of them share."""
        chip = self.chip
        return (chip.beyond if chip.beyond and self.hosts > 1 else chip.link) / chip.devices if chip else 0.0

    def __str__(self) -> str:
        if not self.chip:
            return f"{self.name}: {self.chips} CPU cores, one jax device"
        cores = f" ({self.chips * self.chip.cores} TensorCores)" if self.chip.cores > 1 else ""
        hosts = "1 host" if self.hosts == 1 else f"{self.hosts} hosts"
        devices = "1 jax device" if self.devices == 1 else f"{self.devices} jax devices"
        return f"{self.name}: {self.chips} x {self.chip.kind}{cores}, {devices} on {hosts}"


def find_hardware(name: str) -> Hardware:
    """Hardware by its name: `v5e-32`, `v4-32`, `h200-1`, `cpu-2`.

    The number is Google's: TensorCores for v2, v3, v4 and v5p, which have two a chip, so that v4-32 is 16 chips; chips
    for v5e and v6e. It is GPUs, and cores of a CPU. On v2 and v3 each TensorCore is a device of jax's, else each chip.

    Raises:
      UserError: there is no such hardware.
    """
    kind, _, number = name.partition("-")
    known = f"{', '.join(f'{own}-N' for own in CHIPS)} and cpu-N"
    if not re.fullmatch(r"[1-9]\d{0,5}", number) or kind not in (*CHIPS, "cpu"):
        raise UserError(f"there is no hardware {name!r}: give {known}, such as v5e-32")
    if kind == "cpu":
        return Hardware(name, None, int(number))
    chip, chips = CHIPS[kind], int(number) // CHIPS[kind].cores
    if int(number) % chip.cores:
        raise UserError(f"{name}: {kind} slices are named by TensorCores, {chip.cores} a chip: give an even number")
    if chips > chip.most:
        raise UserError(f"{name}: that is {chips:,} chips, but the largest has {chip.most:,}")
    return Hardware(name, chip, chips)


def find_chip(kind: str) -> Chip | None:
    """The chip that jax calls by this `device_kind`, or None when it is not in the table."""
    fitting = [chip for chip in CHIPS.values() if kind.startswith(chip.kind)]
    return max(fitting, key=lambda chip: len(chip.kind), default=None)


def peak_flops(mesh: jax.sharding.Mesh) -> float | None:
    """Dense bfloat16 FLOP/s of all devices of a mesh, or None when the chip is not in the table."""
    chip = find_chip(mesh.devices.flat[0].device_kind)
    return chip.bfloat16 / chip.devices * mesh.size if chip else None


def matmul_rate(device: jax.Device, dtype: str) -> float:
    """FLOP/s of one square matrix product on a device; some milliseconds."""
    size = 1024 if device.platform == "cpu" else 8192
    x = jax.device_put(jnp.ones((size, size), dtype), device)
    return 2 * size**3 / _fastest(lambda x: x @ x, x)


def copy_rate(device: jax.Device) -> float:
    """Bytes/s that a device reads and writes in a large sum."""
    x = jax.device_put(jnp.ones(_COPIED), device)
    return 2 * x.nbytes / _fastest(lambda x: x + 1, x)


def _fastest(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Seconds of the best of three calls, after one to warm up."""
    run, took = jax.jit(function), []
    run(x).block_until_ready()
    for _ in range(3):
        began = time.perf_counter()
        run(x).block_until_ready()
        took.append(time.perf_counter() - began)
    return min(took)
