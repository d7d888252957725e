"""Ranks of few values, found by partitioning integers of the same order.

Counting digits (:mod:`~numbatch.kernels.statistics.digits`) pays for its counters, whatever the
number of values; a partition does not, and works in vectors. Of integers instead of floats its
result is that of their bits: -0.0 is less than 0.0, in any order of the values.

NumPy's own partition has vectors on some CPUs only: on a Zen 4 it takes 50 us for 10,000 keys of 32
bits, this one 6.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd_keys import keys_below, keys_in_line, load_keys, store_keys_where
from numbatch.kernels.simd_masks import count_bits
from numbatch.kernels.statistics.digits import bits_of, order, order_wide

__all__ = ["FEW_TO_PARTITION", "KEYS_A_RANK", "PartitionSelection"]

FEW_TO_PARTITION = 1 << 16
"""Values that are partitioned in less time than their digits are counted."""

KEYS_A_RANK = 256
"""Where there are fewer for each rank, all are put in order in less time."""

SAMPLE = 15
"""Keys among which a bound is chosen."""

LINE = 16
"""Keys in a vector, at most: what a split may write behind the keys."""


@cpu_device
def _put_in_order(keys, low, high):
    """Sort ``keys[low:high]`` by insertion."""
    for i in range(low + 1, high):
        key, j = keys[i], i
        while j > low and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@cpu_device
def _split(keys, low, high, bound, scratch):
    """Move those of ``keys[low:high]`` that are less than ``bound`` to the front.

    Returns the place behind them. They are written where all before has been read.
    """
    size = keys_in_line(keys)
    below, others, i = low, 0, low
    while i + size <= high:
        line = load_keys(keys, i)
        mask = keys_below(line, bound)
        store_keys_where(keys, below, line, mask)
        store_keys_where(scratch, others, line, ~mask)
        count = count_bits(mask)
        below, others, i = below + count, others + size - count, i + size
    while i < high:
        key = keys[i]
        less = int(key < bound)
        keys[below], scratch[others] = key, key
        below, others, i = below + less, others + 1 - less, i + 1
    for j in range(others):
        keys[below + j] = scratch[j]
    return below


@cpu_device
def _choose_bound(keys, low, high, place, scratch):
    """Return a key that is likely to leave ``place`` on the smaller side, but not by much."""
    step = (high - low) // SAMPLE
    for i in range(SAMPLE):
        scratch[i] = keys[low + i * step + step // 2]
    _put_in_order(scratch, 0, SAMPLE)
    near = (place - low) * SAMPLE // (high - low)
    near += 1 if 2 * near < SAMPLE else -1
    return scratch[min(max(near, 0), SAMPLE - 1)]


@cpu_kernel
def partition(keys, place, scratch):
    """Put the key of a rank in its place, none greater before it and none less behind.

    No error check.

    Parameters
    ----------
    keys : uint32 or uint64 array, shape (total,)
        Modified in place.
    place : int
        The rank: 0 for the least.
    scratch : array of the dtype of ``keys``, shape (total + LINE,)
        Overwritten.
    """
    low, high = 0, keys.size
    while high - low > 2 * SAMPLE:
        bound = _choose_bound(keys, low, high, place, scratch)
        middle = _split(keys, low, high, bound, scratch)
        if place < middle:
            high = middle
        elif middle > low:
            low = middle
        else:  # the bound is the least: those equal to it are done with
            after = keys.dtype.type(bound + keys.dtype.type(1))  # 0 behind the greatest there is
            low = _split(keys, low, high, after, scratch) if after > bound else high
            if place < low:
                return
    _put_in_order(keys, low, high)


@cpu_kernel
def _write_keys(bits, keys):
    """Write the keys of float32 and return how many are NaN; no error check.

    Parameters
    ----------
    bits : uint32 array, shape (total,)
        The floats' bits.
    keys : uint32 array, shape (total,)
        Modified in place.
    """
    nans = 0
    for i in range(bits.size):
        key = order(bits[i])
        keys[i] = key
        nans += key == np.uint32(0xFFFFFFFF)
    return nans


@cpu_kernel
def _write_keys_wide(bits, keys):
    """Write the keys of float64, of uint64 each; as :func:`_write_keys`."""
    nans = 0
    for i in range(bits.size):
        key = order_wide(bits[i])
        keys[i] = key
        nans += key == np.uint64(0xFFFFFFFFFFFFFFFF)
    return nans


@cpu_kernel
def _write_bits(keys, ranks, bits):
    """Write the bits of the floats that have the keys of some ranks; no error check."""
    sign = keys.dtype.type(1) << keys.dtype.type(8 * keys.itemsize - 1)
    for i in range(ranks.size):
        key = keys[ranks[i]]
        bits[i] = key ^ sign if key & sign else ~key


class PartitionSelection:
    """Selects ranks of values in several parts of one dtype."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._wide = parts[0].dtype == np.float64
        total = sum(map(len, parts))
        self._keys = np.empty(total, np.uint64 if self._wide else np.uint32)
        self._scratch = np.empty(total + LINE, self._keys.dtype)
        write = _write_keys_wide if self._wide else _write_keys
        self.nans = at = 0
        for part in parts:
            self.nans += int(write(bits_of(part), self._keys[at : at + len(part)]))
            at += len(part)
        self.numbers = total - self.nans

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        self._put_in_place(0, self.numbers + self.nans, ranks.tolist())
        bits = np.empty(len(ranks), self._keys.dtype)
        _write_bits(self._keys, ranks, bits)
        return bits.view(np.float64 if self._wide else np.float32).astype(np.float64)

    def _put_in_place(self, low: int, high: int, ranks: list[int]) -> None:
        """Put the keys of increasing ranks in their places, all of them in ``[low, high)``.

        The middle rank comes first and halves the work of the others, so each key is looked at as
        often as the number of ranks has binary digits.
        """
        if not ranks:
            return
        keys = self._keys[low:high]
        if len(ranks) > 2 and len(keys) <= KEYS_A_RANK * len(ranks):
            keys.sort()
            return
        middle = len(ranks) // 2
        place = ranks[middle]
        partition(keys, place - low, self._scratch)
        self._put_in_place(low, place, ranks[:middle])
        self._put_in_place(place + 1, high, ranks[middle + 1 :])
