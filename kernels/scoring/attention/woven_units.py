"""Attention's units one after another where tile registers are full (:mod:`.woven_rows`).

Three units are worked on at a time: scores of the next, weights of this one, sums of the one
before. A row's maximum is not looked for but where its keys begin: weights that are too large show
in what they add to the row's sum. Then the unit's weights are done again, behind a raised maximum,
from the sums before it, which are kept.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.ahead import four_blocks
from numbatch.kernels.scoring.attention.amx_products import add_values, score_unit
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP
from numbatch.kernels.scoring.attention.unit_steps import (
    next_unit,
    visible_unit,
    widen,
    widen_keys,
)
from numbatch.kernels.scoring.attention.unit_weights import (
    prepare_rows,
    raise_maxima,
    scale_results,
)
from numbatch.kernels.scoring.attention.woven_rows import (
    weigh_and_add,
    weigh_and_score,
    weigh_rows,
)
from numbatch.kernels.simd import LANES, align_stack, load_float32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import prefetch_bytes
from numbatch.kernels.simd_masks import at_least

__all__ = ["attend_units"]

TILE = 16

SUSPECT = np.float32(255)
"""A lane's sum of four weights is this large if one is above what its maximum has room for."""


@cpu_device
def attend_units(
    scratch, cache, table, parts, part_size, narrow, rows, group, position, window, capped, stride,
    base, final, last_tile, lowest_tile,
):  # fmt: skip
    """Attend for ``rows`` queries, whose sums and results are zero before.

    ``parts``: where ``sections`` begin; ``final``: the last block; the other arguments are those of
    ``tiles.attend_tile`` and what it makes of them.
    """
    align_stack()
    query, all_scores, all_weights, values, keys, all_factors = parts[:6]
    sums, largest, scales, results, saved = parts[6:]
    up_tile, up_row = visible_unit(lowest_tile, 0, last_tile, rows, position, group, window)
    tile, row, old_tile, old_row = -1, 0, -1, 0
    odd, raised, widened, copied = 0, False, -1, -1
    size = BLOCK * KEYS // 2  # 32-bit words of a widened block
    places = (values, values, values, values)
    while up_tile >= 0 or tile >= 0 or old_tile >= 0:
        up_block, begin = up_tile * (KEYS // BLOCK), tile * KEYS
        query_at, out_at = query + up_row * DEEP, all_scores + odd * TILE * KEYS
        scores = all_scores + (1 - odd) * TILE * KEYS
        weights = all_weights + odd * TILE * KEYS // 2
        old_weights = all_weights + (1 - odd) * TILE * KEYS // 2
        factors = all_factors + (tile & 1) * 2 * KEYS
        results_out = results + old_row * KEYS
        if narrow and up_tile > widened:
            widened = up_tile
            for g in range(KEYS // BLOCK):
                at = table[min(up_block + g, final)] * stride + base
                widen_keys(
                    cache, at, KEYS, KEYS, scratch, keys + g * size,
                    all_factors + (up_tile & 1) * 2 * KEYS + g * BLOCK,
                )  # fmt: skip
        if old_tile > lowest_tile and raised:  # before there is nothing to scale
            scale_results(scratch, scales + old_row, results_out, KEYS, min(TILE, rows - old_row))
        copies = tile > copied
        copied = max(copied, tile)
        if copies and narrow:
            for g in range(KEYS // BLOCK):
                at = table[min(begin // BLOCK + g, final)] * stride + base + part_size
                store_float32(
                    scratch, factors + KEYS + g * BLOCK, load_float32(cache, at + BLOCK * KEYS)
                )
        if narrow:
            value_places = (values, values + size, values + 2 * size, values + 3 * size)
        else:
            value_places = four_blocks(
                table, max(0, old_tile) * (KEYS // BLOCK), final, stride, base + part_size
            )
        if narrow:
            places = (keys, keys + size, keys + 2 * size, keys + 3 * size)
        elif up_tile >= 0:
            places = four_blocks(table, up_block, final, stride, base)
        raised = False
        if tile < 0:
            if narrow:
                score_unit(scratch, query_at, 2, scratch, places, BLOCK * DEEP // 2, TILE, out_at,
                           cache, places)  # fmt: skip
            else:
                score_unit(scratch, query_at, 2, cache, places, BLOCK * DEEP, TILE, out_at, cache,
                           places)  # fmt: skip
        else:
            some = min(TILE, rows - row)
            early, late = position + row // group, position + (row + some - 1) // group
            plain = not narrow and capped == 0 and early + 1 >= begin + KEYS
            if not plain or (window > 0 and late - window >= begin):
                prepare_rows(scratch, scores, row, some, group, position, begin, window, capped,
                             narrow, factors)  # fmt: skip
            at = sums + row * LANES
            if tile == lowest_tile:
                raised = raise_maxima(scratch, scores, some, at, largest + row, scales + row)
            unit = (scores, weights, narrow, factors, at, saved, largest + row)
            most = splat(np.float32(0))
            if up_tile < 0:
                most = weigh_rows(scratch, unit, 0, TILE // 2, most)
            elif narrow:
                most = weigh_and_score(scratch, unit, most, query_at, scratch, places,
                                       BLOCK * DEEP // 2, out_at)  # fmt: skip
            else:
                most = weigh_and_score(scratch, unit, most, query_at, cache, places, BLOCK * DEEP,
                                       out_at)  # fmt: skip
            if old_tile < 0:
                most = weigh_rows(scratch, unit, TILE // 2, TILE, most)
            elif narrow:
                most = weigh_and_add(scratch, unit, most, old_weights, scratch, value_places,
                                     results_out)  # fmt: skip
            else:
                most = weigh_and_add(scratch, unit, most, old_weights, cache, value_places,
                                     results_out)  # fmt: skip
            if at_least(most, splat(SUSPECT)) and not raised:
                for i in range(0, TILE * LANES, LANES):  # the sums before this unit
                    store_float32(scratch, at + i, load_float32(scratch, saved + i))
                raised = raise_maxima(scratch, scores, some, at, largest + row, scales + row)
                weigh_rows(scratch, unit, 0, TILE, most)
        if tile < 0 and old_tile >= 0:
            if narrow:
                add_values(scratch, old_weights, scratch, value_places, KEYS, TILE, results_out,
                           cache, places)  # fmt: skip
            else:
                add_values(scratch, old_weights, cache, value_places, KEYS, TILE, results_out,
                           cache, places)  # fmt: skip
        if copies:
            for g in range(KEYS // BLOCK):
                if (tile + 2) * (KEYS // BLOCK) + g <= final:
                    at = table[(tile + 2) * (KEYS // BLOCK) + g] * stride + base
                    prefetch_bytes(cache, at, 2 * part_size * cache.itemsize)
        if copies and narrow:  # only now is nothing more added of the values before
            for g in range(KEYS // BLOCK):
                at = table[min(tile * (KEYS // BLOCK) + g, final)] * stride + base + part_size
                widen(cache, at, BLOCK * KEYS, scratch, values + g * size)
        old_tile, old_row, tile, row = tile, row, up_tile, up_row
        up_tile, up_row = next_unit(up_tile, up_row, last_tile, rows, position, group, window)
        odd = 1 - odd
