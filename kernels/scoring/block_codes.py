"""The half bytes of 4-bit formats, column by column, for repacking."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.formats import Q4_0, Q4_1

__all__ = ["block_codes", "load_word"]


@cpu_device
def load_word(row, at):
    """Return the 4 bytes from ``at``, the first the lowest."""
    low = np.uint32(row[at]) | (np.uint32(row[at + 1]) << np.uint32(8))
    high = np.uint32(row[at + 2]) | (np.uint32(row[at + 3]) << np.uint32(8))
    return np.uint32(low | (high << np.uint32(16)))


@cpu_device
def _half_bytes(row, at, words):
    """Write the half bytes of 16 bytes, a byte each: the low halves, then the high ones."""
    low = np.uint32(0x0F0F0F0F)
    for i in range(4):
        word = load_word(row, at + 4 * i)
        words[i] = word & low
        words[i + 4] = (word >> np.uint32(4)) & low


@cpu_device
def block_codes(format, row, block, words):
    """Write the 32 half bytes of a block of Q4_0, Q4_1 or Q4_K; return scale and least weight.

    No error check.

    Parameters
    ----------
    format : int
        GGML type code.
    row : uint8 array
        A row of a matrix.
    block : intp
        Which 32 columns.
    words : uint32 array, shape (8,)
        Modified in place: a byte for each column, the first lowest.

    Returns
    -------
    scale, least : float32
        A weight is ``scale * half byte + least``.
    """
    if format == Q4_0:
        at = block * 18
        _half_bytes(row, at + 2, words)
        scale = formats.half(row, at)
        return scale, np.float32(-8) * scale
    if format == Q4_1:
        at = block * 20
        _half_bytes(row, at + 4, words)
        return formats.half(row, at), formats.half(row, at + 2)
    at, part = block // 8 * 144, block % 8
    scale, least = formats.k_scales(row, at + 4, part)
    shift = np.uint32(part % 2 * 4)
    for i in range(8):
        word = load_word(row, at + 16 + part // 2 * 32 + 4 * i)
        words[i] = (word >> shift) & np.uint32(0x0F0F0F0F)
    return formats.half(row, at) * scale, -(formats.half(row, at + 2) * least)
