"""Weights repacked once, at load, into panels that the int8 product reads from end to end.

A panel is two times 16 rows of a matrix, a row a lane of one of two vectors, in blocks of 32
columns. A block is read line by line: two streams instead of one, a few KB apart, came from memory
at half the speed. Weights keep the codes and scales that their file has, where it has 4 or 8 bits:

4 bits (640 bytes)
    For every 8 columns two vectors: a lane has the half bytes of its row, those of the first 4
    columns in the low halves of its bytes, of the next 4 in the high ones. Then 32 scales and 32
    least weights (float16): a weight is ``scale * half byte + least``. Q4_0, Q4_1 and Q4_K.
8 bits (1,152 bytes)
    For every 4 columns two vectors: a lane has 4 bytes of its row. Then 32 scales (float32): a
    weight is ``scale * (byte - 128)``. Q8_0 as it is; of any other format a block's weights are
    rounded to multiples of its largest over 127, a quarter or less of the step of formats of up to
    6 bits.

Scales of Q4_K, products of two numbers, are rounded to float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.block_codes import block_codes, load_half
from numbatch.kernels.scoring.formats import Q4_0, Q4_1, Q4_K, Q8_0
from numbatch.kernels.scoring.packed_matrix import PackedMatrix
from numbatch.kernels.threads import Call
from numbatch.kernels.words import load_word, pointer_to

__all__ = [
    "BLOCK",
    "BYTES_4",
    "BYTES_8",
    "PANEL",
    "ZERO",
    "begin_int8",
    "int8_bytes",
]

PANEL, BLOCK = 32, 32

BYTES_4, BYTES_8 = 640, 1152
"""Of a block."""

ZERO = 128
"""The byte of weight 0."""

TINY = np.float32(1e-30)
"""A scale that is smaller stands for 0: its reciprocal might be infinite."""

LARGEST = np.float32(65000)
"""What float16 can hold; a matrix with larger scales is kept in 8 bits."""


@cpu_device(inline=True)
def _half_bits(value):
    return formats.round_to_half(np.float32(value).view(np.uint32))


@cpu_device(inline=True)
def _eight_columns(word):
    """Return 8 half bytes, a byte each, in 32 bits: the first four in low halves of bytes."""
    return np.uint32((word | (word >> np.uint64(28))) & np.uint64(0xFFFFFFFF))


@cpu_device(inline=True)
def _pack_half_bytes(format, row, pointer, index, lane, halves, numbers, at):
    """Write a row's half bytes and scales of a block; return whether they are small enough.

    ``halves`` and ``numbers`` are the packed matrix by 16 and by 32 bits; the block is at byte
    ``at``.
    """
    scale, least, words = block_codes(format, row, pointer, index)
    to = at // 2 + 256 + lane
    halves[to], halves[to + PANEL] = _half_bits(scale), _half_bits(least)
    to = at // 4 + lane
    numbers[to] = _eight_columns(words[0])
    numbers[to + PANEL] = _eight_columns(words[1])
    numbers[to + 2 * PANEL] = _eight_columns(words[2])
    numbers[to + 3 * PANEL] = _eight_columns(words[3])
    # Two comparisons: the larger of a number and NaN may be the number.
    return abs(scale) <= LARGEST and abs(least) <= LARGEST


@cpu_device(inline=True)
def _pack_bytes(pointer, index, lane, numbers, floats, at):
    """Write a row's bytes and scale of a Q8_0 block; return whether it is finite."""
    begin, to = index * 34, at // 4 + lane
    scale = load_half(pointer, begin)
    floats[to + 8 * PANEL] = scale
    for i in range(4):
        word = load_word(pointer, begin + 2 + 8 * i) ^ np.uint64(0x8080808080808080)
        numbers[to + PANEL * 2 * i] = np.uint32(word & np.uint64(0xFFFFFFFF))
        numbers[to + PANEL * (2 * i + 1)] = np.uint32(word >> np.uint64(32))
    return scale * np.float32(0) == 0


@cpu_device
def _round_weights(weights, first, lane, out, floats, at):
    """Write a row's weights of a block, rounded to 8 bits; return whether all are finite."""
    largest = wrong = np.float32(0)
    last = min(first + BLOCK, weights.size)
    for column in range(first, last):
        largest = max(largest, abs(weights[column]))
        wrong += weights[column] * np.float32(0)
    scale = largest / np.float32(127)
    factor = np.float32(1) / scale if scale > TINY else np.float32(0)
    floats[at // 4 + 8 * PANEL + lane] = scale
    for column in range(BLOCK):
        code = np.int32(ZERO)
        if first + column < last and wrong == 0:
            code += np.int32(np.rint(weights[first + column] * factor))
        out[at + (column // 4 * PANEL + lane) * 4 + column % 4] = np.uint8(code)
    return wrong == 0


@cpu_kernel
def _pack_panels(
    start, stop, scratch, data, format, columns, bits, size, out, halves, numbers, floats, wrong
):
    """Pack panels ``start`` to ``stop - 1``. No error check.

    ``out``, ``halves``, ``numbers`` and ``floats`` are the packed matrix, flat, by 8, 16 and 32
    bits; all are written. ``wrong[0]`` becomes the number of a row that has a weight which is NaN,
    infinite or too large for its bits.
    """
    blocks = (columns + BLOCK - 1) // BLOCK
    for panel in range(start, stop):
        for lane in range(min(PANEL, data.shape[0] - panel * PANEL)):
            row = data[panel * PANEL + lane]
            pointer = pointer_to(row)
            rounded = bits == 8 and format != Q8_0
            if rounded:
                formats.unpack_span(format, row, 0, scratch[:columns])
            sound = True
            for index in range(blocks):
                at = (panel * blocks + index) * size
                if rounded:
                    sound &= _round_weights(scratch[:columns], index * BLOCK, lane, out, floats, at)
                elif bits == 8:
                    sound &= _pack_bytes(pointer, index, lane, numbers, floats, at)
                else:
                    sound &= _pack_half_bytes(
                        format, row, pointer, index, lane, halves, numbers, at
                    )
            if not sound:
                wrong[0] = panel * PANEL + lane


def _block_bytes(bits: int) -> int:
    return BYTES_4 if bits == 4 else BYTES_8


def int8_bytes(format: int, rows: int, columns: int) -> int:
    """Return the bytes that a packed matrix takes, if its scales are of common size."""
    return -(-rows // PANEL) * -(-columns // BLOCK) * _block_bytes(_bits(format))


def _bits(format: int) -> int:
    return 4 if format in (Q4_0, Q4_1, Q4_K) else 8


def begin_int8(
    data: np.ndarray,
    format: int,
    columns: int,
    bits: int,
    scratch: np.ndarray,
    take: Callable[..., np.ndarray],
) -> tuple[Call, PackedMatrix, np.ndarray]:
    """Return the call that packs a matrix, as :func:`pack_all` wants it; up to 8 bits."""
    bits = bits or _bits(format)
    size, panels = _block_bytes(bits), -(-len(data) // PANEL)
    out = take((panels, -(-columns // BLOCK) * size), np.uint8)
    wrong, flat = np.full(1, -1), out.reshape(-1)
    views = flat, flat.view(np.uint16), flat.view(np.uint32), flat.view(np.float32)
    call = Call(_pack_panels, panels, (data, format, columns, bits, size, *views, wrong), scratch)
    return call, PackedMatrix(out, bits, len(data), columns, PANEL), wrong
