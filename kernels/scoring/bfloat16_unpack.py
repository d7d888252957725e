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
    "block_scales",
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
def _scales_by_halves(data, at, bits):
    scale = load_twice(data, at)
    return scale, load_twice(data, at + 32) if bits == 4 else scale


@cpu_device(inline=True)
def _quarter_by_halves(data, at, quarter, bits, scales, memory, to, table, later):
    _ask(data, later, quarter, bits)
    scale, least = scales
    if bits == 4:
        codes, numbers = load_int32(data, at + 64 + 64 * quarter), load_int32(table, 0)
        _half_byte_lines(codes, numbers, scale, least, memory, to + 256 * quarter)
    else:
        _byte_lines(data, at + 32 + 128 * quarter, scale, memory, to + 256 * quarter)


@cpu_device(inline=True)
def _scales_by_floats(data, at, bits):
    scale = load_half(data, at)
    return scale, load_half(data, at + 32) if bits == 4 else scale


@cpu_device(inline=True)
def _quarter_by_floats(data, at, quarter, bits, scales, memory, to, table, later):
    _ask(data, later, quarter, bits)
    scale, least = scales
    if bits == 4:
        all_codes = load_int32(data, at + 64 + 64 * quarter)
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


block_scales = _scales_by_halves if HAS_TILES else _scales_by_floats
"""``block_scales(data, at, bits)`` returns what multiplies the codes of a block, and what is added.

Only codes of 4 bits have something added.
"""

unpack_quarter = _quarter_by_halves if HAS_TILES else _quarter_by_floats
"""``unpack_quarter(data, at, quarter, bits, scales, memory, to, HALF_BYTES, later)``.

Unpacks four lines of a block, from ``4 * quarter`` on. No error check. ``at`` is the block's first
byte in ``data``, ``scales`` are from ``block_scales``; the tile, times ``DOWN``, goes to the 1,024
bytes of ``memory`` from ``to`` on. Meanwhile a quarter of the block at ``later`` is asked for.
"""


@cpu_device(inline=True)
def unpack_block(data, at, bits, memory, to, table, later):
    """Unpack a block, as ``unpack_quarter`` its quarters."""
    scales = block_scales(data, at, bits)
    for quarter in range(4):
        unpack_quarter(data, at, quarter, bits, scales, memory, to, table, later)
