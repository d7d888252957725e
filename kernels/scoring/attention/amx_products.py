"""Attention's products by Intel's tile registers (AMX).

Of sixteen queries: for fewer, the tiles that hold them have fewer rows.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import (
    configure,
    dot_bfloat16,
    load_tile,
    release,
    store_tile,
    tile_shapes,
    zero_tile,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP

__all__ = ["add_values", "begin_products", "end_products", "score_unit"]

TILE = 16
"""Rows of a tile, and its float32 numbers in a row."""

# Tiles 0 to 3 are sums, 4 queries or weights, 7 more weights (fewer rows where there are fewer
# queries), 5 and 6 keys and values.
_SHAPES = np.stack(
    [tile_shapes([rows] * 5 + [TILE, TILE, rows], [64] * 8) for rows in range(1, TILE + 1)]
)


@cpu_device(inline=True)
def begin_products(rows):
    """Configure the tiles for so many queries."""
    configure(_SHAPES[rows - 1])


@cpu_device(inline=True)
def end_products():
    """Give the tiles back."""
    release()


@cpu_device(inline=True)
def score_unit(scratch, queries, steps, keys, places, step_size, rows, out, cache, ahead):
    """Write the products of 16 queries with four blocks of keys to 16 rows of scores.

    Four tiles of sums at a time: a product is ready only after three times what it keeps the unit
    of products busy for.
    """
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    for step in range(steps):
        at = step * step_size
        load_tile(4, scratch, queries + step * (DEEP // 2), steps * 2 * DEEP)
        load_tile(5, keys, places[0] + at, 64)
        dot_bfloat16(0, 4, 5)
        load_tile(6, keys, places[1] + at, 64)
        dot_bfloat16(1, 4, 6)
        load_tile(5, keys, places[2] + at, 64)
        dot_bfloat16(2, 4, 5)
        load_tile(6, keys, places[3] + at, 64)
        dot_bfloat16(3, 4, 6)
    store_tile(0, scratch, out, 4 * KEYS)
    store_tile(1, scratch, out + BLOCK, 4 * KEYS)
    store_tile(2, scratch, out + 2 * BLOCK, 4 * KEYS)
    store_tile(3, scratch, out + 3 * BLOCK, 4 * KEYS)


@cpu_device(inline=True)
def add_values(scratch, weights, values, places, width, rows, out, cache, ahead):
    """Add 64 values, times the weights of 16 queries, to 16 rows of results.

    The four blocks of values are neighbours in ``values``: a tile takes 32 at a time.
    """
    load_tile(4, scratch, weights, 2 * KEYS)
    load_tile(7, scratch, weights + DEEP // 2, 2 * KEYS)
    stride, other = 4 * width, TILE * width  # the values of keys 32 to 63
    whole = width // KEYS * KEYS
    for i in range(0, whole, KEYS):
        at, to = places[0] + i, out + i
        load_tile(0, scratch, to, stride)
        load_tile(5, values, at, stride)
        dot_bfloat16(0, 4, 5)
        load_tile(1, scratch, to + TILE, stride)
        load_tile(6, values, at + TILE, stride)
        dot_bfloat16(1, 4, 6)
        load_tile(2, scratch, to + 2 * TILE, stride)
        load_tile(5, values, at + 2 * TILE, stride)
        dot_bfloat16(2, 4, 5)
        load_tile(3, scratch, to + 3 * TILE, stride)
        load_tile(6, values, at + 3 * TILE, stride)
        dot_bfloat16(3, 4, 6)
        load_tile(5, values, at + other, stride)
        dot_bfloat16(0, 7, 5)
        load_tile(6, values, at + other + TILE, stride)
        dot_bfloat16(1, 7, 6)
        load_tile(5, values, at + other + 2 * TILE, stride)
        dot_bfloat16(2, 7, 5)
        load_tile(6, values, at + other + 3 * TILE, stride)
        dot_bfloat16(3, 7, 6)
        store_tile(0, scratch, to, stride)
        store_tile(1, scratch, to + TILE, stride)
        store_tile(2, scratch, to + 2 * TILE, stride)
        store_tile(3, scratch, to + 3 * TILE, stride)
    for i in range(whole, width, TILE):
        load_tile(1, scratch, out + i, stride)
        load_tile(6, values, places[0] + i, stride)
        dot_bfloat16(1, 4, 6)
        load_tile(6, values, places[0] + other + i, stride)
        dot_bfloat16(1, 7, 6)
        store_tile(1, scratch, out + i, stride)
