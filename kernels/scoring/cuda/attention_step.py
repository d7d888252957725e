"""All of attention of one new token a sequence in one kernel, where few tokens make launches count.

A block takes what heads that share a key do of a token, and four parts of its positions: it rotates
the queries in registers, the warp that has the new position rotates and stores the key and stores
the value, and the block of a token and key that is done last puts the parts together. Three kernels
did this one after the other, each waiting for the whole of the one before it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.attention_decode import SPLIT, WARPS, part_attender
from numbatch.kernels.scoring.cuda.decode_tiles import ask_for, head_rows, store_partial
from numbatch.kernels.scoring.cuda.heads import rotated_eight
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.words import (
    exp2,
    load_floats,
    load_words,
    pack_pair,
    store_words,
)

__all__ = ["attend_step_kernel"]

LINE = 64
"""Numbers of a line of the caches."""


@cuda_device
def _angles(table, at):
    return load_floats(table, at), load_floats(table, at + 4)


@cuda_device(fast=True)
def _joined(total, values, height, part_total, own):
    """Add four columns of a part; one that saw nothing left no value."""
    a, b, c, d = values
    if height > np.float32(-np.inf):
        weight = exp2(height)
        total += weight * part_total
        a, b = a + weight * own[0], b + weight * own[1]
        c, d = c + weight * own[2], d + weight * own[3]
    return total, (a, b, c, d)


@cuda_device(fast=True)
def _merged(partial, extremes, item, head, i, ends):
    """Return columns ``i`` to ``i + 3`` of a head, from the parts up to ``ends``, in order."""
    parts, width = partial.shape[2], partial.shape[3]
    at = ((item * partial.shape[1] + head) * parts) * width + i
    zero = np.float32(0)
    largest, total, values = np.float32(-np.inf), zero, (zero, zero, zero, zero)
    for part in range(0, ends + 1, 4):
        # Four parts are under way at a time; behind the last it is read again, and left out.
        p1, p2, p3 = min(part + 1, ends), min(part + 2, ends), min(part + 3, ends)
        t0, t1 = extremes[item, head, part, 0], extremes[item, head, p1, 0]
        t2, t3 = extremes[item, head, p2, 0], extremes[item, head, p3, 0]
        s0, s1 = extremes[item, head, part, 1], extremes[item, head, p1, 1]
        s2, s3 = extremes[item, head, p2, 1], extremes[item, head, p3, 1]
        v0, v1 = load_floats(partial, at + part * width), load_floats(partial, at + p1 * width)
        v2, v3 = load_floats(partial, at + p2 * width), load_floats(partial, at + p3 * width)
        top = max(max(largest, max(t0, t1)), max(t2, t3))
        if top == np.float32(-np.inf):
            continue
        shrink, largest = exp2(largest - top), top
        total *= shrink
        a, b, c, d = values
        values = (a * shrink, b * shrink, c * shrink, d * shrink)
        total, values = _joined(total, values, t0 - top, s0, v0)
        if p1 > part:
            total, values = _joined(total, values, t1 - top, s1, v1)
        if p2 > p1:
            total, values = _joined(total, values, t2 - top, s2, v2)
        if p3 > p2:
            total, values = _joined(total, values, t3 - top, s3, v3)
    a, b, c, d = values
    return a / total, b / total, c / total, d / total


@functools.cache
def _head_turner(width: int) -> Any:
    """Make the functions that load a lane's angles, and rotate its part of a query."""
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

    else:

        @cuda_device
        def load_angles(cosine, sine, position, four):
            at = position * half + 8 * four
            return _angles(cosine, at), _angles(sine, at)

        @cuda_device
        def turn(query, angles):
            a, b = rotated_eight(query[0:4], query[4:8], angles[0], angles[1])
            return a + b

    return load_angles, turn


@functools.cache
def attend_step_kernel(width: int) -> Any:
    """Return the kernel for heads of 64 or 128 that are rotated as a whole, in halves.

    It is launched with ``(tokens, kv_heads, parts / WARPS)`` blocks of ``32 * WARPS`` threads.
    """
    half = width // 2
    pieces = half // 8
    attend = part_attender(width)
    load_angles, turn = _head_turner(width)

    @cuda_device
    def ask_for_block(cache, plane, block, kv_head, lane):
        """Ask for a block's keys and values: no kernel of this step but this one writes any."""
        kv_heads = cache.shape[2]
        apart = cache.shape[1] * kv_heads * (16 * width)
        at = ((np.intp(plane) * cache.shape[1] + block) * kv_heads + kv_head) * (16 * width)
        if lane < width // 4:
            ask_for(cache, at + LINE * np.intp(lane))
            ask_for(cache, at + apart + LINE * np.intp(lane))

    @cuda_device
    def store_new(qkv, at, cosine, sine, position, cache, plane, block, kv_head, heads, lane):
        """Rotate and store the key of a position, and store its value; ``at``: of the token."""
        kv_heads = cache.shape[2]
        apart = cache.shape[1] * kv_heads * (16 * width)
        place = ((np.intp(plane) * cache.shape[1] + block) * kv_heads + kv_head) * (16 * width)
        place += (position & 15) * width
        if lane < pieces:
            piece = 8 * np.intp(lane)
            own = at + (heads + kv_head) * width + piece
            a, b = load_words(qkv, own), load_words(qkv, own + half)
            turned = position * half + piece
            a, b = rotated_eight(a, b, _angles(cosine, turned), _angles(sine, turned))
            store_words(cache, place + piece, a)
            store_words(cache, place + piece + half, b)
        elif lane < 3 * pieces:
            piece = 8 * (np.intp(lane) - pieces)
            own = at + (heads + kv_heads + kv_head) * width + piece
            store_words(cache, place + apart + piece, load_words(qkv, own))

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
        window, scale, cap, partial, extremes
            As for ``attend_parts``.
        turns : int32 array, shape (at least tokens * kv_heads,)
            Zeros, and zeros again afterwards.
        out : uint16 array, shape (tokens, at least heads * width)
            Modified in place.
        """
        begin_next()
        done = cuda.shared.array(1, np.int32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        group, four = np.intp(lane >> 2), np.intp(lane & 3)
        token, kv_head = np.intp(cuda.blockIdx.x), np.intp(cuda.blockIdx.y)
        part = np.intp(cuda.blockIdx.z) * WARPS + np.intp(warp)
        last = np.int32(positions[token])
        start = np.int32(part * SPLIT)
        first = np.int32(0)
        if window > 0:
            first = np.int32(max(np.int32(0), np.int32(last - window + 1)))
            start = np.int32(max(start, np.int32(first & ~15)))
        at, most = np.intp(start >> 4), np.intp(tables.shape[1] - 1)
        blocks = (
            np.intp(tables[token, min(at, most)]), np.intp(tables[token, min(at + 1, most)]),
            np.intp(tables[token, min(at + 2, most)]), np.intp(tables[token, min(at + 3, most)]),
        )  # fmt: skip
        position = np.intp(max(last, np.int32(0)))
        newest = np.intp(tables[token, position >> 4])
        angles = load_angles(cosine, sine, position, four)
        if start <= last:
            ask_for_block(cache, plane, blocks[0], kv_head, lane)
        if start + 16 <= last:
            ask_for_block(cache, plane, blocks[1], kv_head, lane)
        if start + 32 <= last:
            ask_for_block(cache, plane, blocks[2], kv_head, lane)
        if start + 48 <= last:
            ask_for_block(cache, plane, blocks[3], kv_head, lane)
        await_previous()
        if last < 0:
            return
        sharing = heads // cache.shape[2]
        head = kv_head * sharing + group
        is_there = group < sharing
        row = token * qkv.shape[1]
        if last >= np.int32(part * SPLIT):
            own = row + (head if is_there else 0) * width + four * 8
            query = turn(head_rows(qkv, own, is_there, width), angles)
            if last < np.int32((part + 1) * SPLIT):
                store_new(
                    qkv, row, cosine, sine, position, cache, plane, newest, kv_head, heads, lane
                )
            cuda.syncwarp()
            stop = np.int32(min(np.int32((part + 1) * SPLIT), np.int32(last + 1)))
            result, largest, total = attend(
                query, cache, plane, kv_head, blocks, (start, stop, first, last), scale, cap, lane
            )
            if is_there:
                place = (token * heads + head) * partial.shape[2] + part
                store_partial(result, partial, place * width + four * 16)
                if four == 0:
                    extremes[token, head, part, 0] = largest
                    extremes[token, head, part, 1] = total
        cuda.syncthreads()
        if cuda.gridDim.z > 1:
            if thread == 0:
                turn_at = token * cache.shape[2] + kv_head
                cuda.threadfence()  # what this block wrote comes before its turn
                done[0] = cuda.atomic.add(turns, turn_at, np.int32(1))
                cuda.threadfence()  # what the others wrote comes after it
                if done[0] == cuda.gridDim.z - 1:
                    turns[turn_at] = np.int32(0)
            cuda.syncthreads()
            if done[0] != cuda.gridDim.z - 1:
                return
        column = 4 * np.intp(lane)
        if column < width:
            for own_head in range(np.intp(warp), sharing, WARPS):
                head = kv_head * sharing + own_head
                a, b, c, d = _merged(partial, extremes, token, head, column, np.intp(last) // SPLIT)
                words = (pack_pair(a, b), pack_pair(c, d))
                store_words(out, token * out.shape[1] + head * width + column, words)

    return attend_step
