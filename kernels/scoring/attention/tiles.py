"""Attention by products of bfloat16, for a cache of bfloat16 or int8.

The products are those of Intel's tile registers (AMX), or of pairs (AVX512-BF16).

A unit of work is sixteen queries and 64 keys: their scores, the weights, and the sums of 64 values.
Queries and weights are rounded to bfloat16, sums are float32. Scores are in units of log(2).

The products of a tile take as long as its exponentials, and the CPU does both at a time if they do
not wait for each other. So three units are worked on in turns: scores of the next, weights of this
one, sums of the one before.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.ahead import ask_for_first, blocks_ahead, four_blocks
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP, sections
from numbatch.kernels.scoring.attention.softmax import (
    LOWEST,
    finish_row,
    read_row,
)
from numbatch.kernels.scoring.attention.unit_steps import (
    copy_values,
    next_unit,
    visible_unit,
    widen,
    widen_keys,
)
from numbatch.kernels.scoring.attention.unit_weights import (
    prepare_rows,
    raise_maxima,
    scale_results,
    weigh_row,
)
from numbatch.kernels.simd import LANES, align_stack, load_float32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import (
    prefetch_bytes,
    store_two_bfloat16,
)
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.simd_rows import sum_of_rows

BY_TILES = simd_path() == "amx"

if BY_TILES:
    from numbatch.kernels.scoring.attention.amx_products import (
        add_values,
        begin_products,
        end_products,
        score_unit,
    )
    from numbatch.kernels.scoring.attention.woven_units import attend_units
else:
    from numbatch.kernels.scoring.attention.pair_products import (
        add_values,
        begin_products,
        end_products,
        score_unit,
    )

__all__ = ["attend_tile"]

TILE = 16
"""Rows of a tile, and its float32 numbers in a row."""

AHEAD = 2 * KEYS // BLOCK
"""Blocks between those that are read and those that are asked for."""

_LOG2_E = np.float32(math.log2(math.e))


@cpu_device
def _fill_queries(scratch, query, spare, deep, q, token, count, group, head, head_size, scale):
    """Write the queries as rows of bfloat16, times ``scale``."""
    scratch[spare : spare + deep] = 0
    at = query
    for t in range(token, token + count):
        for column in range(head * group * head_size, (head + 1) * group * head_size, head_size):
            read_row(q, t, column, head_size, scale, scratch, spare)
            for i in range(spare, spare + deep, DEEP):
                low, high = load_float32(scratch, i), load_float32(scratch, i + LANES)
                store_two_bfloat16(scratch, at, low, high)
                at += DEEP // 2


@cpu_device
def _write_results(scratch, sums, factors, results, width, out, token, count, group, head,
                   head_size):  # fmt: skip
    """Write the results of all rows, divided by their sums."""
    for row in range(0, count * group, LANES):
        factor = splat(np.float32(1)) / sum_of_rows(scratch, sums + row * LANES)
        store_float32(scratch, factors + row, factor)
    for t in range(token, token + count):
        for column in range(head * group * head_size, (head + 1) * group * head_size, head_size):
            finish_row(scratch, results, scratch[factors], head_size, out, t, column)
            factors += 1
            results += width


@cpu_device
def attend_tile(
    scratch, q, cache, table, layer, head, group, head_size,
    token, count, position, window, scale, cap, out, following,
):  # fmt: skip
    """Attend for ``count`` tokens from ``token``, at ``position``, and one head of keys.

    ``following``: what ``ahead.first_blocks`` tells of the tile that is attended for next.
    """
    align_stack()
    layers, heads, part_size = cache.shape[1], cache.shape[2], cache.shape[4]
    width, steps = -(-head_size // LANES) * LANES, -(-head_size // DEEP)
    deep = steps * DEEP
    narrow, capped = cache.itemsize == 1, cap * _LOG2_E
    rows = count * group
    room = -(-rows // TILE) * TILE
    query, all_scores, all_weights, values, keys, all_factors = sections(room, width, deep)[:6]
    sums, largest, scales, results = sections(room, width, deep)[6:10]
    woven = BY_TILES and rows >= TILE and width == KEYS
    scratch[sums : sums + room * LANES] = 0
    scratch[largest : largest + room] = LOWEST
    scratch[scales : scales + room] = 1
    scratch[results : results + room * width] = 0
    _fill_queries(
        scratch, query, all_scores, deep, q, token, count, group, head, head_size, scale * _LOG2_E
    )
    begin_products(min(rows, TILE))
    lowest = max(0, position - window + 1) if window > 0 else 0
    highest = position + count - 1
    following_base = (layer * heads + following[0]) * 2 * part_size
    if BY_TILES:
        ask_for_first(cache, layer, following)
    # A block beyond the last one is the last one again: what it adds is hidden.
    final, last_tile = highest // BLOCK, highest // KEYS
    stride, base = layers * heads * 2 * part_size, (layer * heads + head) * 2 * part_size
    if BY_TILES:  # noqa: SIM102  # of two conditions in one, Numba would compile what is not there
        if woven:
            attend_units(
                scratch, cache, table, sections(room, width, deep), part_size, narrow, rows, group,
                position, window, capped, stride, base, final, last_tile, lowest // KEYS,
            )  # fmt: skip
            last_tile = -1  # nothing is left to do below
    up_tile, up_row = visible_unit(lowest // KEYS, 0, last_tile, rows, position, group, window)
    tile, row, old_tile, old_row = -1, 0, -1, 0
    odd, raised, widened, copied = 0, False, -1, -1
    # Of one unit, the values are read where they lie; of more, blocks would push each other out.
    # Tiles read them where they lie in any case.
    gathered = narrow or (not BY_TILES and rows > TILE)
    ahead = 2 if rows <= TILE else 1  # tiles of keys to prefetch before they are used
    while up_tile >= 0 or tile >= 0 or old_tile >= 0:
        # The unit whose scores are computed.
        query_at = query + up_row * (deep // 2)
        up_block = up_tile * (KEYS // BLOCK)
        if narrow and up_tile > widened:
            widened = up_tile
            for g in range(KEYS // BLOCK):
                at = table[min(up_block + g, final)] * stride + base
                widen_keys(
                    cache, at, width, deep, scratch, keys + g * BLOCK * deep // 2,
                    all_factors + (up_tile & 1) * 2 * KEYS + g * BLOCK,
                )  # fmt: skip
        # The unit whose weights are computed.
        begin = tile * KEYS
        some = min(TILE, rows - row) if tile >= 0 else 0
        scores = all_scores + (1 - odd) * TILE * KEYS
        weights_out = all_weights + odd * TILE * KEYS // 2
        factors = all_factors + (tile & 1) * 2 * KEYS
        early, late = position + row // group, position + (row + some - 1) // group
        plain = not narrow and capped == 0 and early + 1 >= begin + KEYS
        plain = plain and (window <= 0 or late - window < begin)
        copies = tile > copied
        copied = max(copied, tile)
        if copies and narrow:
            for g in range(KEYS // BLOCK):
                at = table[min(begin // BLOCK + g, final)] * stride + base + part_size
                value_factors = load_float32(cache, at + BLOCK * width)
                store_float32(scratch, factors + KEYS + g * BLOCK, value_factors)
        if up_tile >= 0:
            out_at = all_scores + odd * TILE * KEYS
            later = blocks_ahead(table, up_block + AHEAD, final, stride, base, following,
                                 following_base)  # fmt: skip
            some_up = min(TILE, rows - up_row)
            if narrow:
                size = BLOCK * deep // 2
                places = (keys, keys + size, keys + 2 * size, keys + 3 * size)
                score_unit(scratch, query_at, steps, scratch, places, BLOCK * DEEP // 2, some_up,
                           out_at, cache, later)  # fmt: skip
            else:
                places = four_blocks(table, up_block, final, stride, base)
                score_unit(scratch, query_at, steps, cache, places, BLOCK * DEEP, some_up, out_at,
                           cache, later)  # fmt: skip
        results_out = results + old_row * width
        if raised and old_tile > lowest // KEYS:  # before there is nothing to scale
            left = min(TILE, rows - old_row)
            scale_results(scratch, scales + old_row, results_out, width, left)
        if not plain:
            prepare_rows(
                scratch, scores, row, some, group, position, begin, window, capped, narrow, factors
            )
        raised = raise_maxima(scratch, scores, some, sums + row * LANES, largest + row,
                               scales + row)  # fmt: skip
        for part in range(2):
            for i in range(part * TILE // 2, min((part + 1) * TILE // 2, some)):
                weigh_row(
                    scratch, scores + i * KEYS, weights_out + i * KEYS // 2, narrow, factors,
                    sums + (row + i) * LANES, largest + row + i,
                )  # fmt: skip
            if part == 0 and old_tile >= 0:
                weights = all_weights + (1 - odd) * TILE * KEYS // 2
                old_block, old_some = old_tile * (KEYS // BLOCK), min(TILE, rows - old_row)
                later = blocks_ahead(table, old_block + AHEAD, final, stride, base, following,
                                     following_base)  # fmt: skip
                if gathered:
                    size = BLOCK * width // 2
                    places = (values, values + size, values + 2 * size, values + 3 * size)
                    add_values(scratch, weights, scratch, places, width, old_some, results_out,
                               cache, later)  # fmt: skip
                else:
                    places = four_blocks(table, old_block, final, stride, base + part_size)
                    add_values(scratch, weights, cache, places, width, old_some, results_out,
                               cache, later)  # fmt: skip
        if copies and BY_TILES:
            for g in range(KEYS // BLOCK):
                if (tile + ahead) * (KEYS // BLOCK) + g <= final:
                    at = table[(tile + ahead) * (KEYS // BLOCK) + g] * stride + base
                    prefetch_bytes(cache, at, 2 * part_size * cache.itemsize)
        if copies and gathered:  # only now is nothing more added of the values before
            for g in range(KEYS // BLOCK):
                at = table[min(begin // BLOCK + g, final)] * stride + base + part_size
                place = values + g * BLOCK * width // 2
                if narrow:
                    widen(cache, at, BLOCK * width, scratch, place)
                else:
                    copy_values(cache, at, width, scratch, place)
        old_tile, old_row, tile, row = tile, row, up_tile, up_row
        up_tile, up_row = next_unit(up_tile, up_row, last_tile, rows, position, group, window)
        odd = 1 - odd
    end_products()
    _write_results(scratch, sums, scales, results, width, out, token, count, group, head, head_size)
