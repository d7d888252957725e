"""Small steps of sampling on a GPU: the coin, the order of numbers, penalties, four logits."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda_device
from numbatch.kernels.random import draw_bits
from numbatch.kernels.scoring.cuda.words import larger, load_floats

__all__ = ["coin", "exponentials", "four_logits", "highest", "order_key", "penalized", "plain"]

_bits = cuda_device(draw_bits)


@cuda_device
def coin(seed, position):
    """Return the CPU's coin: a number in [0, 1)."""
    return np.float64(_bits(np.uint64(seed), np.uint64(position)) >> np.uint64(11)) * 2.0**-53


@cuda_device
def order_key(x):
    """Map a float32's bits to a uint32 so that the order of keys is the order of numbers."""
    bits = np.float32(x).view(np.uint32)
    if bits >> np.uint32(31):
        return np.uint32(~bits)
    return np.uint32(bits | np.uint32(0x80000000))


@cuda_device
def penalized(x, count, repetition, presence, frequency):
    """Apply penalties to a logit whose token the prompt marked with 1 and each output with 2."""
    if count == 0:
        return x
    x = x / repetition if x > 0 else x * repetition
    if count >= 2:
        x -= frequency * np.float32(count // 2) + presence
    return x


@cuda_device
def four_logits(logits, row, i, vocabulary):
    """Return four logits of a row from place ``i`` on, minus infinity beyond the vocabulary."""
    if i < vocabulary:
        return load_floats(logits, row * logits.shape[1] + i)
    none = np.float32(-np.inf)
    return none, none, none, none


@cuda_device
def highest(four, i, top, place, broken):
    """Return the largest so far, its place, and 1 if any was not a number."""
    a, b, c, d = four
    if math.isnan(a) or math.isnan(b) or math.isnan(c) or math.isnan(d):
        broken = np.float32(1)
    top, place = larger(four, i, top, place)
    return top, place, broken


@cuda_device
def exponentials(four, top):
    """Return the sum of the exponentials of differences from ``top``."""
    a, b = np.float32(math.exp(four[0] - top)), np.float32(math.exp(four[1] - top))
    c, d = np.float32(math.exp(four[2] - top)), np.float32(math.exp(four[3] - top))
    return (a + b) + (c + d)


@cuda_device
def plain(logit, token, request, position):
    """Return a logit as it is."""
    return logit
