"""Merging of up to 64 symbols whose ranks lie in the lanes of a vector."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.rank_lanes import load_32, load_64, put, smallest
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge
from numbatch.kernels.words import leading_zeros, trailing_zeros

__all__ = ["MOST_SYMBOLS", "NO_RANK", "merge_lanes"]

MOST_SYMBOLS = 64
NO_RANK = np.uint32(0xFFFFFFFF)
_ALL, _1, _6 = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(1), np.uint64(6)
_LANE = np.uint64(63)
_NONE = np.uint64(NOTHING << 6)


@cpu_device
def _merge(ranks, alive, symbols, pairs, shift):
    while True:
        least = smallest(ranks)
        if least >= _NONE:
            return alive
        at, number = np.intp(least & _LANE), least >> _6
        symbols[at] = np.int64(number)
        behind = alive & (_ALL << np.uint64(at + 1))
        right = trailing_zeros(behind)
        after = trailing_zeros(behind & (behind - _1))
        before = 63 - leading_zeros(alive & ((_1 << np.uint64(at)) - _1))
        alive ^= _1 << np.uint64(right)
        ranks = put(ranks, right, np.uint64(NO_RANK))
        merged = find_merge(number, symbols[after], pairs, shift)
        ranks = put(ranks, at, merged << _6 | np.uint64(at))
        merged = find_merge(symbols[before], number, pairs, shift)
        ranks = put(ranks, before, merged << _6 | np.uint64(before))


@cpu_device
def merge_lanes(symbols, count, ranks, pairs, shift):
    """Merge ``symbols[:count]`` in place; return the mask of those that are left.

    No error check. ``count`` is from 1 to 64. Both arrays have 64 places; ``ranks`` (uint32) holds
    ``merged << 6 | i`` of symbols ``i`` and ``i + 1``, and ``NO_RANK`` from ``count - 1`` on.
    ``symbols[-1]`` and ``symbols[64]`` are there and merge with nothing.

    A merge costs the least of a vector and two look-ups that do not wait for each other; nothing
    moves in memory.
    """
    alive = _ALL >> np.uint64(64 - count)
    if count <= 32:
        return _merge(load_32(ranks, 0), alive, symbols, pairs, shift)
    return _merge(load_64(ranks, 0), alive, symbols, pairs, shift)
