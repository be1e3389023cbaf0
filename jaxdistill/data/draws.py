"""Random draws that are a hash of where they are used: no generator, no stream, no state.

A draw is a function of (seed, purpose, step, global row, position). The rows of a batch are then the same on any
number of processes, a run continues at any step without replaying anything, and adding a view or a purpose leaves
every other draw as it was. The arithmetic is SplitMix64's: a counter times an odd constant, then a finaliser
(Steele, Lea and Flood 2014, variant 13 of Stafford), chained once per coordinate.
"""

import hashlib

import numpy as np

_STRIDE = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def _finalise(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _WORD
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _WORD
    return bits ^ (bits >> 31)


def key(seed: int, *parts: int | str) -> int:
    """A 64-bit key for a seed and what follows it: purposes by name, a step by number."""
    bits = _finalise((seed + _STRIDE) & _WORD)
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        bits = _finalise((bits + (part + 1) * _STRIDE) & _WORD)
    return bits


def draw(keys: int | np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Hashes counters under keys.

    Args:
      keys: a key, or an array of them that broadcasts against `counters`.
      counters: whole numbers, any shape.

    Returns:
      uint64 bits of the broadcast shape, uniform over all 2^64 values. They serve as keys for a further coordinate.
    """
    bits = counters.astype(np.uint64)
    bits *= np.uint64(_STRIDE)
    bits = bits + np.asarray(keys, np.uint64)
    bits += np.uint64(_STRIDE)
    shifted = bits >> np.uint64(30)
    bits ^= shifted
    bits *= np.uint64(_FIRST)
    np.right_shift(bits, np.uint64(27), out=shifted)
    bits ^= shifted
    bits *= np.uint64(_SECOND)
    np.right_shift(bits, np.uint64(31), out=shifted)
    bits ^= shifted
    return bits


def uniform(bits: np.ndarray) -> np.ndarray:
    """Bits to float64 in [0, 1), by their upper 53."""
    return (bits >> np.uint64(11)) * 2.0**-53


def below(bits: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Bits to whole numbers in [0, bound), int64, for bounds under 2^31; the bias is at most bound / 2^32."""
    return (((bits >> np.uint64(32)) * np.asarray(bound, np.uint64)) >> np.uint64(32)).astype(np.int64)
