"""What the work on units takes besides products and weights: which come next, and their copies."""

from __future__ import annotations

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.simd import LANES, load_float32, load_int32, store_float32, store_int32
from numbatch.kernels.simd_bfloat16 import join_pairs, load_pairs

__all__ = ["copy_values", "next_unit", "visible_unit", "widen", "widen_keys"]

TILE = 16


@cpu_device(inline=True)
def copy_values(cache, at, width, scratch, out):
    """Copy a block's values next to those of the block before."""
    for i in range(0, width * BLOCK, 2 * LANES):
        store_int32(scratch, out + i // 2, load_int32(cache, at + i))


@cpu_device
def widen(cache, at, count, scratch, out):
    """Write int8 numbers as bfloat16; each is one exactly."""
    for i in range(0, count, 2 * LANES):
        even, odd = load_pairs(cache, at + i)
        join_pairs(scratch, out + i // 2, even, odd)


@cpu_device
def widen_keys(cache, at, width, deep, scratch, keys, factors):
    """Write a block's int8 keys as bfloat16, and their factors."""
    widen(cache, at, BLOCK * width, scratch, keys)
    scratch[keys + BLOCK * width // 2 : keys + BLOCK * deep // 2] = 0
    store_float32(scratch, factors, load_float32(cache, at + BLOCK * width))


@cpu_device
def visible_unit(tile, row, last_tile, rows, position, group, window):
    """Return the first unit, as (tile, row), from this one on of which anything is visible.

    Units are in order of key tiles, and for each of these of rows; (-1, 0) if there is none.
    """
    while tile <= last_tile:
        begin = tile * KEYS
        last = position + (min(row + TILE, rows) - 1) // group
        hidden = window > 0 and position + row // group - window >= begin + KEYS - 1
        if last >= begin and not hidden:
            return tile, row
        row += TILE
        if row >= rows:
            tile, row = tile + 1, 0
    return -1, 0


@cpu_device(inline=True)
def next_unit(tile, row, last_tile, rows, position, group, window):
    """Return the first visible unit behind one; (-1, 0) stays what it is."""
    if tile < 0:
        return tile, row
    row += TILE
    if row >= rows:
        tile, row = tile + 1, 0
    return visible_unit(tile, row, last_tile, rows, position, group, window)
