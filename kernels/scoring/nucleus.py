"""Weights of logits, the largest of them that add up to a share, and a draw among them."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.select import kth_largest, smallest_of_sum
from numbatch.kernels.simd import LANES, load_float32, maximum, splat, store_float32, sum_lanes
from numbatch.kernels.simd_exp import exp2
from numbatch.kernels.simd_masks import (
    at_least,
    count_bits,
    equal,
    largest_lane,
    load_part,
    store_where,
    where,
)

__all__ = ["TILE", "draw", "keep_nucleus", "weigh"]

TILE = 256
"""Logits that are reduced at a time: 16 vectors, which stay in the first level of the cache."""


@cpu_device
def weigh(x, size, peak, least, factor, weights, sums):
    """Write the weight of each logit, 0 below ``least``, and the sum of each tile.

    ``2**((x - peak) * factor)``, exactly 0 for minus infinity; ``weights`` has room for 15 more.
    Returns the sum of all.
    """
    total, zero = 0.0, splat(np.float32(0))
    bound, top, scale = splat(least), splat(peak), splat(factor)
    full = size // TILE * TILE
    for low in range(0, full, TILE):
        running = zero
        for i in range(low, low + TILE, LANES):
            here = load_float32(x, i)
            weight = where(at_least(here, bound), exp2((here - top) * scale), zero)
            store_float32(weights, i, weight)
            running = running + weight
        sums[low // TILE] = np.float64(sum_lanes(running))
        total += sums[low // TILE]
    running = zero
    for i in range(full, size, LANES):
        here = load_part(x, i, min(size - i, LANES), np.float32(-np.inf))
        weight = where(at_least(here, bound), exp2((here - top) * scale), zero)
        store_float32(weights, i, weight)
        running = running + weight
    if full < size:
        sums[full // TILE] = np.float64(sum_lanes(running))
        total += sums[full // TILE]
    return total


@cpu_device
def _drop_light(x, weights, size, lightest, least, sums):
    """Set to 0 the weights below ``lightest``, and those equal to it of logits below ``least``.

    Writes the sum of each tile; returns that of all, and how many weights equal ``lightest``.
    """
    total, tied, zero = 0.0, 0, splat(np.float32(0))
    for tile in range((size + TILE - 1) // TILE):
        running = zero
        for i in range(tile * TILE, min(tile * TILE + TILE, size), LANES):
            weight = load_float32(weights, i)
            here = load_part(x, i, min(size - i, LANES), np.float32(-np.inf))
            kept = at_least(weight, splat(lightest))
            border = kept & equal(weight, splat(lightest))
            tied += count_bits(border)
            kept &= ~border | at_least(here, splat(least))
            weight = where(kept, weight, zero)
            store_float32(weights, i, weight)
            running = running + weight
        sums[tile] = np.float64(sum_lanes(running))
        total += sums[tile]
    return total, tied


@cpu_device
def _least_of_tied(x, weights, size, weight, wanted, spare):
    """Return the ``wanted``-th largest of the logits whose weight is ``weight``."""
    count, top = np.int64(0), splat(np.float32(-np.inf))  # not a literal: one compilation less
    for i in range(0, size, LANES):
        mask = equal(load_float32(weights, i), splat(weight))
        if mask:
            here = load_part(x, i, min(size - i, LANES), np.float32(-np.inf))
            store_where(spare, count, here, mask)
            top = maximum(where(mask, here, top), top)
            count += count_bits(mask)
    return kth_largest(spare, count, largest_lane(top), min(max(wanted, 1), count))


@cpu_device
def _pack_weights(weights, size, least, packed):
    """Write the weights from ``least`` up next to each other; return how many there are."""
    kept, bound = 0, splat(least)
    for i in range(0, size, LANES):
        weight = load_float32(weights, i)  # 0 behind the end
        mask = at_least(weight, bound)
        if mask:
            store_where(packed, kept, weight, mask)
            kept += count_bits(mask)
    return kept


@cpu_device
def keep_nucleus(x, weights, size, total, top_p, spare, sums):
    """Set to 0 the weights beyond the largest that add up to ``top_p``; return what is left."""
    target = top_p * total
    # All those lighter than this together are less than 1 - top_p of the total, by a margin.
    light = max(np.float32((1 - top_p) * total / size * 0.999), np.float32(1e-45))
    count = _pack_weights(weights, size, light, spare)
    lightest = smallest_of_sum(spare, count, np.float32(2), target)
    left, tied = _drop_light(x, weights, size, lightest, np.float32(-np.inf), sums)
    if tied > 1:  # in float32: their logits may differ
        over = math.floor((left - target) / lightest)
        wanted = tied - np.int64(min(max(over, 0.0), tied - 1.0))
        least = _least_of_tied(x, weights, size, lightest, wanted, spare)
        left, _ = _drop_light(x, weights, size, lightest, least, sums)
    return left


@cpu_device
def draw(weights, size, sums, target):
    """Return the first place at which the running sum passes ``target``, or the last there is."""
    running, before, tile = 0.0, 0.0, 0
    for i in range((size + TILE - 1) // TILE):
        if sums[i] > 0:
            tile, before = i, running
            running += sums[i]
            if running > target:
                break
    running = before
    chosen = 0
    for i in range(tile * TILE, min(tile * TILE + TILE, size)):
        if weights[i] > 0:
            running += np.float64(weights[i])
            chosen = i
            if running > target:
                break
    return chosen
