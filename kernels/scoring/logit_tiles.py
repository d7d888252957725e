"""What is kept of a tile of logits: the largest, the sum of powers, the target's, the top few.

The seam between the product with the vocabulary's weights and log-probabilities: whoever computes
logits calls :func:`reduce_tile` for each tile while it is in the cache, and nothing of the size
(tokens x vocabulary) is ever held.

The vocabulary is cut into segments of a fixed size, and a segment into 16 lanes: entry ``i`` of a
segment belongs to lane ``i % 16``. A lane's state is the largest logit so far and the sum of
``2**(logit * factor - whole)``, where ``factor`` is log2(e) in float32 and ``whole`` is the integer
nearest to the largest one's exponent. When the largest grows, the sum is scaled by a power of two,
which is exact. So the bits depend on the segment alone: not on the width of tiles, on the batch or
on the threads. ``ln(sum) + largest - rest`` is the logarithm of the sum of exponentials, where
``rest`` is what ``whole`` differs by.

Cost, for 16 logits: 14 vector instructions, of which a core with two 512-bit units issues two a
cycle; the exponential of 49,152 logits is about 21,500 cycles, and reading them from the second
level of the cache is less.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd import LANES, fma, load_float32, maximum, splat, store_float32, sum_lanes
from numbatch.kernels.simd_exp import LOG2_E, exp2_from, exp2_whole
from numbatch.kernels.simd_masks import above, largest_lane, load_part, lowest_bit, where

__all__ = [
    "BOUND",
    "FACTOR",
    "PER_FACTOR",
    "SEGMENT",
    "STATE",
    "finish_lanes",
    "keep_largest",
    "largest_up_to",
    "log_sum",
    "merge_segments",
    "reduce_row",
    "reduce_tile",
    "start_lanes",
    "whole_part",
]

SEGMENT = 1024
"""Vocabulary entries whose logits are reduced to one largest and one sum."""

STATE = 2 * LANES
"""Numbers of a state: the lanes' largest, then the lanes' sums."""

BOUND = 2.0**20
"""A row whose largest logit is beyond this, either way, has no log-probabilities.

float32 numbers of this size are 1/16 apart, so nothing of use is lost.
"""

FACTOR = np.float32(LOG2_E)
PER_FACTOR = np.float32(1 / LOG2_E)
_ROUND = np.float32(1.5 * 2**23)
_LN2 = math.log(2)


@cpu_device(inline=True)
def whole_part(largest):
    """Return the integers nearest to the exponents of ``largest``, which may be infinite."""
    low, high = splat(np.float32(-BOUND)), splat(np.float32(BOUND))
    bounded = where(above(largest, high), high, maximum(low, largest))
    return fma(bounded, splat(FACTOR), splat(_ROUND)) - splat(_ROUND)


@cpu_device(inline=True)
def start_lanes(state, to):
    """Make the state at ``to`` that of no logits."""
    store_float32(state, to, splat(np.float32(-np.inf)))
    store_float32(state, to + LANES, splat(np.float32(0)))


@cpu_device(inline=True)
def reduce_row(logits, at, count, state, to):
    """Add logits ``at`` to ``at + count - 1`` to the state at ``to``. No error check.

    Parameters
    ----------
    logits : float32 array, C-contiguous
    at : int
        Where they start, as a flat index; they are read three times at most, from the cache.
    count : int
        The first of them belongs to lane 0.
    state : float32 array
        ``STATE`` numbers from ``to`` are modified in place. A NaN, or an infinity other than minus
        infinity, makes a sum NaN.
    """
    before = load_float32(state, to)
    full = count // LANES * LANES
    # Two chains: a comparison takes four cycles, a load half a one.
    largest, other = before, before
    for i in range(0, full - LANES, 2 * LANES):
        largest = maximum(load_float32(logits, at + i), largest)
        other = maximum(load_float32(logits, at + i + LANES), other)
    if full & LANES:
        other = maximum(load_float32(logits, at + full - LANES), other)
    if full < count:
        last = load_part(logits, at + full, count - full, np.float32(-np.inf))
        other = maximum(last, other)
    largest = maximum(largest, other)
    whole = whole_part(largest)
    # Below, a power is less than 2**-125 of the largest: it is taken as that.
    least = (whole - np.float32(126)) * PER_FACTOR
    factor = splat(FACTOR)
    total = load_float32(state, to + LANES) * exp2_whole(whole_part(before) - whole)
    for i in range(0, full, LANES):
        x = maximum(least, load_float32(logits, at + i))
        total = total + exp2_from(x, factor, whole)
    if full < count:
        last = load_part(logits, at + full, count - full, np.float32(-np.inf))
        total = total + exp2_from(maximum(least, last), factor, whole)
    store_float32(state, to, largest)
    store_float32(state, to + LANES, total)


@cpu_device(inline=True)
def finish_lanes(state, to):
    """Return the largest logit of a state and the sum of powers, relative to its whole part.

    The sum is ``2**(logit * factor - whole)`` over all lanes, as float32.
    """
    lanes = load_float32(state, to)
    largest = largest_lane(lanes)
    scaled = exp2_whole(whole_part(lanes) - whole_part(splat(largest)))
    return largest, sum_lanes(load_float32(state, to + LANES) * scaled)


@cpu_device
def _scalar_whole(largest):
    """Return the whole part of one number, the same as :func:`whole_part` finds."""
    return np.float64(largest_lane(whole_part(splat(largest))))


@cpu_device
def log_sum(largest, total):
    """Return the logarithm of the sum of exponentials; NaN where it has no meaning.

    Parameters
    ----------
    largest : float32
        Of all logits.
    total : float64
        The sum of ``2**(logit * factor - whole)``.
    """
    if not -BOUND <= largest <= BOUND:
        return np.nan
    rest = _scalar_whole(largest) - np.float64(largest) * np.float64(FACTOR)
    return np.float64(largest) + math.log(total) + rest * _LN2


@cpu_device
def largest_up_to(logits, at, count, start):
    """Return the largest of ``start`` and of logits ``at`` to ``at + count - 1``."""
    for i in range(at, at + count):
        if logits[i] > start:
            start = logits[i]
    return start


@cpu_device
def reduce_tile(
    logits, stride, tokens, first, width, targets, state, target_logits, largest_before
):  # fmt: skip
    """Add a tile of logits to the states of its tokens. No error check.

    Tiles of a segment come in the order of the vocabulary, each begun at a multiple of 16 entries
    from the segment's start. Before the first, :func:`start_lanes` is called for each token's
    state; after the last, :func:`finish_lanes`.

    Parameters
    ----------
    logits : float32 array, flat
        Token ``t``'s are at ``t * stride`` to ``t * stride + width - 1``; scaled and capped.
    stride, tokens, first, width : int
        ``first`` is the vocabulary entry of the first column.
    targets : int64 array, shape (tokens,)
        Vocabulary entries.
    state : float32 array, shape (tokens * STATE,)
        Modified in place: one state after another.
    target_logits, largest_before : float32 arrays, shape (tokens,)
        Modified in place where the target is in the tile: its logit, and the largest of those
        before it in its segment, minus infinity where there is none.
    """
    for token in range(tokens):
        at, to = token * stride, token * STATE
        place = targets[token] - first
        if 0 <= place < width:
            target_logits[token] = logits[at + place]
            earlier = largest_lane(load_float32(state, to))
            largest_before[token] = largest_up_to(logits, at, place, earlier)
        reduce_row(logits, at, width, state, to)


@cpu_device
def _insert(values, ids, at, size, value, token):
    """Put a logit into its place among the ``size`` largest, behind those that equal it."""
    place = size - 1
    while place > 0 and values[at + place - 1] < value:
        ids[at + place], values[at + place] = ids[at + place - 1], values[at + place - 1]
        place -= 1
    ids[at + place], values[at + place] = token, value


@cpu_device
def keep_largest(logits, at, count, first, values, ids, to, size):
    """Put logits among the ``size`` largest so far. No error check.

    Parameters
    ----------
    logits, at, count
        As for :func:`reduce_row`.
    first : int
        The vocabulary entry of the first one; entries come in ascending order over calls.
    values, ids : float32 and int64 arrays
        ``size`` numbers from ``to`` are modified in place, largest first, of equal ones the first
        in the vocabulary first. To start with, minus infinity and -1.
    """
    for i in range(0, count, LANES):
        x = load_part(logits, at + i, min(count - i, LANES), np.float32(-np.inf))
        larger = above(x, splat(values[to + size - 1]))
        while larger:
            lane = lowest_bit(larger)
            larger &= larger - 1
            value = logits[at + i + lane]
            if value > values[to + size - 1]:
                _insert(values, ids, to, size, value, first + i + lane)


@cpu_device
def merge_segments(largest, sums, target, target_logit, largest_before):
    """Merge one token's segments; return the target's log-probability and whether it is greedy.

    Parameters
    ----------
    largest, sums : float32 arrays, shape (segments,)
        From :func:`finish_lanes`, in the order of the vocabulary.
    target : int
        A vocabulary entry; greedy if no logit is larger and none before it equal.
    target_logit, largest_before : float32
        From :func:`reduce_tile`.

    Returns
    -------
    tuple of float, bool and float
        The log-probability (NaN where a logit is NaN or the largest beyond ``BOUND``), whether the
        target is the likeliest, and the logarithm of the sum of exponentials.
    """
    peak = largest[0]
    greedy = largest_before < target_logit
    for segment in range(largest.size):
        peak = max(peak, largest[segment])
        if segment < target // SEGMENT:
            greedy = greedy and largest[segment] < target_logit
    whole = _scalar_whole(peak)
    total = 0.0
    for segment in range(largest.size):
        shift = max(_scalar_whole(largest[segment]) - whole, -1000.0)
        total += math.ldexp(np.float64(sums[segment]), int(shift))
    norm = log_sum(peak, total)
    logprob = min(np.float64(target_logit) - norm, 0.0)  # rounding could lift it by a hair
    return logprob, greedy and target_logit >= peak, norm
