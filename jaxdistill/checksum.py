"""Checksums of arrays, computed on the device: 64 bits that do not depend on how an array is sharded."""

import hashlib
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def checksums(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Two 32-bit sums for each named array, uint32 [2]; nothing waits for the device.

    Every word is hashed with its global index and with the array's name, so swapped elements or arrays show. Each
    hash is bijective in the word: one changed word always changes the first sum. Sums are modulo 2³², so their order,
    and with it the sharding, is free.

    Raises:
      TypeError: an array whose elements are not of 1, 2, 4 or 8 bytes, or are complex.
    """
    return {name: _checksum(array, _seeds(name)) for name, array in arrays.items()}


def hexadecimal(sums: Array | np.ndarray) -> str:
    """A checksum as 16 hexadecimal digits; waits for the device."""
    first, second = np.asarray(sums)
    return f"{int(first):08x}{int(second):08x}"


def _seeds(name):
    return np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], dtype="<u4").astype(np.uint32)


def _mix(x):
    """A bijection of uint32 words: the finaliser of MurmurHash3 (Appleby 2011)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _words(array):
    """The bits of an array as uint32 words of the same shape; 8-byte elements get a last axis of 2."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    size = array.dtype.itemsize
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or size not in (1, 2, 4, 8):
        raise TypeError(f"no checksum for elements of type {array.dtype}")
    word = {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32)
    return jax.lax.bitcast_convert_type(array, word).astype(jnp.uint32)


@jax.jit
def _checksum(array, seeds):
    words = _words(array)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = jnp.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    hashed = _mix(words ^ _mix(index ^ seeds[0]))
    again = _mix(hashed ^ seeds[1])
    return jnp.stack([jnp.sum(hashed, dtype=jnp.uint32), jnp.sum(again, dtype=jnp.uint32)])
