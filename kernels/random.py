"""Counter-based randomness: a hash of (seed, position) takes the place of a generator's state.

So nothing is shared between threads, and the same draw comes out in any order of work.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["coin", "draw_bits", "hash_bits"]


def draw_bits(seed, position):
    """Return 64 bits that depend on ``seed`` and ``position`` (uint64) alone.

    Scrambles twice with SplitMix64's finaliser (Steele et al. 2014, 10.1145/2660193.2660195). The
    plain body of :func:`hash_bits` and of its twin on a GPU.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    z = seed + step
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) + (position + np.uint64(1)) * step
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


hash_bits = cpu_device(draw_bits)


@cpu_kernel
def coin(seed, position):
    """Return a number in [0, 1) that depends on ``seed`` and ``position`` (uint64) alone."""
    return float(hash_bits(seed, position) >> np.uint64(11)) * 2.0**-53
