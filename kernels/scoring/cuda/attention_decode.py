"""Attention of one new token a sequence, split over the positions that it looks at.

A warp takes 64 positions of a sequence for all heads that share a key, and leaves a partial
result; ``attention_merge`` puts the parts together in order. Parts begin at multiples of 64, so a
sequence's bits depend on itself alone.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.attention_merge import SPLIT
from numbatch.kernels.scoring.cuda.decode_tiles import (
    add_values,
    head_rows,
    key_scores,
    load_keys,
    load_values,
    store_partial,
)
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.tiles import scale_tile, zero_tile
from numbatch.kernels.scoring.cuda.words import exp2, pack_pair

__all__ = [
    "MOST_SHARING",
    "WARPS",
    "attend_block",
    "attend_parts_kernel",
    "four_lanes_sum",
]

WARPS = 4
"""Parts in a block of threads."""

MOST_SHARING = 8
"""The most heads that may share a key."""

LOG2_E = np.float32(1 / math.log(2))


@cuda_device(fast=True)
def attend_block(state, query, keys, values, start, bounds, scale, cap, four):
    """Attend over a block of 16 positions, of which a warp has the keys and the values.

    Parameters
    ----------
    state : tuple
        The sum of weighted values, the largest score and this lane's sum of weights so far; the
        same is returned.
    query, keys, values : tuples
        Of ``head_rows``, ``load_keys`` and ``load_values``.
    start : int32
        Where the block starts.
    bounds : tuple of three int32
        Where the positions of the part stop, the first and the last that the token sees.
    four : int
        This lane's place among the four of a key.
    """
    result, largest, total = state
    stop, first, last = bounds
    factor = np.float32(scale * LOG2_E) if cap == np.float32(0) else np.float32(cap * LOG2_E)
    s = key_scores(query, keys)
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    if cap != np.float32(0):
        s0, s1 = math.tanh(s0 * scale / cap), math.tanh(s1 * scale / cap)
        s2, s3 = math.tanh(s2 * scale / cap), math.tanh(s3 * scale / cap)
    key = np.int32(start + np.int32(2 * four))
    if start + 16 > stop or start < first:
        low = np.float32(-np.inf)
        s0 = s0 if first <= key <= last else low
        s1 = s1 if first <= key + 1 <= last else low
        s2 = s2 if first <= key + 8 <= last else low
        s3 = s3 if first <= key + 9 <= last else low
    top = max(max(s0, s1), max(s2, s3)) * factor
    top = max(top, cuda.shfl_xor_sync(0xFFFFFFFF, top, 1))
    top = max(top, cuda.shfl_xor_sync(0xFFFFFFFF, top, 2))
    top = max(top, largest)
    shrink = exp2(largest - top)
    w0, w1 = exp2(s0 * factor - top), exp2(s1 * factor - top)
    w2, w3 = exp2(s2 * factor - top), exp2(s3 * factor - top)
    total = total * shrink + ((w0 + w1) + (w2 + w3))
    result = scale_tile(result, shrink, shrink)
    result = add_values(
        result, pack_pair(w0, w1), pack_pair(w2, w3), values, np.int32(last + 1 - key)
    )
    return result, top, total


@cuda_device
def four_lanes_sum(total):
    """Return the sum over the four lanes of a key."""
    total += cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)
    return total + cuda.shfl_xor_sync(0xFFFFFFFF, total, 2)


@functools.cache
def _part_attender(width: int) -> Any:
    """Make the function with which a warp attends over the positions of its part."""
    numbers = width // 4

    @cuda_device(fast=True)
    def attend(
        query, cache, plane, kv_head, blocks, positions, scale, cap, lane
    ):  # fmt: skip
        """Return the sum of weighted values, the largest score and the sum of weights.

        Parameters
        ----------
        query : tuple
            Of ``head_rows``.
        blocks : tuple of four int
            The part's blocks in the cache.
        positions : tuple of four int32
            Where the part starts and stops, the first and the last position that the token sees.
        """
        block, block1, block2, block3 = blocks
        start, stop, first, last = positions
        group, four = np.intp(lane >> 2), np.intp(lane & 3)
        kv_heads = cache.shape[2]
        key_blocks = np.intp(plane) * cache.shape[1]
        value_blocks = key_blocks + cache.shape[1]
        state = zero_tile(numbers), np.float32(-np.inf), np.float32(0)
        if start >= stop:
            block = np.intp(0)
        step = kv_heads * (16 * width)
        keys = kv_head * (16 * width) + group * width + four * 8
        values = kv_head * (16 * width) + 2 * four * width + group * 8
        ahead = load_keys(cache, (key_blocks + block) * step + keys, width)
        while start < stop:
            # The next keys are under way while this block is worked on; after the last, it again.
            here = ahead
            own = load_values(cache, (value_blocks + block) * step + values, width)
            if start + 16 < stop:
                block, block1, block2 = block1, block2, block3
            ahead = load_keys(cache, (key_blocks + block) * step + keys, width)
            bounds = (stop, first, last)
            state = attend_block(state, query, here, own, start, bounds, scale, cap, four)
            start = np.int32(start + 16)
        result, largest, total = state
        return result, largest, four_lanes_sum(total)

    return attend


@functools.cache
def attend_parts_kernel(width: int) -> Any:
    """Return the kernel for a padded head size of 64 or 128.

    It is launched with ``(tokens, kv_heads, parts / WARPS)`` blocks of ``32 * WARPS`` threads.
    """
    attend = _part_attender(width)

    @cuda_kernel(fast=True, early=True)
    def attend_parts(
        q, cache, tables, is_all, tokens, rows, positions, plane, window, scale, cap, partial,
        extremes,
    ):  # fmt: skip
        """Attend for one token, one key head and WARPS parts. No error check.

        Parameters
        ----------
        q, cache, tables, plane, window, scale, cap
            As for the tiles of many queries.
        is_all : bool
            Whether item, token and sequence have the same number: then nothing is looked up.
        tokens, rows : int32 arrays, shape (at least tokens,)
            Which rows of ``q`` are meant, and the sequence of each row of ``q``.
        positions : int32 array
            Of each row of ``q``; negative where nothing is to be done.
        partial : float32 array, shape (tokens, heads, parts, width)
            Modified in place: sums of weighted values.
        extremes : float32 array, shape (tokens, heads, parts, 2)
            Modified in place: the largest score, in units of log 2, and the sum of weights.
        """
        begin_next()
        thread = np.int32(cuda.threadIdx.x)
        lane = thread & 31
        group, four = np.intp(lane >> 2), np.intp(lane & 3)
        item, kv_head = np.intp(cuda.blockIdx.x), np.intp(cuda.blockIdx.y)
        part = np.intp(cuda.blockIdx.z) * WARPS + np.intp(thread >> 5)
        token = item if is_all else np.intp(tokens[item])
        row = item if is_all else np.intp(rows[token])
        last = np.int32(positions[token])
        start = np.int32(part * SPLIT)
        first = np.int32(0)
        if window > 0:
            first = np.int32(max(np.int32(0), np.int32(last - window + 1)))
            start = np.int32(max(start, np.int32(first & ~15)))
        # A load takes longer than the work on a block, so no load waits for another in the loop.
        at, most = np.intp(start >> 4), np.intp(tables.shape[1] - 1)
        block, block1 = np.intp(tables[row, min(at, most)]), np.intp(tables[row, min(at + 1, most)])
        block2 = np.intp(tables[row, min(at + 2, most)])
        block3 = np.intp(tables[row, min(at + 3, most)])
        await_previous()
        if last < np.int32(part * SPLIT):
            return
        heads = q.shape[1]
        sharing = heads // cache.shape[2]
        head = kv_head * sharing + group
        is_there = group < sharing
        query = head_rows(
            q, (token * heads + (head if is_there else 0)) * width + four * 8, is_there, width
        )
        stop = np.int32(min(np.int32((part + 1) * SPLIT), np.int32(last + 1)))
        result, largest, total = attend(
            query, cache, plane, kv_head, (block, block1, block2, block3),
            (start, stop, first, last), scale, cap, lane,
        )  # fmt: skip
        if is_there:
            place = (item * heads + head) * partial.shape[2] + part
            store_partial(result, partial, place * width + four * 16)
            if four == 0:
                extremes[item, head, part, 0] = largest
                extremes[item, head, part, 1] = total

    return attend_parts
