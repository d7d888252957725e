"""Arrays that begin at a cache line."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Arena", "aligned"]

LINE = 64


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return a C-contiguous array of zeros whose first byte begins a cache line.

    A vector of 64 bytes that crosses two lines costs two reads; NumPy promises 16 bytes only.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size].view(dtype).reshape(shape)


class Arena:
    """One piece of memory for many arrays, so that the system can back it by huge pages.

    Weights are read from end to end at every step; in pages of 4 KB each look-up of a page's
    address would cost as much as the page.

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        self._memory = aligned((size,), np.uint8)  # NumPy asks for huge pages from 4 MB on
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of zeros that begins a cache line; of its own where none is left."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._used + size > len(self._memory):
            return aligned(shape, dtype)
        taken = self._memory[self._used : self._used + size]
        self._used += -(-size // LINE) * LINE
        return taken.view(dtype).reshape(shape)
