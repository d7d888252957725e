"""A unit's weights, woven with the products of the next unit and of the one before it.

For tile registers, full tiles of sixteen queries, and heads of 64 numbers. Few instructions for
tiles stand behind each half of a row's weights: so the CPU does both at a time. At 4,096 keys a
unit takes 420 to 430 ns of an Emerald Rapids; with all products of scores, eight rows, all products
of values and eight rows one after another it took 475.
"""

from __future__ import annotations

from numbatch.kernels.amx import dot_bfloat16, load_tile, store_tile, zero_tile
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP
from numbatch.kernels.simd import LANES, load_float32, maximum, splat, store_float32
from numbatch.kernels.simd_bfloat16 import exp2_short, store_two_bfloat16

__all__ = ["weigh_and_add", "weigh_and_score", "weigh_rows"]

TILE = 16

WIDE = 4 * KEYS
"""Bytes of a row of scores, of results, and of a pair of values."""


@cpu_device(inline=True)
def _half(scratch, row, weights, narrow, factors, top):
    """Write the weights of 32 of a row's scores; return the sum of their two vectors."""
    a = exp2_short(load_float32(scratch, row) - top)
    b = exp2_short(load_float32(scratch, row + LANES) - top)
    total = a + b
    if narrow:
        a, b = a * load_float32(scratch, factors), b * load_float32(scratch, factors + LANES)
    store_two_bfloat16(scratch, weights, a, b)
    return total


@cpu_device(inline=True)
def _first(scratch, rows, i):
    """Write half of a row's weights; return the sum of two vectors."""
    scores, weights, narrow, factors, _, _, largest = rows
    return _half(scratch, scores + i * KEYS, weights + i * KEYS // 2, narrow, factors + KEYS,
                 splat(scratch[largest + i]))  # fmt: skip


@cpu_device(inline=True)
def _second(scratch, rows, i, half, most):
    """Finish a row: add its weights to its sum; return the larger of ``most`` and what it added."""
    scores, weights, narrow, factors, sums, saved, largest = rows
    other = _half(scratch, scores + i * KEYS + 2 * LANES, weights + i * KEYS // 2 + LANES, narrow,
                  factors + KEYS + 2 * LANES, splat(scratch[largest + i]))  # fmt: skip
    total, before = half + other, load_float32(scratch, sums + i * LANES)
    store_float32(scratch, saved + i * LANES, before)
    store_float32(scratch, sums + i * LANES, before + total)
    return maximum(total, most)


@cpu_device(inline=True)
def weigh_rows(scratch, rows, first, end, most):
    """Write the weights of some rows, and their sums; return the largest that a lane adds.

    ``rows``: where the scores and the weights lie, whether there are factors of values and where
    they are, where the sums lie, where to keep those before, and where the maxima are.
    """
    for i in range(first, end):
        most = _second(scratch, rows, i, _first(scratch, rows, i), most)
    return most


@cpu_device(inline=True)
def weigh_and_score(scratch, rows, most, queries, keys, places, step, out):
    """Do the first eight rows, and write the scores of another unit."""
    load_tile(4, scratch, queries, 4 * DEEP)
    load_tile(3, scratch, queries + DEEP // 2, 4 * DEEP)
    most = _score_two(scratch, rows, 0, most, keys, places[0], places[1], step, out)
    return _score_two(scratch, rows, 4, most, keys, places[2], places[3], step, out + 2 * BLOCK)


@cpu_device(inline=True)
def _score_two(scratch, rows, i, most, keys, a, b, step, out):
    """Do four rows, and the scores of two blocks of keys."""
    half = _first(scratch, rows, i)
    zero_tile(0)
    load_tile(5, keys, a, 64)
    most = _second(scratch, rows, i, half, most)
    dot_bfloat16(0, 4, 5)
    half = _first(scratch, rows, i + 1)
    load_tile(5, keys, a + step, 64)
    most = _second(scratch, rows, i + 1, half, most)
    dot_bfloat16(0, 3, 5)
    half = _first(scratch, rows, i + 2)
    zero_tile(1)
    load_tile(5, keys, b, 64)
    most = _second(scratch, rows, i + 2, half, most)
    dot_bfloat16(1, 4, 5)
    half = _first(scratch, rows, i + 3)
    store_tile(0, scratch, out, WIDE)
    load_tile(5, keys, b + step, 64)
    most = _second(scratch, rows, i + 3, half, most)
    dot_bfloat16(1, 3, 5)
    store_tile(1, scratch, out + BLOCK, WIDE)
    return most


@cpu_device(inline=True)
def weigh_and_add(scratch, rows, most, weights, values, places, out):
    """Do the last eight rows, and add the values of another unit to its results."""
    load_tile(0, scratch, out, WIDE)
    most = _add_block(scratch, rows, 8, most, weights, values, places[0], out, True, False)
    most = _add_block(scratch, rows, 10, most, weights + 8, values, places[1], out, False, False)
    most = _add_block(scratch, rows, 12, most, weights + 16, values, places[2], out, False, False)
    most = _add_block(scratch, rows, 14, most, weights + 24, values, places[3], out, False, True)
    store_tile(3, scratch, out + 3 * TILE, WIDE)
    return most


@cpu_device(inline=True)
def _add_block(scratch, rows, i, most, weights, values, at, out, first, last):
    """Do two rows, and add a block of values to the tiles of results."""
    line = 64 // values.itemsize
    load_tile(7, scratch, weights, 2 * KEYS)
    half = _first(scratch, rows, i)
    load_tile(6, values, at, WIDE)
    if first:
        load_tile(1, scratch, out + TILE, WIDE)
    dot_bfloat16(0, 7, 6)
    most = _second(scratch, rows, i, half, most)
    load_tile(6, values, at + line, WIDE)
    if first:
        load_tile(2, scratch, out + 2 * TILE, WIDE)
    dot_bfloat16(1, 7, 6)
    if last:
        store_tile(0, scratch, out, WIDE)
    half = _first(scratch, rows, i + 1)
    load_tile(6, values, at + 2 * line, WIDE)
    if first:
        load_tile(3, scratch, out + 3 * TILE, WIDE)
    dot_bfloat16(2, 7, 6)
    if last:
        store_tile(1, scratch, out + TILE, WIDE)
    most = _second(scratch, rows, i + 1, half, most)
    load_tile(6, values, at + 3 * line, WIDE)
    dot_bfloat16(3, 7, 6)
    if last:
        store_tile(2, scratch, out + 2 * TILE, WIDE)
    return most
