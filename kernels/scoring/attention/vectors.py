"""Attention by vectors of float32: for any CPU, and any type of cache.

Four queries share the loads of a block's keys: a vector holds 16 tokens, so that scores need no sum
over lanes. Then the same four share the loads of the values.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.ahead import ask_for_first
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import sections
from numbatch.kernels.scoring.attention.softmax import (
    LOWEST,
    finish_row,
    hide,
    read_row,
    scale_row,
    soft_cap,
)
from numbatch.kernels.simd import (
    LANES,
    fma,
    load_float32,
    max_lanes,
    maximum,
    splat,
    splat_at,
    store_float32,
    sum_lanes,
)
from numbatch.kernels.simd_bfloat16 import load_pairs, prefetch_bytes
from numbatch.kernels.simd_exp import exp

__all__ = ["attend_tile"]

SHARING = 4
"""Queries that share loads: eight sums would not fit into AVX2's registers."""


@cpu_device
def _score(scratch, query, deep, cache, at, width, out):
    """Write the products of four queries with the 16 keys at ``at`` of the cache."""
    a = b = c = d = splat(np.float32(0))
    for i in range(0, width, 2):
        even, odd = load_pairs(cache, at + i * BLOCK)
        row = query + i
        a = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, a))
        row += deep
        b = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, b))
        row += deep
        c = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, c))
        row += deep
        d = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, d))
    store_float32(scratch, out, a)
    store_float32(scratch, out + KEYS, b)
    store_float32(scratch, out + 2 * KEYS, c)
    store_float32(scratch, out + 3 * KEYS, d)


@cpu_device
def _add_values(scratch, weights, cache, at, width, out):
    """Add the values at ``at`` of the cache, times the weights of four queries, to ``out``."""
    for i in range(0, width, LANES):
        a, b = load_float32(scratch, out + i), load_float32(scratch, out + width + i)
        c = load_float32(scratch, out + 2 * width + i)
        d = load_float32(scratch, out + 3 * width + i)
        for token in range(0, BLOCK, 2):
            even, odd = load_pairs(cache, at + token * width + 2 * i)
            row = weights + token
            a = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, a))
            row += KEYS
            b = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, b))
            row += KEYS
            c = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, c))
            row += KEYS
            d = fma(splat_at(scratch, row + 1), odd, fma(splat_at(scratch, row), even, d))
        store_float32(scratch, out + i, a)
        store_float32(scratch, out + width + i, b)
        store_float32(scratch, out + 2 * width + i, c)
        store_float32(scratch, out + 3 * width + i, d)


@cpu_device
def _weigh(scratch, row, begin, first, last, cap, sums, largest, results, width):
    """Turn a row of scores into weights, in place; add them to the row's sum.

    Where the running maximum grows, the sum and the results so far are scaled down.
    """
    before = scratch[largest]
    top = splat(before)
    for i in range(0, KEYS, LANES):
        x = load_float32(scratch, row + i)
        if cap != 0:
            x = soft_cap(x, cap)
        if begin + i < first or begin + i + LANES > last + 1:
            x = hide(x, begin + i, first, last)
        store_float32(scratch, row + i, x)
        top = maximum(x, top)
    now = max_lanes(top)
    total = load_float32(scratch, sums)
    if now != before:
        factor = exp(splat(before - now))
        total = total * factor
        scale_row(scratch, results, width, factor)
        scratch[largest] = now
    for i in range(0, KEYS, LANES):
        x = exp(load_float32(scratch, row + i) - now)
        store_float32(scratch, row + i, x)
        total = total + x
    store_float32(scratch, sums, total)


@cpu_device
def _scale_scores(scratch, row, cache, at):
    """Multiply 16 scores or weights of four queries by the int8 factors at ``at``."""
    factors = load_float32(cache, at)
    for i in range(row, row + SHARING * KEYS, KEYS):
        store_float32(scratch, i, load_float32(scratch, i) * factors)


@cpu_device
def attend_tile(
    scratch, q, cache, table, layer, head, group, head_size,
    token, count, position, window, scale, cap, out, following,
):  # fmt: skip
    """Attend for ``count`` tokens from ``token``, at ``position``, and one head of keys."""
    ask_for_first(cache, layer, following)
    layers, heads, part = cache.shape[1], cache.shape[2], cache.shape[4]
    width, deep = -(-head_size // LANES) * LANES, -(-head_size // 32) * 32
    rows = count * group
    room = -(-rows // LANES) * LANES
    query, scores, _, _, _, _, sums, largest, _, results, _ = sections(room, width, deep)
    scratch[query : query + room * deep] = 0
    scratch[sums : sums + room * LANES] = 0
    scratch[largest : largest + room] = LOWEST
    scratch[results : results + room * width] = 0
    for row in range(rows):
        column = (head * group + row % group) * head_size
        read_row(q, token + row // group, column, head_size, scale, scratch, query + row * deep)
    lowest = max(0, position - window + 1) if window > 0 else 0
    highest = position + count - 1
    narrow = cache.itemsize == 1
    for tile in range(lowest // KEYS, highest // KEYS + 1):
        begin = tile * KEYS
        blocks = min(KEYS, highest + 1 - begin + BLOCK - 1) // BLOCK
        for i in range(begin // BLOCK + KEYS // BLOCK, begin // BLOCK + 2 * KEYS // BLOCK):
            if i <= highest // BLOCK:
                at = ((table[i] * layers + layer) * heads + head) * 2 * part
                prefetch_bytes(cache, at, 2 * part * cache.itemsize)
        for four in range(0, rows, SHARING):
            if position + (min(four + SHARING, rows) - 1) // group < begin:
                continue
            if window > 0 and position + four // group - window >= begin + KEYS - 1:
                continue
            for i in range(blocks):
                block = table[begin // BLOCK + i]
                at = ((block * layers + layer) * heads + head) * 2 * part
                out_at = scores + i * BLOCK
                _score(scratch, query + four * deep, deep, cache, at, width, out_at)
                if narrow:
                    _scale_scores(scratch, out_at, cache, at + BLOCK * width)
            for row in range(four, min(four + SHARING, rows)):
                last = position + row // group
                first = max(0, last - window + 1) if window > 0 else 0
                _weigh(
                    scratch, scores + (row - four) * KEYS, begin, first, last, cap,
                    sums + row * LANES, largest + row, results + row * width, width,
                )  # fmt: skip
            for i in range(blocks):
                block = table[begin // BLOCK + i]
                at = (((block * layers + layer) * heads + head) * 2 + 1) * part
                row_at = scores + i * BLOCK
                if narrow:
                    _scale_scores(scratch, row_at, cache, at + BLOCK * width)
                _add_values(scratch, row_at, cache, at, width, results + four * width)
    for row in range(rows):
        factor = np.float32(1) / sum_lanes(load_float32(scratch, sums + row * LANES))
        column = (head * group + row % group) * head_size
        finish_row(
            scratch, results + row * width, factor, head_size, out, token + row // group, column
        )
