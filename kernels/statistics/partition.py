"""Ranks of few values, found by partitioning integers of the same order.

Counting digits (:mod:`~numbatch.kernels.statistics.digits`) pays for its counters, whatever the
number of values; NumPy's partition does not, and works in vectors. Of integers instead of floats
its result is that of their bits: -0.0 is less than 0.0, in any order of the values.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.statistics.digits import bits_of, numbers_of, order, order_wide

__all__ = ["FEW_TO_PARTITION", "PIECE", "PartitionSelection"]

FEW_TO_PARTITION = 1 << 16
"""Values that are partitioned in less time than their digits are counted."""

PIECE = 1 << 10
"""Keys to put in order for three ranks or more in less time than to partition by each."""


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
        _put_in_place(self._keys, 0, ranks.tolist())
        return numbers_of(self._keys[ranks].astype(np.uint64), self._wide)


def _put_in_place(keys: np.ndarray, low: int, ranks: list[int]) -> None:
    """Partition keys so that those of increasing ranks stand in their places.

    ``low`` is the rank of the least key. The middle rank comes first and halves the work of the
    others, so each key is looked at as often as the number of ranks has binary digits; what ends
    in a piece that holds several ranks is put in order.
    """
    while ranks:
        if len(keys) <= PIECE and len(ranks) > 2:
            keys.sort()
            return
        middle = len(ranks) // 2
        place = ranks[middle] - low
        if place == 0:  # as of an even number's median, the second time
            least = int(keys.argmin())
            keys[least], keys[0] = keys[0], keys[least]
        else:
            keys.partition(place)
            _put_in_place(keys[:place], low, ranks[:middle])
        keys, low, ranks = keys[place + 1 :], low + place + 1, ranks[middle + 1 :]
