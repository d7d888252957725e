"""Arrays that begin at a cache line."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["aligned"]

LINE = 64


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return a C-contiguous array of zeros whose first byte begins a cache line.

    A vector of 64 bytes that crosses two lines costs two reads; NumPy promises 16 bytes only.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size].view(dtype).reshape(shape)
