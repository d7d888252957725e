"""Packed weights as bfloat16, for products with many inputs."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import load_words, pack_pair, store_words

__all__ = ["unpack_bytes", "unpack_nibbles"]


@cuda_device
def half_to_float(bits):
    """Return the float32 of a finite float16 given as its 16 bits; exact."""
    wide = np.uint32(bits)
    magnitude = np.uint32((wide & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
    value = magnitude * np.float32(2.0**112)
    return -value if wide >> np.uint32(15) else value


@cuda_device
def _nibble_pair(word, shift, scale, least):
    """Return two weights of a word as bfloat16."""
    low = (word >> np.uint32(shift)) & np.uint32(15)
    high = (word >> np.uint32(shift + 16)) & np.uint32(15)
    return pack_pair(np.float32(low) * scale + least, np.float32(high) * scale + least)


@cuda_device
def _byte_pair(word, shift, scale):
    low = (word >> np.uint32(shift)) & np.uint32(255)
    high = (word >> np.uint32(shift + 8)) & np.uint32(255)
    return pack_pair(
        (np.float32(low) - np.float32(128)) * scale, (np.float32(high) - np.float32(128)) * scale
    )


@cuda_device
def _store_nibbles(out, at, word, scale, least):
    """Write the eight weights of a word."""
    first, second = _nibble_pair(word, 0, scale, least), _nibble_pair(word, 4, scale, least)
    third, fourth = _nibble_pair(word, 8, scale, least), _nibble_pair(word, 12, scale, least)
    store_words(out, at, (first, second, third, fourth))


@cuda_device
def _store_bytes(out, at, low, high, scale):
    """Write the eight weights of two words."""
    first, second = _byte_pair(low, 0, scale), _byte_pair(low, 16, scale)
    third, fourth = _byte_pair(high, 0, scale), _byte_pair(high, 16, scale)
    store_words(out, at, (first, second, third, fourth))


@cuda_kernel
def unpack_nibbles(words, scales, leasts, has_least, first, out):
    """Write the 32 weights of 16 bytes of row block x (block y and thread: which). No error check.

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
    if piece * 32 >= out.shape[1]:
        return
    own, block = first + row, piece // 4 * 4
    # Four lanes share 128 columns; each has eight of every 32.
    at = row * out.shape[1] + block * 32 + piece % 4 * 8
    four = load_words(words, own * words.shape[1] + piece * 4)
    s0, s1 = half_to_float(scales[own, block]), half_to_float(scales[own, block + 1])
    s2, s3 = half_to_float(scales[own, block + 2]), half_to_float(scales[own, block + 3])
    eight = np.float32(-8)
    l0, l1, l2, l3 = eight * s0, eight * s1, eight * s2, eight * s3
    if has_least:
        l0, l1 = half_to_float(leasts[own, block]), half_to_float(leasts[own, block + 1])
        l2, l3 = half_to_float(leasts[own, block + 2]), half_to_float(leasts[own, block + 3])
    _store_nibbles(out, at, four[0], s0, l0)
    _store_nibbles(out, at + 32, four[1], s1, l1)
    _store_nibbles(out, at + 64, four[2], s2, l2)
    _store_nibbles(out, at + 96, four[3], s3, l3)


@cuda_kernel
def unpack_bytes(words, scales, first, out):
    """:func:`unpack_nibbles` for 8-bit weights, of 32 bytes."""
    row = np.intp(cuda.blockIdx.x)
    piece = np.intp(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    if piece * 32 >= out.shape[1]:
        return
    own, block = first + row, piece // 4 * 4
    at = row * out.shape[1] + block * 32 + piece % 4 * 8
    source = own * words.shape[1] + piece * 8
    low, high = load_words(words, source), load_words(words, source + 4)
    s0, s1 = half_to_float(scales[own, block]), half_to_float(scales[own, block + 1])
    s2, s3 = half_to_float(scales[own, block + 2]), half_to_float(scales[own, block + 3])
    _store_bytes(out, at, low[0], low[1], s0)
    _store_bytes(out, at + 32, low[2], low[3], s1)
    _store_bytes(out, at + 64, high[0], high[1], s2)
    _store_bytes(out, at + 96, high[2], high[3], s3)
