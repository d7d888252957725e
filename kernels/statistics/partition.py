"""Ranks of few values, found by partitioning integers of the same order.

Counting digits (:mod:`~numbatch.kernels.statistics.digits`) pays for its counters, whatever the
number of values; NumPy's partition does not, and works in vectors. Of integers instead of floats
its result is that of their bits: -0.0 is less than 0.0, in any order of the values.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.statistics.digits import bits_of, numbers_of, order, order_wide

__all__ = ["FEW_TO_PARTITION", "PartitionSelection"]

FEW_TO_PARTITION = 1 << 16
"""Values that are partitioned in less time than their digits are counted."""

FEW_RANKS = 4
"""Ranks to partition by in less time than to sort."""


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


class PartitionSelection:
    """Selects ranks of values in several parts of one dtype."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._wide = parts[0].dtype == np.float64
        total = sum(map(len, parts))
        self._keys = np.empty(total, np.uint64 if self._wide else np.uint32)
        write = _write_keys_wide if self._wide else _write_keys
        self.nans = at = 0
        for part in parts:
            self.nans += int(write(bits_of(part), self._keys[at : at + len(part)]))
            at += len(part)
        self.numbers = total - self.nans

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        keys = self._keys
        if len(ranks) > FEW_RANKS:
            keys.sort()
        else:
            low = 0
            for rank in ranks.tolist():
                rest = keys[low:]
                if rank == low:  # as of an even number's median, the second time
                    least = int(rest.argmin())
                    rest[least], rest[0] = rest[0], rest[least]
                else:
                    rest.partition(rank - low)
                low = rank + 1
        return numbers_of(keys[ranks].astype(np.uint64), self._wide)
