"""Peak matrix rates of accelerators, for model FLOPs utilisation."""

import jax

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
