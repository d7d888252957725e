"""The int8 product for many rows on a CPU with tile registers (AMX).

Bit for bit what ``int8_product`` computes. The codes of two panels (32 rows of the matrix) meet 32
rows of activations at a time in four tiles of exact int32 sums; at the end of each group vector
code scales the sums and adds them to the totals, which stay in the L1 cache.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import (
    configure,
    dot_signed_unsigned,
    load_tile,
    release,
    store_tile,
    tile_shapes,
    zero_tile,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import store_output
from numbatch.kernels.scoring.int8_panels import GROUP, PANEL, ZERO, wide
from numbatch.kernels.scoring.int8_product import scaled, unpack_panel
from numbatch.kernels.simd import load_float32, load_int32, splat, splat_int32, store_float32

__all__ = ["SHAPES", "TILED", "multiply_panels_by_tiles", "tile_memory"]

TILED = 8
"""Rows from which tiles are faster than ``int8_product``."""

DEPTH = 64
"""Columns in a tile."""

TILE = 1024
"""Bytes of a tile."""

SHAPES = tile_shapes([16] * 8, [64] * 8)
"""Tiles 0 to 3: sums. 4, 5: 16 rows of activations each. 6, 7: codes, 4 columns a row."""


def tile_memory(columns: int) -> int:
    """Return the bytes of working memory that a thread needs for matrices of so many columns."""
    return 2 * wide(columns) * PANEL + 8 * TILE


@cpu_device
def _multiply_group(codes, at, width, two, first, last, a, a_at, b, b_at, sums, sums_at):
    """Write the tiles of a group's sums; two of the four where there are up to 16 rows.

    ``a`` and ``b`` hold the codes of the panels, ``codes`` those of the activations.
    """
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    for k in range(first, last, DEPTH):
        load_tile(6, a, a_at + k * PANEL, 64)
        load_tile(4, codes, at + k, width)
        dot_signed_unsigned(0, 4, 6)
        load_tile(7, b, b_at + k * PANEL, 64)
        dot_signed_unsigned(1, 4, 7)
        if two:
            load_tile(5, codes, at + 16 * width + k, width)
            dot_signed_unsigned(2, 5, 6)
            dot_signed_unsigned(3, 5, 7)
    store_tile(0, sums, sums_at, 64)
    store_tile(1, sums, sums_at + TILE, 64)
    if two:
        store_tile(2, sums, sums_at + 2 * TILE, 64)
        store_tile(3, sums, sums_at + 3 * TILE, 64)


@cpu_device
def _add_tile(memory, sums_at, totals_at, scale, x, row, group):
    """Scale a tile of sums, 16 rows of x with a panel, and add it to its totals."""
    _, x_scales, sums = x
    zero = splat(np.float32(0))
    for r in range(PANEL):
        at = r * 64
        shift = splat_int32(-ZERO * sums[row + r, group])
        total = zero
        if group:
            total = load_float32(memory, totals_at + at)
        value = load_int32(memory, sums_at + at) + shift
        total = scaled(value, scale, x_scales[row + r, group], total)
        store_float32(memory, totals_at + at, total)


@cpu_device
def multiply_panels_by_tiles(
    start, stop, memory, shapes, data, scales, bits, x, rows, out, shift, bias, add
):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``, by tiles.

    No error check. Arguments are those of ``int8_product.multiply_panels``, but:

    memory : uint8 array, from a cache line on
        Of at least :func:`tile_memory` bytes; overwritten.
    shapes : uint8 array
        ``SHAPES``.
    x
        Has room for a multiple of 32 rows.
    """
    codes, width, stride = x[0], x[0].shape[1], out.shape[1]
    flat = data.reshape(data.size)
    sums_at = 2 * width * PANEL
    totals_at = sums_at + 4 * TILE
    configure(shapes)
    for panel in range(start, stop, 2):
        panels = min(2, stop - panel)
        a = b = flat
        a_at, b_at = panel * data.shape[1], (panel + panels - 1) * data.shape[1]
        if bits == 4:
            unpack_panel(data, a_at, width, memory, 0)
            unpack_panel(data, b_at, width, memory, width * PANEL)
            a = b = memory
            a_at, b_at = 0, width * PANEL
        for row in range(0, rows, 32):
            two = rows - row > 16
            for group in range(x[1].shape[1]):
                first = group * GROUP
                last = min(first + GROUP, width)
                _multiply_group(
                    *(codes, row * width, width, two, first, last),
                    *(a, a_at, b, b_at, memory, sums_at),
                )
                for tile in range(4 if two else 2):
                    place = (panel + min(tile % 2, panels - 1)) * scales.shape[1] + group
                    scale = load_float32(scales, place * PANEL)
                    _add_tile(
                        *(memory, sums_at + tile * TILE, totals_at + tile * TILE, scale),
                        *(x, row + tile // 2 * 16, group),
                    )
            for p in range(panels):
                n = (panel + p) * PANEL
                for r in range(min(32, rows - row)):
                    place = totals_at + (r // 16 * 2 + p) * TILE + r % 16 * 64
                    at = (row + r) * stride + n - shift
                    store_output(out, at, load_float32(memory, place), bias, n, add)
    release()
