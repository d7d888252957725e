"""Log-probabilities from logits that come a piece of the vocabulary at a time.

A dense product writes the logits of some tokens and a piece of the vocabulary, in float32; a kernel
reduces them at once. So the logits of all tokens and the whole vocabulary never exist. Pieces do
not depend on the batch.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import (
    exp2,
    larger,
    load_floats,
    loads_begun,
    warp_max,
    warp_sum,
)

__all__ = ["PIECE", "REDUCE_THREADS", "TOKENS", "finish_logprobs", "reduce_piece"]

PIECE = 8192
"""Vocabulary entries in a piece."""

TOKENS = 8192
"""Tokens whose pieces are held at a time: 256 MB with float32. With 4,096 of both, scoring of an 8B
model took 0.3 % longer on an H200. With 2,048 tokens and pieces of 4,096 all of it fits in the
second cache, but product and reduction together took another 4 % longer."""

REDUCE_THREADS = 256
"""Threads of a block, whose warps take a token each."""

LOG2_E = np.float32(1 / math.log(2))


@cuda_device(fast=True)
def _finished(value, entry, bias, scale, cap):
    """Return a logit with bias, scale and soft cap."""
    if bias.size:
        value += bias[entry]
    value *= scale
    return value if cap == np.float32(0) else cap * np.float32(math.tanh(value / cap))


@cuda_device(fast=True)
def _four(four, i, count, low, bias, scale, cap):
    """Return four logits of place ``i`` on as they count; minus infinity beyond ``count``."""
    none = np.float32(-np.inf)
    a, b, c, d = four
    if bias.size or cap != np.float32(0):
        last = np.intp(low + count - 1)
        a = _finished(a, min(np.intp(low + i), last), bias, scale, cap)
        b = _finished(b, min(np.intp(low + i + 1), last), bias, scale, cap)
        c = _finished(c, min(np.intp(low + i + 2), last), bias, scale, cap)
        d = _finished(d, min(np.intp(low + i + 3), last), bias, scale, cap)
    else:
        a, b, c, d = a * scale, b * scale, c * scale, d * scale
    if i + 3 >= count:
        a, b = a if i < count else none, b if i + 1 < count else none
        c, d = c if i + 2 < count else none, none
    return a, b, c, d


@cuda_device
def _load_four(logits, at, i, step, last):
    """Begin to load four times four logits; what lies beyond the piece is read from its end."""
    return (
        load_floats(logits, at + min(np.intp(i), last)),
        load_floats(logits, at + min(np.intp(i + step), last)),
        load_floats(logits, at + min(np.intp(i + 2 * step), last)),
        load_floats(logits, at + min(np.intp(i + 3 * step), last)),
    )


@cuda_device
def _highest(four, i, top, place, target, at, wanted):
    """Return the largest so far and its place; note the target's logit where it is here."""
    a, b, c, d = four
    if 0 <= target - i < 4:
        wanted[at] = a if target == i else b if target == i + 1 else c if target == i + 2 else d
    top, place = larger(four, i, top, place)
    return top, place


@cuda_device(fast=True)
def _exponentials(four, peak):
    a, b = exp2((four[0] - peak) * LOG2_E), exp2((four[1] - peak) * LOG2_E)
    c, d = exp2((four[2] - peak) * LOG2_E), exp2((four[3] - peak) * LOG2_E)
    return (a + b) + (c + d)


@cuda_device
def _take_in(token, low, peak, place, total, largest, sums, best):
    """Join a piece's largest logit, its place and its sum to what earlier pieces left."""
    if low == 0:
        largest[token], sums[token], best[token] = peak, total, np.int32(place)
    elif peak > largest[token]:
        shrink = math.exp(np.float64(largest[token]) - np.float64(peak))
        sums[token] = sums[token] * shrink + total
        largest[token], best[token] = peak, np.int32(low + place)
    else:
        shrink = math.exp(np.float64(peak) - np.float64(largest[token]))
        sums[token] += total * shrink


@cuda_kernel(fast=True)
def reduce_piece(
    logits, tokens, low, count, bias, scale, cap, targets, first, largest, sums, best, wanted
):  # fmt: skip
    """Take in the logits of vocabulary entries ``low`` to ``low + count - 1``. No error check.

    A warp takes a token: 16 logits of each lane at a time, their sum scaled anew where a larger one
    came. With a block a token, whose threads hold all of a piece, barriers took most of the time.

    Parameters
    ----------
    logits : float32 array, shape (at least tokens, a multiple of 4, at least count)
    tokens, low, count : int
    bias : float32 array, shape (vocabulary,), or empty
    scale, cap : float32
        Factor on logits, and soft cap (0: none).
    targets : int32 array
        Of all tokens; those of this call begin at ``first``.
    first : int
    largest, sums : float32 and float64 arrays
        Modified in place: the largest logit so far, and the sum of exponentials of differences
        from it. A NaN among the logits makes the sum NaN. Overwritten where ``low`` is 0.
    best : int32 array
        Modified in place: the first place of the largest.
    wanted : float32 array
        Modified in place: the logit of the target, once it has come.
    """
    thread = np.intp(cuda.threadIdx.x)
    lane = thread % LANES
    row = np.intp(cuda.blockIdx.x) * (cuda.blockDim.x // LANES) + thread // LANES
    if row >= tokens:
        return
    token = first + row
    none = np.float32(-np.inf)
    top, place, total = none, np.int32(count), np.float64(0)
    target, step = np.int32(targets[token] - low), np.int32(4 * LANES)
    size, at, last = np.int32(count), row * logits.shape[1], np.intp(count - 1) // 4 * 4
    p, q, r, s = _load_four(logits, at, 4 * lane, step, last)
    for begin in range(0, count, 16 * LANES):
        i = np.int32(begin + 4 * lane)
        j, k, m = np.int32(i + step), np.int32(i + 2 * step), np.int32(i + 3 * step)
        # The next are under way while these are taken in: a load takes longer than that.
        following = _load_four(logits, at, i + 4 * step, step, last)
        loads_begun()
        p = _four(p, i, size, low, bias, scale, cap)
        q = _four(q, j, size, low, bias, scale, cap)
        r = _four(r, k, size, low, bias, scale, cap)
        s = _four(s, m, size, low, bias, scale, cap)
        before = top
        top, place = _highest(p, i, top, place, target, token, wanted)
        top, place = _highest(q, j, top, place, target, token, wanted)
        top, place = _highest(r, k, top, place, target, token, wanted)
        top, place = _highest(s, m, top, place, target, token, wanted)
        level = top if top > none else np.float32(0)
        part = _exponentials(p, level) + _exponentials(q, level)
        part += _exponentials(r, level) + _exponentials(s, level)
        total = np.float64(exp2((before - top) * LOG2_E)) * total if before > none else total
        total += np.float64(part)
        p, q, r, s = following
    peak = warp_max(top)
    # Places are below 2**24, exact in float32; the least of those that hold the peak is the first.
    least = warp_max(np.float32(-place) if top == peak else np.float32(-count))
    shift = np.float64(exp2((top - peak) * LOG2_E))
    total = warp_sum(total * shift if top > none or total != total else np.float64(0))
    if lane == 0:
        _take_in(token, low, peak, -np.intp(least), total, largest, sums, best)


@cuda_kernel
def finish_logprobs(count, largest, sums, best, wanted, targets, logprob, greedy):
    """Write log-probabilities (float32) and whether targets are the likeliest (uint8)."""
    token = np.intp(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    if token < count:
        norm = np.float64(largest[token]) + math.log(sums[token])
        logprob[token] = np.float32(np.float64(wanted[token]) - norm)
        greedy[token] = 1 if best[token] == targets[token] else 0
