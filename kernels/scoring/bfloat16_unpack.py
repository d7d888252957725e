"""Blocks of 4 and 8 bits into tiles of bfloat16; bfloat16_panels.py says how they lie in memory.

A weight becomes ``scale * code + least`` in float32, or in float16 where there are tiles, and that
is rounded to bfloat16. Four lines of a tile, a quarter, are the least that is unpacked at a time:
what one vector of half bytes holds.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd import (
    fma,
    load_int32,
    load_uint16,
    prefetch,
    store_int32,
    to_float32,
)
from numbatch.kernels.simd_bfloat16 import pair_bfloat16
from numbatch.kernels.simd_bytes import load_twice
from numbatch.kernels.simd_halves import (
    fma_halves,
    load_half,
    load_halves_of_bytes,
    look_up_shorts,
    low_bytes_shifted,
    multiply_halves,
    short_bfloat16,
)
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "AHEAD",
    "BLOCK_BYTES",
    "DOWN",
    "HALF_BYTES",
    "HAS_TILES",
    "SCALED",
    "TILE",
    "later_block",
    "unpack_block",
    "unpack_quarter",
]

TILE = 1024
"""Bytes of an unpacked block."""

BLOCK_BYTES = {4: 320, 8: 544, 16: TILE}

AHEAD = 24 << 10
"""Bytes from the block that is unpacked to the one that is asked for meanwhile.

Of 2 to 48 KB, the least that was as fast as more. Asked for line by line between the lines that are
unpacked, weights come from memory a third faster than where all lines of a block are asked for at
once: these fill the buffers of lines under way, and the CPU stops.
"""

HALF_BYTES = aligned((64,), np.uint8)
HALF_BYTES.view(np.float16)[:] = np.tile(np.arange(16), 2)
"""The numbers 0 to 15 twice: a place in it needs only the low 4 of its 5 bits."""

HAS_TILES = simd_path() == "amx"

SCALED = np.float32(2.0**8 if HAS_TILES else 1)
"""Weights are kept as so many times what they are: in float16 none is then subnormal."""

DOWN = np.float32(2.0**-104 if HAS_TILES else 1)
"""Unpacked weights are so many times what they are; activations are scaled up for it.

Where float16 is unpacked, its exponent takes the place of bfloat16's without the difference of the
biases (2**-112) being mended.
"""


@cpu_device(inline=True)
def later_block(at, ahead, end, jump):
    """Return which byte to ask for while the block at ``at`` is unpacked.

    Beyond ``end``, where a thread's panels end, its part of the next matrix is asked for, ``jump``
    bytes further on.
    """
    later = at + ahead
    return later + jump if later >= end else later


@cpu_device(inline=True)
def _ask(data, later, quarter, bits):
    """Ask for a quarter of the lines of the block at ``later``."""
    if bits == 4:
        prefetch(data, later + 64 * quarter)
        if quarter == 3:
            prefetch(data, later + 256)
    else:
        prefetch(data, later + 128 * quarter)
        prefetch(data, later + 128 * quarter + 64)
        if quarter == 3:
            prefetch(data, later + 512)


@cpu_device(inline=True)
def _half_byte_lines(codes, numbers, scale, least, memory, to):
    """Unpack four lines of half bytes in float16, 32 weights at a time."""
    found = look_up_shorts(numbers, codes)
    store_int32(memory, to, short_bfloat16(fma_halves(found, scale, least)))
    found = look_up_shorts(numbers, low_bytes_shifted(codes, 4))
    store_int32(memory, to + 64, short_bfloat16(fma_halves(found, scale, least)))
    found = look_up_shorts(numbers, low_bytes_shifted(codes, 8))
    store_int32(memory, to + 128, short_bfloat16(fma_halves(found, scale, least)))
    found = look_up_shorts(numbers, low_bytes_shifted(codes, 12))
    store_int32(memory, to + 192, short_bfloat16(fma_halves(found, scale, least)))


@cpu_device(inline=True)
def _byte_lines(data, at, scale, memory, to):
    """Unpack four lines of bytes in float16."""
    for line in range(4):
        weights = multiply_halves(load_halves_of_bytes(data, at + 32 * line), scale)
        store_int32(memory, to + 64 * line, short_bfloat16(weights))


@cpu_device(inline=True)
def _quarter_by_halves(data, at, quarter, bits, memory, to, table, later):
    _ask(data, later, quarter, bits)
    scale, line = load_twice(data, at), to + 256 * quarter
    if bits == 4:
        codes, least = load_int32(data, at + 64 + 64 * quarter), load_twice(data, at + 32)
        _half_byte_lines(codes, load_int32(table, 0), scale, least, memory, line)
    else:
        _byte_lines(data, at + 32 + 128 * quarter, scale, memory, line)


@cpu_device(inline=True)
def _block_by_halves(data, at, bits, memory, to, table, later):
    scale = load_twice(data, at)
    if bits == 4:
        numbers, least = load_int32(table, 0), load_twice(data, at + 32)
        for quarter in range(4):
            _ask(data, later, quarter, bits)
            codes = load_int32(data, at + 64 + 64 * quarter)
            _half_byte_lines(codes, numbers, scale, least, memory, to + 256 * quarter)
    else:
        for quarter in range(4):
            _ask(data, later, quarter, bits)
            place = at + 32 + 128 * quarter
            _byte_lines(data, place, scale, memory, to + 256 * quarter)


@cpu_device(inline=True)
def _quarter_by_floats(data, at, quarter, bits, memory, to, table, later):
    _ask(data, later, quarter, bits)
    scale = load_half(data, at)
    if bits == 4:
        least, all_codes = load_half(data, at + 32), load_int32(data, at + 64 + 64 * quarter)
        for line in range(4):
            codes = all_codes >> (4 * line)
            even = fma(to_float32(codes & 15), scale, least)
            odd = fma(to_float32((codes >> 16) & 15), scale, least)
            store_int32(memory, to + 256 * quarter + 64 * line, pair_bfloat16(even, odd))
    else:
        for line in range(4 * quarter, 4 * quarter + 4):
            codes = load_uint16(data, at + 32 + 32 * line)
            even = to_float32(((codes & 255) ^ 128) - 128) * scale
            odd = to_float32(((codes >> 8) ^ 128) - 128) * scale
            store_int32(memory, to + 64 * line, pair_bfloat16(even, odd))


@cpu_device(inline=True)
def _block_by_floats(data, at, bits, memory, to, table, later):
    for quarter in range(4):
        _quarter_by_floats(data, at, quarter, bits, memory, to, table, later)


unpack_block = _block_by_halves if HAS_TILES else _block_by_floats
"""``unpack_block(data, at, bits, memory, to, HALF_BYTES, later)`` unpacks a block of 4 or 8 bits.

No error check. ``at`` is the block's first byte in ``data``; the tile, times ``DOWN``, goes to the
1,024 bytes of ``memory`` from ``to``. Meanwhile the block at byte ``later`` is asked for.
"""

unpack_quarter = _quarter_by_halves if HAS_TILES else _quarter_by_floats
"""As ``unpack_block``, but four lines of the tile, from line ``4 * quarter`` on.

``unpack_quarter(data, at, quarter, bits, memory, to, HALF_BYTES, later)``; a quarter of the block
at ``later`` is asked for.
"""
