"""How fast chips multiply matrices: peak rates from data sheets, and what a device here reaches now."""

import time

import jax
import jax.numpy as jnp

PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 FLOP/s by the start of `device_kind`; the longest name that fits holds. From
cloud.google.com/tpu/docs/system-architecture-tpu-vm and NVIDIA's data sheets (SXM parts)."""


def peak_flops(mesh: jax.sharding.Mesh) -> float | None:
    """Dense bfloat16 FLOP/s of all devices of a mesh, or None when the chip is not in the table."""
    kind = mesh.devices.flat[0].device_kind
    names = sorted((name for name in PEAK if kind.startswith(name)), key=len)
    return PEAK[names[-1]] * mesh.size if names else None


def matmul_rate(device: jax.Device, dtype: str) -> float:
    """FLOP/s of one square matrix product on a device, the best of three after one to warm up; some milliseconds."""
    size = 1024 if device.platform == "cpu" else 8192
    x = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        product(x, x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)
