"""Weights repacked once, at load, for the bfloat16 product.

A panel holds 16 rows of a matrix; its blocks of 32 columns follow each other. A block is a tile of
16 lines of 64 bytes: line r has columns 2r and 2r + 1 of row 0, then of row 1, ..., row 15, as the
tile registers and ``vdpbf16ps`` want them. Three ways to keep a block:

16 bits (1,024 bytes)
    The tile itself, rounded to bfloat16.
8 bits (544 bytes)
    16 scales (float16), then 32 vectors' worth of signed bytes: Q8_0.
4 bits (320 bytes)
    16 scales and 16 least weights (float16), then 4 vectors of half bytes: Q4_0, Q4_1 and Q4_K.

See bfloat16_unpack.py for what a weight of 4 or 8 bits becomes. Scales of Q4_K, products of two
numbers, are rounded to float16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.bfloat16_unpack import BLOCK_BYTES, DOWN, SCALED, TILE
from numbatch.kernels.scoring.block_codes import block_codes
from numbatch.kernels.scoring.block_codes import load_half as load_scale
from numbatch.kernels.scoring.formats import Q4_0, Q4_1, Q4_K, Q8_0
from numbatch.kernels.scoring.packed_matrix import PackedMatrix
from numbatch.kernels.threads import Call
from numbatch.kernels.words import load_word, pointer_to

__all__ = [
    "BLOCK",
    "PANEL",
    "TILE",
    "begin_bfloat16",
    "bfloat16_bytes",
]

PANEL, BLOCK = 16, 32

LARGEST = np.float32(65000)
"""What float16 can hold; a matrix with larger weights is kept in 16 bits."""


@cpu_device(inline=True)
def _half_bits(value):
    return formats.round_to_half(np.float32(value * SCALED).view(np.uint32))


@cpu_device(inline=True)
def _eight_columns(word):
    """Return 8 half bytes, a byte each, in 32 bits: those of even columns low, of odd ones high."""
    pairs = np.uint64(0x000F000F000F000F)
    even, odd = word & pairs, (word >> np.uint64(8)) & pairs
    even, odd = even | (even >> np.uint64(12)), odd | (odd >> np.uint64(12))
    low, high = np.uint64(0xFF), np.uint64(0xFF00)
    even = (even & low) | ((even >> np.uint64(24)) & high)
    odd = (odd & low) | ((odd >> np.uint64(24)) & high)
    return np.uint32(even | (odd << np.uint64(16)))


@cpu_device(inline=True)
def _pack_half_bytes(format, row, pointer, index, lane, halves, numbers, at):
    """Write a row's half bytes and scales of a block; return whether they are small enough.

    ``halves`` and ``numbers`` are the packed matrix by 16 and by 32 bits; the block is at byte
    ``at``. Each number of 16 bits has a row's codes of one column of four lines, the first lowest.
    """
    scale, least, words = block_codes(format, row, pointer, index)
    halves[at // 2 + lane], halves[at // 2 + 16 + lane] = _half_bits(scale), _half_bits(least)
    to = at // 4 + 16 + lane
    numbers[to] = _eight_columns(words[0])
    numbers[to + 16] = _eight_columns(words[1])
    numbers[to + 32] = _eight_columns(words[2])
    numbers[to + 48] = _eight_columns(words[3])
    # Two comparisons: the larger of a number and NaN may be the number.
    limit = LARGEST / SCALED
    return abs(least) <= limit and abs(np.float32(15) * scale + least) <= limit


@cpu_device(inline=True)
def _pack_bytes(pointer, index, lane, halves, at):
    """Write a row's bytes and scale of a Q8_0 block; return whether it is small enough."""
    begin, to = index * 34, at // 2 + lane
    scale = load_scale(pointer, begin)
    halves[to] = _half_bits(scale)
    for i in range(4):
        word = load_word(pointer, begin + 2 + 8 * i)
        for j in range(4):
            halves[to + 16 + 64 * i + 16 * j] = np.uint16(word >> np.uint64(16 * j))
    return abs(scale) * np.float32(128) * SCALED <= LARGEST


@cpu_device(inline=True)
def _pack_numbers(weights, first, lane, halves, at):
    """Write a row's weights, rounded to bfloat16; return whether all are finite."""
    wrong = np.float32(0)
    for column in range(min(BLOCK, weights.size - first)):
        weight = np.float32(weights[first + column])
        wrong += weight * np.float32(0)
        bits = np.float32(weight * DOWN).view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        to = at // 2 + column // 2 * 32 + lane * 2 + column % 2
        halves[to] = np.uint16(rounded >> np.uint32(16))
    return wrong == 0


@cpu_kernel
def _pack_panels(start, stop, scratch, data, format, columns, bits, size, halves, numbers, wrong):
    """Pack panels ``start`` to ``stop - 1``. No error check.

    ``halves`` and ``numbers`` are the packed matrix, flat, by 16 and by 32 bits; both are written.
    ``wrong[0]`` becomes the number of a row that has a weight which is NaN or infinite.
    """
    blocks = (columns + BLOCK - 1) // BLOCK
    for panel in range(start, stop):
        for lane in range(min(PANEL, data.shape[0] - panel * PANEL)):
            row = data[panel * PANEL + lane]
            pointer = pointer_to(row)
            if bits == 16:
                formats.unpack_span(format, row, 0, scratch[:columns])
            sound = True
            for index in range(blocks):
                at = (panel * blocks + index) * size
                if bits == 4:
                    sound &= _pack_half_bytes(
                        format, row, pointer, index, lane, halves, numbers, at
                    )
                elif bits == 8:
                    sound &= _pack_bytes(pointer, index, lane, halves, at)
                else:
                    sound &= _pack_numbers(scratch, index * BLOCK, lane, halves, at)
            if not sound:
                wrong[0] = panel * PANEL + lane


def bfloat16_bytes(format: int, rows: int, columns: int) -> int:
    """Return the bytes that a packed matrix takes, if its weights are of common size."""
    return -(-rows // PANEL) * -(-columns // BLOCK) * BLOCK_BYTES[_bits(format)]


def _bits(format: int) -> int:
    return 4 if format in (Q4_0, Q4_1, Q4_K) else 8 if format == Q8_0 else 16


def begin_bfloat16(
    data: np.ndarray,
    format: int,
    columns: int,
    bits: int,
    scratch: np.ndarray,
    take: Callable[..., np.ndarray],
) -> tuple[Call, PackedMatrix, np.ndarray]:
    """Return the call that packs a matrix, as :func:`pack_all` wants it; up to 16 bits."""
    bits = bits or _bits(format)
    size, panels = BLOCK_BYTES[bits], -(-len(data) // PANEL)
    out = take((panels, -(-columns // BLOCK) * size), np.uint8)
    wrong, flat = np.full(1, -1), out.reshape(-1)
    views = flat.view(np.uint16), flat.view(np.uint32)
    call = Call(_pack_panels, panels, (data, format, columns, bits, size, *views, wrong), scratch)
    return call, PackedMatrix(out, bits, len(data), columns, PANEL), wrong
