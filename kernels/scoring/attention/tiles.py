"""Attention by Intel's tile registers (AMX), for a cache of bfloat16 or int8.

Sixteen queries at a time: their scores for 64 keys, the weights, and the sums of 64 values. Queries
and weights are rounded to bfloat16, sums are float32. Scores are in units of log(2).
"""

from __future__ import annotations

import math

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
from numbatch.kernels.scoring.attention.scratch import DEEP, sections
from numbatch.kernels.scoring.attention.softmax import (
    LOWEST,
    finish_row,
    hide,
    scale_row,
    soft_cap,
)
from numbatch.kernels.simd import (
    LANES,
    load_float32,
    load_int32,
    max_lanes,
    maximum,
    splat,
    store_float32,
    store_int32,
    sum_lanes,
)
from numbatch.kernels.simd_bfloat16 import exp2_short, join_pairs, load_pairs, store_bfloat16

__all__ = ["attend_tile"]

TILE = 16
"""Rows of a tile, and its float32 numbers in a row."""

# Tiles 0 to 3 are sums, 4 and 7 queries or weights (fewer rows where there are fewer queries), 5
# and 6 keys or values.
_SHAPES = np.stack(
    [tile_shapes([rows] * 5 + [TILE, TILE, rows], [64] * 8) for rows in range(1, TILE + 1)]
)

_LOG2_E = np.float32(math.log2(math.e))


@cpu_device
def _score(scratch, queries, deep, keys, a, b, c, d, out):
    """Write the products of 16 queries with four blocks of keys to 16 rows of scores."""
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    for step in range(deep // DEEP):
        at = step * 2 * DEEP * BLOCK // keys.itemsize
        load_tile(4, scratch, queries + step * DEEP // 2, deep * 2)
        load_tile(5, keys, a + at, 64)
        dot_bfloat16(0, 4, 5)
        load_tile(6, keys, b + at, 64)
        dot_bfloat16(1, 4, 6)
        load_tile(5, keys, c + at, 64)
        dot_bfloat16(2, 4, 5)
        load_tile(6, keys, d + at, 64)
        dot_bfloat16(3, 4, 6)
    store_tile(0, scratch, out, 4 * KEYS)
    store_tile(1, scratch, out + TILE, 4 * KEYS)
    store_tile(2, scratch, out + 2 * TILE, 4 * KEYS)
    store_tile(3, scratch, out + 3 * TILE, 4 * KEYS)


@cpu_device
def _add_values(scratch, weights, values, width, out):
    """Add 64 values, times the weights of 16 queries, to their results."""
    load_tile(4, scratch, weights, 2 * KEYS)
    load_tile(7, scratch, weights + DEEP // 2, 2 * KEYS)
    for i in range(0, width, TILE):
        load_tile(0, scratch, out + i, 4 * width)
        load_tile(5, scratch, values + i, 4 * width)
        load_tile(6, scratch, values + i + TILE * width, 4 * width)
        dot_bfloat16(0, 4, 5)
        dot_bfloat16(0, 7, 6)
        store_tile(0, scratch, out + i, 4 * width)


@cpu_device
def _weigh(
    scratch, row, weights, begin, first, last, cap, narrow, factors, sums, largest, results, width
):
    """Write a row's weights as bfloat16; add them to the row's sum.

    Where the running maximum grows, the sum and the results so far are scaled down.
    """
    before = scratch[largest]
    top = splat(before)
    edge = begin < first or begin + KEYS > last + 1
    if cap != 0 or narrow or edge:
        for i in range(0, KEYS, LANES):
            x = load_float32(scratch, row + i)
            if narrow:
                x = x * load_float32(scratch, factors + i)
            if cap != 0:
                x = soft_cap(x, cap)
            if edge:
                x = hide(x, begin + i, first, last)
            store_float32(scratch, row + i, x)
    a, b = load_float32(scratch, row), load_float32(scratch, row + LANES)
    c, d = load_float32(scratch, row + 2 * LANES), load_float32(scratch, row + 3 * LANES)
    now = max_lanes(maximum(maximum(a, b), maximum(maximum(c, d), top)))
    total = load_float32(scratch, sums)
    if now != before:
        factor = exp2_short(splat(before - now))
        total = total * factor
        scale_row(scratch, results, width, factor)
        scratch[largest] = now
    a, b, c, d = exp2_short(a - now), exp2_short(b - now), exp2_short(c - now), exp2_short(d - now)
    store_float32(scratch, sums, total + ((a + b) + (c + d)))
    if narrow:
        factors += KEYS
        a, b = a * load_float32(scratch, factors), b * load_float32(scratch, factors + LANES)
        c = c * load_float32(scratch, factors + 2 * LANES)
        d = d * load_float32(scratch, factors + 3 * LANES)
    store_bfloat16(scratch, weights, a, b)
    store_bfloat16(scratch, weights + LANES, c, d)


@cpu_device
def _copy_values(cache, at, width, scratch, out):
    """Copy a block's values next to those of the block before."""
    for i in range(0, width * BLOCK, 2 * LANES):
        store_int32(scratch, out + i // 2, load_int32(cache, at + i))


@cpu_device
def _widen(cache, at, count, scratch, out):
    """Write int8 numbers as bfloat16; each is one exactly."""
    for i in range(0, count, 2 * LANES):
        even, odd = load_pairs(cache, at + i)
        join_pairs(scratch, out + i // 2, even, odd)


@cpu_device
def _fill_queries(scratch, query, spare, deep, q, token, rows, group, head, head_size, scale):
    """Write the queries as rows of bfloat16, times ``scale``."""
    scratch[spare : spare + deep] = 0
    for row in range(rows):
        column = (head * group + row % group) * head_size
        for i in range(head_size):
            scratch[spare + i] = q[token + row // group, column + i] * scale
        for i in range(0, deep, DEEP):
            low, high = load_float32(scratch, spare + i), load_float32(scratch, spare + i + LANES)
            store_bfloat16(scratch, query + (row * deep + i) // 2, low, high)


@cpu_device
def _widen_block(cache, at, width, deep, scratch, keys, values, factors):
    """Write a block's int8 keys and values as bfloat16, and its factors of both."""
    part = cache.shape[4]
    _widen(cache, at, BLOCK * width, scratch, keys)
    scratch[keys + BLOCK * width // 2 : keys + BLOCK * deep // 2] = 0
    _widen(cache, at + part, BLOCK * width, scratch, values)
    store_float32(scratch, factors, load_float32(cache, at + BLOCK * width))
    store_float32(scratch, factors + KEYS, load_float32(cache, at + part + BLOCK * width))


@cpu_device
def attend_tile(
    scratch, q, cache, table, layer, head, group, head_size,
    token, count, position, window, scale, cap, out,
):  # fmt: skip
    """Attend for ``count`` tokens from ``token``, at ``position``, and one head of keys."""
    layers, heads, part = cache.shape[1], cache.shape[2], cache.shape[4]
    width, deep = -(-head_size // LANES) * LANES, -(-head_size // DEEP) * DEEP
    narrow = cache.itemsize == 1
    rows = count * group
    room = -(-rows // TILE) * TILE
    query, scores, weights, values, keys, factors, sums, largest, results = sections(
        room, width, deep
    )
    scratch[sums : sums + room * LANES] = 0
    scratch[largest : largest + room] = LOWEST
    scratch[results : results + room * width] = 0
    _fill_queries(
        scratch, query, scores, deep, q, token, rows, group, head, head_size, scale * _LOG2_E
    )
    configure(_SHAPES[min(rows, TILE) - 1])
    lowest = max(0, position - window + 1) if window > 0 else 0
    highest = position + count - 1
    for tile in range(lowest // KEYS, highest // KEYS + 1):
        begin = tile * KEYS
        for i in range(KEYS // BLOCK):
            # Beyond the last block it is repeated: what it adds is hidden.
            block = table[min(begin // BLOCK + i, highest // BLOCK)]
            at = ((block * layers + layer) * heads + head) * 2 * part
            place = values + i * BLOCK * width // 2
            if narrow:
                key_at = keys + i * BLOCK * deep // 2
                _widen_block(cache, at, width, deep, scratch, key_at, place, factors + i * BLOCK)
            else:
                _copy_values(cache, at + part, width, scratch, place)
        for row in range(0, rows, TILE):
            some = min(row + TILE, rows)
            if position + (some - 1) // group < begin:
                continue
            if window > 0 and position + row // group - window >= begin + KEYS - 1:
                continue
            at = query + row * deep // 2
            if narrow:
                step = BLOCK * deep // 2
                a, b, c, d = keys, keys + step, keys + 2 * step, keys + 3 * step
                _score(scratch, at, deep, scratch, a, b, c, d, scores)
            else:
                first, final = begin // BLOCK, highest // BLOCK
                step = 2 * part
                base, stride = (layer * heads + head) * step, layers * heads * step
                a = table[first] * stride + base
                b = table[min(first + 1, final)] * stride + base
                c = table[min(first + 2, final)] * stride + base
                d = table[min(first + 3, final)] * stride + base
                _score(scratch, at, deep, cache, a, b, c, d, scores)
            for i in range(row, some):
                last = position + i // group
                earliest = max(0, last - window + 1) if window > 0 else 0
                _weigh(
                    scratch, scores + (i - row) * KEYS, weights + (i - row) * KEYS // 2, begin,
                    earliest, last, cap * _LOG2_E, narrow, factors, sums + i * LANES, largest + i,
                    results + i * width, width,
                )  # fmt: skip
            _add_values(scratch, weights, values, width, results + row * width)
    release()
    for row in range(rows):
        factor = np.float32(1) / sum_lanes(load_float32(scratch, sums + row * LANES))
        column = (head * group + row % group) * head_size
        finish_row(
            scratch, results + row * width, factor, head_size, out, token + row // group, column
        )
