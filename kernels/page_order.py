"""An order in which to read objects that lie strewn over memory: those of a page together.

Objects that were made one after another share pages and cache lines. A list of them in another
order asks for each line anew, long after it has left the cache. A million strings of 64 bytes are
looked up in a quarter less time when those of 8 pages are read together, the ordering included;
262,000 of them, which a cache holds, in a fifth more.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device

__all__ = ["BUCKETS", "are_strewn", "page_order"]

BUCKETS = 1024

_SAMPLES = 256


@cpu_device
def _bucket(address):
    """Return the bucket of 8 pages: some of the highest bits of a product (Fibonacci hashing)."""
    return np.intp((np.uint64(address >> 15) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(54))


@cpu_device
def are_strewn(addresses, count):
    """Tell whether most objects lie far from the one before, by some of them."""
    near, step = 0, max(count // _SAMPLES, 1)
    for i in range(step, count, step):
        near += abs(addresses[i] - addresses[i - 1]) < 4096
    return 2 * near * step < count


@cpu_device
def page_order(addresses, count, counts, ordered, order):
    """Put the addresses of a page together.

    No error check.

    Parameters
    ----------
    addresses : pointer to int64
    counts : pointer to int64
        Memory for ``BUCKETS + 1``.
    ordered : pointer to int64
        The same addresses; modified.
    order : pointer to int32
        At which place each of them was; modified.
    """
    for b in range(BUCKETS + 1):
        counts[b] = 0
    for i in range(count):
        counts[_bucket(addresses[i]) + 1] += 1
    for b in range(BUCKETS):
        counts[b + 1] += counts[b]
    for i in range(count):
        bucket = _bucket(addresses[i])
        at = counts[bucket]
        ordered[at], order[at], counts[bucket] = addresses[i], i, at + 1
