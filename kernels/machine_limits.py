"""What the machine can do at most: bytes read and multiply-adds a second, by plain measurement.

The kernels do nothing else than what they measure, so what they reach is the limit that other
kernels are held against. They belong to no statistic and to no model.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd import fma, load_float32, sum_lanes

__all__ = ["CHUNK", "multiply_add", "read_words"]

CHUNK = 1 << 13
"""Words that :func:`read_words` reads for one item."""

CHAINS = 12
"""Sums that :func:`multiply_add` keeps apart; more than a core's units times their latency."""


@cpu_kernel
def read_words(start, stop, words, out):
    """Read chunks ``start`` to ``stop - 1`` of an array and fold them; no error check.

    Parameters
    ----------
    words : uint64 array, shape (chunks * CHUNK,)
    out : uint64 array, shape (chunks,)
        Modified in place: all words of a chunk, exclusive or, so that no read is left out.
    """
    for chunk in range(start, stop):
        folded = np.uint64(0)
        for i in range(chunk * CHUNK, (chunk + 1) * CHUNK):
            folded ^= words[i]
        out[chunk] = folded


@cpu_kernel
def multiply_add(start, stop, steps, numbers, out):
    """Multiply and add float32 in registers; no error check.

    Parameters
    ----------
    steps : int
        Each item makes ``steps * CHAINS`` vectors of 16 multiply-adds.
    numbers : float32 array, shape (2, 16)
    out : float32 array, shape (items,)
        Modified in place.
    """
    for item in range(start, stop):
        x, y = load_float32(numbers, 0), load_float32(numbers, 16)
        # All start differently: equal chains would be computed once.
        a, b, c, d = x, y, x + y, x + y + y
        e, f, g, h = a + 1.0, b + 1.0, c + 1.0, d + 1.0
        k, m, n, o = a + 2.0, b + 2.0, c + 2.0, d + 2.0
        for _ in range(steps):
            a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
            e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
            k, m, n, o = fma(k, x, y), fma(m, x, y), fma(n, x, y), fma(o, x, y)
        total = ((a + b) + (c + d)) + ((e + f) + (g + h)) + ((k + m) + (n + o))
        out[item] = sum_lanes(total)
