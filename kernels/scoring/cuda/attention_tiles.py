"""Causal attention of many queries at a time, with tensor cores and an online softmax.

A block works on up to ``16 * warps`` queries of one sequence and one head; each warp on 16 of them.
Keys and values come through shared memory, 64 positions at a time, from the blocks of the KV cache.
While some are worked on, the next arrive beside them. Source: Dao 2023, arXiv 2307.08691.

A query's sums run over its positions in order, 64 at a time from a multiple of 64. So its bits do
not depend on the queries beside it, on the chunk that it came in, or on ``warps``.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    copy_words,
    exponential_tile,
    finish_copies,
    load_rows,
    mask_tile,
    pack_tile,
    row_largest,
    row_sums,
    scale_tile,
    score_tile,
    shared_address,
    softcap_tile,
    store_tile,
    value_tile,
    zero_tile,
)
from numbatch.kernels.scoring.cuda.words import exp2

__all__ = ["KEYS", "TILE_WIDTHS", "attend_tiles_kernel"]

KEYS = 64
"""Positions of keys and values in shared memory."""

TILE_WIDTHS = (64, 128)
"""Padded head sizes that there are tiles for."""

LOG2_E = np.float32(1 / math.log(2))


@cuda_device
def _row_largest(value):
    """Largest over the four lanes that share a row."""
    value = max(value, cuda.shfl_xor_sync(0xFFFFFFFF, value, 1))
    return max(value, cuda.shfl_xor_sync(0xFFFFFFFF, value, 2))


@cuda_device
def _row_total(value):
    """Sum over the four lanes that share a row."""
    value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)
    return value + cuda.shfl_xor_sync(0xFFFFFFFF, value, 2)


@cuda_device
def _place(row, piece, width):
    """Byte of a piece within a tile in shared memory."""
    return np.uint32(row * np.int32(2 * width) + ((piece ^ (row & 7)) << 4))


@cuda_device
def _find_pages(tables, entry, start, end):
    """Return the blocks of the cache that hold KEYS positions from ``start`` on; 0 behind ``end``.

    They are looked up long before they are needed: a look-up takes as long as the copy after it.
    """
    at = np.intp(start >> 4)
    return (
        np.intp(tables[entry, at if start < end else 0]),
        np.intp(tables[entry, at + 1 if start + 16 < end else 0]),
        np.intp(tables[entry, at + 2 if start + 32 < end else 0]),
        np.intp(tables[entry, at + 3 if start + 48 < end else 0]),
    )


@cuda_device
def _chosen(pages, number):
    low = pages[0] if number == 0 else pages[1]
    high = pages[2] if number == 2 else pages[3]
    return low if number < 2 else high


@functools.cache
def _cache_copier(width: int, threads: int) -> Any:
    pieces = width // 8
    most = KEYS * pieces // threads

    def copier(i: int) -> Any:
        """Make the function that copies pieces ``i`` and further ones: its numbers are constant."""
        further = copier(i + 1) if i + 1 < most else None
        # The rows of a copy lie in one page, but where they are more than a page has.
        first, is_one = i * threads // pieces // 16, threads // pieces <= 16

        @cuda_device
        def copy_from(base, cache, pages, first_block, kv_head, kv_heads, start, end):
            at = np.int32(cuda.threadIdx.x) + np.int32(i * threads)
            row, piece = at // np.int32(pieces), at % np.int32(pieces)
            page = pages[first] if is_one else _chosen(pages, row >> 4)
            vector = ((first_block + page) * kv_heads + kv_head) * 16 + np.intp(row & 15)
            place = base + _place(row, piece, width)
            copy_words(place, cache, vector * width + piece * 8, start + row < end)
            if further is not None:
                further(base, cache, pages, first_block, kv_head, kv_heads, start, end)

        return copy_from

    @cuda_device
    def copy_many(base, cache, pages, first_block, kv_head, kv_heads, start, end):
        for i in range(most):
            at = np.int32(cuda.threadIdx.x) + np.int32(i * threads)
            row, piece = at // np.int32(pieces), at % np.int32(pieces)
            page = _chosen(pages, row >> 4)
            vector = ((first_block + page) * kv_heads + kv_head) * 16 + np.intp(row & 15)
            place = base + _place(row, piece, width)
            copy_words(place, cache, vector * width + piece * 8, start + row < end)

    # Of many copies the addresses would not fit into registers.
    copy_all = copier(0) if most <= 8 else copy_many

    @cuda_device
    def copy_cached(base, cache, pages, first_block, kv_head, kv_heads, start, end):
        """Begin to copy KEYS cached vectors from position ``start``; zeros from ``end`` on."""
        copy_all(base, cache, pages, first_block, kv_head, kv_heads, start, end)
        finish_copies()

    return copy_cached


@functools.cache
def attend_tiles_kernel(width: int, warps: int) -> Any:
    """Return the kernel for a padded head size and a number of warps in a block.

    It is launched with ``(tiles, heads)`` blocks of ``32 * warps`` threads.
    """
    threads = 32 * warps
    pieces = width // 8
    rows = 16 * warps
    # Keys and values, twice; the queries come by the second place, before they are in registers.
    tile_bytes, half = 2 * KEYS * width, width // 2
    copy_cached = _cache_copier(width, threads)

    @cuda_device
    def copy_both(place, cache, pages, key_blocks, kv_head, kv_heads, start, end):
        """Begin to copy keys, and values behind them."""
        copy_cached(place, cache, pages, key_blocks, kv_head, kv_heads, start, end)
        values = place + np.uint32(tile_bytes)
        blocks = key_blocks + cache.shape[1]
        copy_cached(values, cache, pages, blocks, kv_head, kv_heads, start, end)

    # With heads of 64 two blocks run on a multiprocessor.
    registers = 128 if width == 64 and warps == 8 else None

    @cuda_kernel(fast=True, registers=registers, shared=4 * tile_bytes)
    def attend_tiles(
        q, cache, tables, tile_rows, tile_tokens, tile_counts, positions, plane, head_size,
        window, scale, cap, out,
    ):  # fmt: skip
        """Attend for a tile of queries (block x) and a head (block y). No error check.

        Parameters
        ----------
        q : uint16 array, shape (tokens, heads, width)
            bfloat16, zero beyond ``head_size``.
        cache : uint16 array, shape (2 * layers, blocks, kv_heads, 16, width)
        tables : int32 array, shape (sequences, blocks of the longest)
        tile_rows, tile_tokens, tile_counts : int32 arrays, shape (tiles,)
            The sequence of a tile, its first token and how many it has.
        positions : int32 array, shape (tokens,)
        plane : int
            The layer's keys are at ``cache[plane]``, its values at ``cache[plane + 1]``.
        head_size, window : int
            ``window`` is 0 where all earlier positions are seen.
        scale, cap : float32
            Factor on scores, and soft cap (0: none).
        out : uint16 array, shape (tokens, at least heads * head_size)
            Modified in place.
        """
        shared = cuda.shared.array(0, np.uint16)
        base = shared_address(shared)
        queries_base = base + np.uint32(2 * tile_bytes)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        tile, head = np.intp(cuda.blockIdx.x), np.intp(cuda.blockIdx.y)
        heads, kv_heads = q.shape[1], cache.shape[2]
        token, count = np.intp(tile_tokens[tile]), np.int32(tile_counts[tile])
        begin = np.int32(positions[token])
        end = np.int32(begin + count)
        kv_head = head // (heads // kv_heads)
        entry = np.intp(tile_rows[tile])
        key_blocks = np.intp(plane) * cache.shape[1]

        # Where this lane reads in step 0 of a product, for four 8 x 8 matrices at a time.
        offset_a = _place(lane & 15, lane >> 4, width)
        offset_b = _place((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1, width)

        for i in range(rows * pieces // threads):
            at = thread + np.int32(i * threads)
            row, piece = at // np.int32(pieces), at % np.int32(pieces)
            there = row < count
            source = ((token + (np.intp(row) if there else 0)) * heads + head) * width + piece * 8
            copy_words(queries_base + _place(row, piece, width), q, source, there)
        finish_copies()
        own = np.int32(begin + warp * 16 + (lane >> 2))
        below = np.int32(own + 8)
        lowest = lowest_below = first = np.int32(0)
        if window > 0:
            lowest, lowest_below = np.int32(own - window + 1), np.int32(below - window + 1)
            first = np.int32(max(np.int32(0), np.int32(begin - window + 1)))
        start = np.int32(first // np.int32(KEYS) * KEYS)
        largest, largest_below = np.float32(-np.inf), np.float32(-np.inf)
        total, total_below = np.float32(0), np.float32(0)
        result = zero_tile(half)
        factor = np.float32(scale * LOG2_E) if cap == np.float32(0) else LOG2_E

        pages = _find_pages(tables, entry, start, end)
        copy_both(base, cache, pages, key_blocks, kv_head, kv_heads, start, end)
        pages = _find_pages(tables, entry, np.int32(start + KEYS), end)
        copies_done(0)
        cuda.syncthreads()
        queries = load_rows(queries_base + np.uint32(warp * (32 * width)) + offset_a, width)
        here, other = base, queries_base
        while start < end:
            copies_done(0)
            cuda.syncthreads()  # keys and values are there, and nobody reads those before any more
            following = np.int32(start + KEYS)
            if following < end:
                copy_both(other, cache, pages, key_blocks, kv_head, kv_heads, following, end)
                pages = _find_pages(tables, entry, np.int32(following + KEYS), end)
            scores = score_tile(queries, here + offset_b, KEYS)
            if cap != np.float32(0):
                scores = softcap_tile(scores, scale / cap, cap)
            if start + np.int32(KEYS - 1) > begin or window > 0:
                column = np.int32(start + ((lane & 3) << 1))
                scores = mask_tile(scores, column, lowest, own, lowest_below, below)
            top, top_below = row_largest(scores)
            top = max(largest, _row_largest(top) * factor)
            top_below = max(largest_below, _row_largest(top_below) * factor)
            # A row that has seen nothing yet has minus infinity as its largest.
            shift = top if top > np.float32(-np.inf) else np.float32(0)
            shift_below = top_below if top_below > np.float32(-np.inf) else np.float32(0)
            weights = exponential_tile(scores, factor, shift, shift_below)
            shrink, shrink_below = exp2(largest - shift), exp2(largest_below - shift_below)
            largest, largest_below = top, top_below
            more, more_below = row_sums(weights)
            total = total * shrink + more
            total_below = total_below * shrink_below + more_below
            result = scale_tile(result, shrink, shrink_below)
            packed = pack_tile(weights)
            result = value_tile(result, packed, here + np.uint32(tile_bytes) + offset_a)
            start = following
            here, other = other, here

        total, total_below = _row_total(total), _row_total(total_below)
        result = scale_tile(result, np.float32(1) / total, np.float32(1) / total_below)
        row = np.intp(warp * 16 + (lane >> 2))
        at = (token + row) * out.shape[1] + head * head_size
        at_below = at + 8 * out.shape[1]
        store_tile(
            result, out, at if row < count else -1, at_below if row + 8 < count else -1,
            np.int32((lane & 3) << 1), np.int32(head_size),
        )  # fmt: skip

    return attend_tiles
