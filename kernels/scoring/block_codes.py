"""The half bytes of 4-bit formats, column by column, for repacking.

Repacking is most of a model's load, and works on 20 bytes at a time: so everything is compiled into
the loop, and bytes are read eight at a time through a pointer.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.formats import Q4_0, Q4_1
from numbatch.kernels.words import load_word

__all__ = ["block_codes", "load_half"]

LOW = np.uint64(0x0F0F0F0F0F0F0F0F)
FOUR = np.uint64(4)


@cpu_device(inline=True)
def load_half(pointer, at):
    """Return as float32 the float16 that stands at byte ``at``; eight bytes are read."""
    return formats.half_to_float(np.uint32(load_word(pointer, at) & np.uint64(0xFFFF)))


@cpu_device(inline=True)
def _half_bytes(pointer, at):
    """Return the half bytes of 16 bytes, a byte each: the low halves, then the high ones."""
    first, second = load_word(pointer, at), load_word(pointer, at + 8)
    return first & LOW, second & LOW, (first >> FOUR) & LOW, (second >> FOUR) & LOW


@cpu_device(inline=True)
def block_codes(format, row, pointer, block):
    """Return scale and least weight of a block of Q4_0, Q4_1 or Q4_K, and its 32 half bytes.

    No error check.

    Parameters
    ----------
    format : int
        GGML type code.
    row : uint8 array
        A row of a matrix.
    pointer : pointer to uint8
        Of the row.
    block : intp
        Which 32 columns.

    Returns
    -------
    scale, least : float32
        A weight is ``scale * half byte + least``.
    words : four uint64
        A byte for each column, the first lowest.
    """
    if format == Q4_0:
        at = block * 18
        scale = load_half(pointer, at)
        least, words = np.float32(-8) * scale, _half_bytes(pointer, at + 2)
    elif format == Q4_1:
        at = block * 20
        scale, least = load_half(pointer, at), load_half(pointer, at + 2)
        words = _half_bytes(pointer, at + 4)
    else:
        at, part = block // 8 * 144, block % 8
        factor, summand = formats.k_scales(row, at + 4, part)
        scale = load_half(pointer, at) * factor
        least = -(load_half(pointer, at + 2) * summand)
        shift, codes = np.uint64(part % 2 * 4), at + 16 + part // 2 * 32
        words = (
            (load_word(pointer, codes) >> shift) & LOW,
            (load_word(pointer, codes + 8) >> shift) & LOW,
            (load_word(pointer, codes + 16) >> shift) & LOW,
            (load_word(pointer, codes + 24) >> shift) & LOW,
        )
    return scale, least, words
