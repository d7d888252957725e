"""Attention's products by instructions for pairs of bfloat16 (AVX512-BF16).

Four queries meet four vectors of keys, or of values, at a time: sixteen sums stay in registers, and
eight loads serve sixteen products of 16 pairs.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP
from numbatch.kernels.simd import (
    LANES,
    load_float32,
    load_int32,
    prefetch_to_l2,
    splat,
    store_float32,
)
from numbatch.kernels.simd_bfloat16 import dot_pairs
from numbatch.kernels.simd_bytes import splat_bytes

__all__ = ["add_values", "begin_products", "end_products", "score_unit"]

SHARING = 4
"""Queries that share loads."""

COLUMNS = 4 * LANES
"""Columns of values that are added at a time."""

BLOCK_PAIRS = BLOCK // 2
"""Pairs of values in a block."""


@cpu_device(inline=True)
def begin_products(rows):
    """Nothing has to be made ready."""


@cpu_device(inline=True)
def end_products():
    """Nothing has to be given back."""


@cpu_device(inline=True)
def _zeros():
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@cpu_device(inline=True)
def _load_four(array, at, step):
    return (
        load_float32(array, at),
        load_float32(array, at + step),
        load_float32(array, at + 2 * step),
        load_float32(array, at + 3 * step),
    )


@cpu_device(inline=True)
def _store_four(array, at, step, four):
    store_float32(array, at, four[0])
    store_float32(array, at + step, four[1])
    store_float32(array, at + 2 * step, four[2])
    store_float32(array, at + 3 * step, four[3])


@cpu_device(inline=True)
def _add_products(sums, vectors, pair):
    """Add the products of one pair with four vectors of pairs."""
    return (
        dot_pairs(sums[0], vectors[0], pair),
        dot_pairs(sums[1], vectors[1], pair),
        dot_pairs(sums[2], vectors[2], pair),
        dot_pairs(sums[3], vectors[3], pair),
    )


@cpu_device(inline=True)
def _ask(cache, ahead, at):
    """Ask for a line of each of four blocks that are read later."""
    prefetch_to_l2(cache, ahead[0] + at)
    prefetch_to_l2(cache, ahead[1] + at)
    prefetch_to_l2(cache, ahead[2] + at)
    prefetch_to_l2(cache, ahead[3] + at)


@cpu_device(inline=True)
def _score_rows(
    scratch, query, pairs, size, keys, places, four, out, cache, ahead
):  # fmt: skip
    """Write the products of three or ``four`` queries with four blocks of keys."""
    a = b = c = d = _zeros()
    asked = cache.shape[4] // pairs
    for pair in range(pairs):
        at = pair * size
        found = (
            load_int32(keys, places[0] + at),
            load_int32(keys, places[1] + at),
            load_int32(keys, places[2] + at),
            load_int32(keys, places[3] + at),
        )
        _ask(cache, ahead, pair * asked)
        a = _add_products(a, found, splat_bytes(scratch, query + pair))
        b = _add_products(b, found, splat_bytes(scratch, query + pairs + pair))
        c = _add_products(c, found, splat_bytes(scratch, query + 2 * pairs + pair))
        if four:
            d = _add_products(d, found, splat_bytes(scratch, query + 3 * pairs + pair))
    _store_four(scratch, out, BLOCK, a)
    _store_four(scratch, out + KEYS, BLOCK, b)
    _store_four(scratch, out + 2 * KEYS, BLOCK, c)
    if four:
        _store_four(scratch, out + 3 * KEYS, BLOCK, d)


@cpu_device(inline=True)
def score_unit(scratch, queries, steps, keys, places, step_size, rows, out, cache, ahead):
    """Write the products of up to 16 queries with four blocks of keys to rows of scores.

    Meanwhile the keys of the blocks at ``ahead`` are asked for.
    """
    pairs, size, whole = steps * DEEP // 2, step_size // (DEEP // 2), rows // SHARING * SHARING
    for row in range(0, whole, SHARING):
        _score_rows(scratch, queries + row * pairs, pairs, size, keys, places, True,
                    out + row * KEYS, cache, ahead)  # fmt: skip
    if whole < rows:
        _score_rows(scratch, queries + whole * pairs, pairs, size, keys, places, False,
                    out + whole * KEYS, cache, ahead)  # fmt: skip


@cpu_device(inline=True)
def _add_columns(
    scratch, weight, values, places, width, i, four, out, cache, ahead, asked, asked_step
):
    """Add 64 columns of the values, from ``i`` on, to three or ``four`` rows of results."""
    pairs, size = KEYS // 2, 4 // values.itemsize  # elements in a pair
    a, b = _load_four(scratch, out, LANES), _load_four(scratch, out + width, LANES)
    c, d = _load_four(scratch, out + 2 * width, LANES), _zeros()
    if four:
        d = _load_four(scratch, out + 3 * width, LANES)
    for pair in range(pairs):
        at = places[pair // BLOCK_PAIRS] + (pair % BLOCK_PAIRS * width + i) * size
        found = (
            load_int32(values, at),
            load_int32(values, at + LANES * size),
            load_int32(values, at + 2 * LANES * size),
            load_int32(values, at + 3 * LANES * size),
        )
        _ask(cache, ahead, asked + pair * asked_step)
        a = _add_products(a, found, splat_bytes(scratch, weight + pair))
        b = _add_products(b, found, splat_bytes(scratch, weight + pairs + pair))
        c = _add_products(c, found, splat_bytes(scratch, weight + 2 * pairs + pair))
        if four:
            d = _add_products(d, found, splat_bytes(scratch, weight + 3 * pairs + pair))
    _store_four(scratch, out, LANES, a)
    _store_four(scratch, out + width, LANES, b)
    _store_four(scratch, out + 2 * width, LANES, c)
    if four:
        _store_four(scratch, out + 3 * width, LANES, d)


@cpu_device(inline=True)
def _add_rest(scratch, weight, values, places, width, i, out):
    """Add 16 columns of the values, from ``i`` on, to four rows of results."""
    pairs, size = KEYS // 2, 4 // values.itemsize
    four = _load_four(scratch, out, width)
    for pair in range(pairs):
        at = places[pair // BLOCK_PAIRS] + (pair % BLOCK_PAIRS * width + i) * size
        found, to = load_int32(values, at), weight + pair
        four = (
            dot_pairs(four[0], found, splat_bytes(scratch, to)),
            dot_pairs(four[1], found, splat_bytes(scratch, to + pairs)),
            dot_pairs(four[2], found, splat_bytes(scratch, to + 2 * pairs)),
            dot_pairs(four[3], found, splat_bytes(scratch, to + 3 * pairs)),
        )
    _store_four(scratch, out, width, four)


@cpu_device(inline=True)
def add_values(scratch, weights, values, places, width, rows, out, cache, ahead):
    """Add the values of four blocks, times the weights of up to 16 queries, to rows of results.

    Meanwhile the values of the blocks at ``ahead``, where their keys are, are asked for.
    """
    whole, part = width // COLUMNS * COLUMNS, cache.shape[4]
    asked_step = 2 * COLUMNS * part // (KEYS * max(whole, 1))  # elements for each pair of keys
    for row in range(0, rows, SHARING):
        weight, first = weights + row * (KEYS // 2), out + row * width
        for i in range(0, whole, COLUMNS):
            asked = part + i * part // whole
            if rows - row >= SHARING:
                _add_columns(scratch, weight, values, places, width, i, True, first + i, cache,
                             ahead, asked, asked_step)  # fmt: skip
            else:
                _add_columns(scratch, weight, values, places, width, i, False, first + i, cache,
                             ahead, asked, asked_step)  # fmt: skip
        for i in range(whole, width, LANES):
            _add_rest(scratch, weight, values, places, width, i, first + i)
