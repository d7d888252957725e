"""All of attention of one new token a sequence in one kernel, where few tokens make launches count.

A block takes what heads that share a key do of a token, and 256 of its positions; a warp takes 32.
What earlier steps wrote is in registers before the products that this one waits for are there. Then
the new key is rotated and put among the others in registers, and stored for later steps. The block
of a token and key that is done last puts the blocks together. On an H200 it takes 5.5 to 6 us of a
step, where four blocks of positions a warp, looked up in memory one after the other, took 7 to 8.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.attention_decode import (
    MOST_SHARING,
    attend_block,
    four_lanes_sum,
)
from numbatch.kernels.scoring.cuda.attention_merge import joined_columns, merged_columns
from numbatch.kernels.scoring.cuda.decode_tiles import (
    head_rows,
    load_keys,
    load_values,
    put_row,
    store_partial,
    store_pieces,
)
from numbatch.kernels.scoring.cuda.heads import rotated_eight
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.tiles import zero_tile
from numbatch.kernels.scoring.cuda.words import load_floats, load_words, store_words

__all__ = ["SPAN", "STEP_THREADS", "attend_step_kernel"]

STEP_WARPS = 8
STEP_THREADS = 32 * STEP_WARPS

OWN = 32
"""Positions of a warp."""

SPAN = OWN * STEP_WARPS
"""Positions of a block."""


@cuda_device
def _angles(table, at):
    return load_floats(table, at), load_floats(table, at + 4)


@functools.cache
def _head_turner(width: int) -> Any:
    """Make the functions that load a lane's angles, rotate its part of a head and load values."""
    half = width // 2

    if width == 128:

        @cuda_device
        def load_angles(cosine, sine, position, four):
            at = position * half + 8 * four
            return (
                (_angles(cosine, at), _angles(sine, at)),
                (_angles(cosine, at + 32), _angles(sine, at + 32)),
            )

        @cuda_device
        def turn(query, angles):
            first, second = angles
            a, b = rotated_eight(query[0:4], query[8:12], first[0], first[1])
            c, d = rotated_eight(query[4:8], query[12:16], second[0], second[1])
            return a + c + b + d

        @cuda_device
        def load_value(qkv, at):
            return load_words(qkv, at) + load_words(qkv, at + 64)

    else:

        @cuda_device
        def load_angles(cosine, sine, position, four):
            at = position * half + 8 * four
            return _angles(cosine, at), _angles(sine, at)

        @cuda_device
        def turn(query, angles):
            a, b = rotated_eight(query[0:4], query[4:8], angles[0], angles[1])
            return a + b

        @cuda_device
        def load_value(qkv, at):
            return load_words(qkv, at)

    return load_angles, turn, load_value


@functools.cache
def _row_putter(width: int) -> Any:
    """Make the function that puts the new key and value among those of a block."""
    below = width // 8
    second, third, fourth = width // 16, 2 * width // 16, 3 * width // 16

    @cuda_device
    def put(keys, values, key, value, row, group, four):
        """Put them in their places, if ``row``, at least 0, says that they belong here."""
        keys = put_row(keys, key, 0, row == group)
        keys = put_row(keys, key, below, row == group + 8)
        values = put_row(values, value, 0, row == 2 * four)
        values = put_row(values, value, second, row == 2 * four + 1)
        values = put_row(values, value, third, row == 2 * four + 8)
        return keys, put_row(values, value, fourth, row == 2 * four + 9)

    return put


@functools.cache
def attend_step_kernel(width: int) -> Any:
    """Return the kernel for heads of 64 or 128 that are rotated as a whole, in halves.

    It is launched with ``(tokens, kv_heads, parts)`` blocks of ``STEP_THREADS`` threads; a part has
    ``SPAN`` positions.
    """
    quarter, numbers = width // 4, width // 4
    load_angles, turn, load_value = _head_turner(width)
    put = _row_putter(width)

    @cuda_kernel(fast=True, early=True)
    def attend_step(
        qkv, cosine, sine, cache, tables, positions, plane, heads, window, scale, cap, partial,
        extremes, turns, out,
    ):  # fmt: skip
        """Attend for the new tokens of sequences; token, row and sequence have the same number.

        No error check.

        Parameters
        ----------
        qkv : uint16 array, shape (tokens, at least (heads + 2 * kv_heads) * width)
            bfloat16: queries, keys and values of the tokens.
        cosine, sine, cache, tables, positions, plane
            As for ``prepare_heads``. ``cache`` is modified in place.
        heads : int
        window, scale, cap
            As for ``attend_parts``.
        partial : float32 array, shape (tokens, heads, at least parts, width)
            Modified in place: sums of weighted values.
        extremes : float32 array, shape (tokens, heads, at least parts, 2)
            Modified in place: the largest score, in units of log 2, and the sum of weights.
        turns : int32 array, shape (at least tokens * kv_heads,)
            Zeros, and zeros again afterwards.
        out : uint16 array, shape (tokens, at least heads * width)
            Modified in place.
        """
        begin_next()
        done = cuda.shared.array(1, np.int32)
        sums = cuda.shared.array((1, MOST_SHARING, STEP_WARPS, width), np.float32, alignment=16)
        tops = cuda.shared.array((1, MOST_SHARING, STEP_WARPS, 2), np.float32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, np.intp(thread >> 5)
        group, four = np.intp(lane >> 2), np.intp(lane & 3)
        token, kv_head = np.intp(cuda.blockIdx.x), np.intp(cuda.blockIdx.y)
        part = np.intp(cuda.blockIdx.z)
        last = np.int32(positions[token])
        position = np.intp(max(last, np.int32(0)))
        start = np.int32(part * SPAN + warp * OWN)
        first = np.int32(max(np.int32(0), np.int32(last - window + 1))) if window > 0 else 0
        at, most = np.intp(start >> 4), np.intp(tables.shape[1] - 1)
        block = np.intp(tables[token, min(at, most)])
        block1 = np.intp(tables[token, min(at + 1, most)])
        newest = np.intp(tables[token, position >> 4])
        angles = load_angles(cosine, sine, position, four)
        kv_heads = cache.shape[2]
        step, apart = kv_heads * (16 * width), cache.shape[1] * kv_heads * (16 * width)
        base = np.intp(plane) * apart + kv_head * (16 * width)
        own_keys = base + group * width + four * 8
        own_values = base + apart + 2 * four * width + group * 8
        # No kernel of this step but this one writes any.
        keys = load_keys(cache, block * step + own_keys, width)
        values = load_values(cache, block * step + own_values, width)
        keys1 = load_keys(cache, block1 * step + own_keys, width)
        await_previous()
        if last < 0:
            return
        sharing = heads // kv_heads
        is_there = group < sharing
        head = kv_head * sharing + (group if is_there else 0)
        row = token * qkv.shape[1]
        state = zero_tile(numbers), np.float32(-np.inf), np.float32(0)
        bounds = (np.int32(last + 1), first, last)
        if start <= last:
            query = head_rows(qkv, row + head * width + four * 8, is_there, width)
            own = row + (heads + kv_head) * width
            key = head_rows(qkv, own + four * 8, True, width)
            value = load_value(qkv, own + kv_heads * width + group * 8)
            values1 = load_values(cache, block1 * step + own_values, width)
            query, key = turn(query, angles), turn(key, angles)
            place = np.int32(last - start)  # 32 or more: another warp has it
            keys, values = put(
                keys, values, key, value, place if place < 16 else np.int32(-1), group, four
            )
            keys1, values1 = put(
                keys1, values1, key, value, np.int32(place - 16) if place < 32 else np.int32(-1),
                group, four,
            )  # fmt: skip
            if place < OWN:
                key_place = newest * step + base + (position & 15) * width
                if group == 0:
                    store_pieces(cache, key_place + 8 * four, key, 32)
                if four == 0:
                    store_pieces(cache, key_place + apart + 8 * group, value, 64)
            if start + 16 > first:
                state = attend_block(state, query, keys, values, start, bounds, scale, cap, four)
            start = np.int32(start + 16)
            if start <= last and start + 16 > first:
                state = attend_block(state, query, keys1, values1, start, bounds, scale, cap, four)
        result, largest, total = state
        total = four_lanes_sum(total)
        if is_there:
            store_partial(result, sums, (group * STEP_WARPS + warp) * width + four * 16)
            if four == 0:
                tops[0, group, warp, 0], tops[0, group, warp, 1] = largest, total
        cuda.syncthreads()
        is_alone = cuda.gridDim.z == 1
        column = 4 * np.intp(thread % np.int32(quarter))
        for own_head in range(thread // np.int32(quarter), sharing, STEP_THREADS // quarter):
            head = kv_head * sharing + own_head
            if is_alone:
                words = merged_columns(sums, tops, 0, own_head, column, STEP_WARPS - 1)
                store_words(out, token * out.shape[1] + head * width + column, words)
            else:
                columns, largest, total = joined_columns(
                    sums, tops, 0, own_head, column, STEP_WARPS - 1
                )
                a, b, c, d = columns
                partial[token, head, part, column] = a
                partial[token, head, part, column + 1] = b
                partial[token, head, part, column + 2] = c
                partial[token, head, part, column + 3] = d
                if column == 0:
                    extremes[token, head, part, 0] = largest
                    extremes[token, head, part, 1] = total
        if is_alone:
            return
        cuda.threadfence()  # what this block wrote comes before its turn
        cuda.syncthreads()
        if thread == 0:
            turn_at = token * kv_heads + kv_head
            done[0] = cuda.atomic.add(turns, turn_at, np.int32(1))
            cuda.threadfence()  # what the others wrote comes after it
            if done[0] == cuda.gridDim.z - 1:
                turns[turn_at] = np.int32(0)
        cuda.syncthreads()
        if done[0] != cuda.gridDim.z - 1:
            return
        for own_head in range(thread // np.int32(quarter), sharing, STEP_THREADS // quarter):
            head = kv_head * sharing + own_head
            words = merged_columns(partial, extremes, token, head, column, position // SPAN)
            store_words(out, token * out.shape[1] + head * width + column, words)

    return attend_step
