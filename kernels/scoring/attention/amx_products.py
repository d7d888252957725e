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

# Tiles 0 to 3 are sums, 4 queries (3 too where units are woven), 5 keys, 6 a block of values, 7 its
# weights; 0 to 4 and 7 have fewer rows where there are fewer queries.
_SHAPES = np.stack(
    [
        tile_shapes([rows] * 5 + [TILE, BLOCK // 2, rows], [64] * 7 + [2 * BLOCK])
        for rows in range(1, TILE + 1)
    ]
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
        load_tile(5, keys, places[1] + at, 64)
        dot_bfloat16(1, 4, 5)
        load_tile(5, keys, places[2] + at, 64)
        dot_bfloat16(2, 4, 5)
        load_tile(5, keys, places[3] + at, 64)
        dot_bfloat16(3, 4, 5)
    store_tile(0, scratch, out, 4 * KEYS)
    store_tile(1, scratch, out + BLOCK, 4 * KEYS)
    store_tile(2, scratch, out + 2 * BLOCK, 4 * KEYS)
    store_tile(3, scratch, out + 3 * BLOCK, 4 * KEYS)


@cpu_device(inline=True)
def add_values(scratch, weights, values, places, width, rows, out, cache, ahead):
    """Add 64 values, times the weights of 16 queries, to 16 rows of results.

    A block at a time, whose values fill half a tile, so that they are read where they lie: to copy
    two next to each other took some 100 of 500 ns a unit.
    """
    stride, line = 4 * width, 64 // values.itemsize
    whole = width // KEYS * KEYS
    for i in range(0, whole, KEYS):
        to, at = out + i, i // TILE * line
        load_tile(0, scratch, to, stride)
        load_tile(1, scratch, to + TILE, stride)
        load_tile(2, scratch, to + 2 * TILE, stride)
        load_tile(3, scratch, to + 3 * TILE, stride)
        for block in range(KEYS // BLOCK):
            place = places[block] + at
            load_tile(7, scratch, weights + block * (BLOCK // 2), 2 * KEYS)
            load_tile(6, values, place, stride)
            dot_bfloat16(0, 7, 6)
            load_tile(6, values, place + line, stride)
            dot_bfloat16(1, 7, 6)
            load_tile(6, values, place + 2 * line, stride)
            dot_bfloat16(2, 7, 6)
            load_tile(6, values, place + 3 * line, stride)
            dot_bfloat16(3, 7, 6)
        store_tile(0, scratch, to, stride)
        store_tile(1, scratch, to + TILE, stride)
        store_tile(2, scratch, to + 2 * TILE, stride)
        store_tile(3, scratch, to + 3 * TILE, stride)
    for i in range(whole, width, TILE):
        load_tile(1, scratch, out + i, stride)
        for block in range(KEYS // BLOCK):
            load_tile(7, scratch, weights + block * (BLOCK // 2), 2 * KEYS)
            load_tile(6, values, places[block] + i // TILE * line, stride)
            dot_bfloat16(1, 7, 6)
        store_tile(1, scratch, out + i, stride)
