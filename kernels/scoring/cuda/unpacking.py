"""Packed weights as bfloat16, for products with many inputs."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import to_bfloat16

__all__ = ["unpack_bytes", "unpack_nibbles"]


@cuda_device
def half_to_float(bits):
    """Return the float32 of a finite float16 given as its 16 bits; exact."""
    wide = np.uint32(bits)
    magnitude = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
    value = magnitude * np.float32(2.0**112)
    return -value if wide >> np.uint32(15) else value


@cuda_kernel
def unpack_nibbles(words, scales, leasts, has_least, first, out):
    """Write eight weights of row block x (block y and thread: which eight). No error check.

    Parameters
    ----------
    words, scales, leasts
        See ``packing``; ``leasts`` is read if ``has_least``.
    first : int
        The row of ``words`` that becomes row 0.
    out : uint16 array, shape (rows, padded columns)
        Modified in place.
    """
    row = np.intp(cuda.blockIdx.x)
    piece = np.intp(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    if piece * 8 >= out.shape[1]:
        return
    own = first + row
    group, chunk, lane = piece // 16, piece % 16 // 4, piece % 4
    word = words[own, group * 16 + lane * 4 + chunk]
    scale, least = half_to_float(scales[own, piece // 4]), np.float32(0)
    if has_least:
        least = half_to_float(leasts[own, piece // 4])
    else:
        least = np.float32(-8) * scale
    for i in range(8):
        code = (word >> np.uint32((i & 1) * 16 + (i >> 1) * 4)) & np.uint32(15)
        out[row, piece * 8 + i] = to_bfloat16(np.float32(code) * scale + least)


@cuda_kernel
def unpack_bytes(words, scales, first, out):
    """:func:`unpack_nibbles` for 8-bit weights."""
    row = np.intp(cuda.blockIdx.x)
    piece = np.intp(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    if piece * 8 >= out.shape[1]:
        return
    own = first + row
    group, chunk, lane = piece // 16, piece % 16 // 4, piece % 4
    scale = half_to_float(scales[own, piece // 4])
    for i in range(8):
        word = words[own, group * 32 + lane * 8 + chunk * 2 + (i >> 2)]
        code = np.float32((word >> np.uint32((i & 3) * 8)) & np.uint32(255)) - np.float32(128)
        out[row, piece * 8 + i] = to_bfloat16(code * scale)
