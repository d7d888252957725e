"""Putting the parts of a sequence's attention together, in order."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.words import exp2, load_floats, pack_pair, store_words

__all__ = ["HEADS", "SPLIT", "joined_columns", "merge_parts", "merged_columns"]

SPLIT = 64
"""Positions in a part."""

HEADS = 4
"""Heads that a block of :func:`merge_parts` takes."""


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
def joined_columns(partial, extremes, item, head, i, ends):
    """Return columns ``i`` to ``i + 3`` of a head, from the parts up to ``ends``, in order.

    Also the largest score, and the sum of weights that the columns are still to be divided by.
    """
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
    return values, largest, total


@cuda_device(fast=True)
def merged_columns(partial, extremes, item, head, i, ends):
    """Return columns ``i`` to ``i + 3`` of a head as two words of bfloat16 numbers."""
    values, _, total = joined_columns(partial, extremes, item, head, i, ends)
    a, b, c, d = values
    return pack_pair(a / total, b / total), pack_pair(c / total, d / total)


@cuda_kernel(fast=True, early=True)
def merge_parts(partial, extremes, is_all, tokens, positions, head_size, out):
    """Put the parts of a token (block x) and of HEADS heads (block y) together. No error check.

    A thread takes four columns (x) of a head (y).

    Parameters
    ----------
    partial, extremes, is_all, tokens, positions
        As ``attend_parts_kernel``'s kernel left them.
    head_size : int
    out : uint16 array, shape (tokens, a multiple of 4, at least heads * head_size)
        Modified in place.
    """
    begin_next()
    item = np.intp(cuda.blockIdx.x)
    head = np.intp(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)
    token = item if is_all else np.intp(tokens[item])
    last = np.intp(positions[token])
    await_previous()
    column = 4 * np.intp(cuda.threadIdx.x)
    if last < 0 or head >= partial.shape[1] or column >= head_size:
        return
    low, high = merged_columns(partial, extremes, item, head, column, last // SPLIT)
    at = head * head_size + column
    if head_size % 4 == 0:
        store_words(out, token * out.shape[1] + at, (low, high))
        return
    out[token, at], out[token, at + 1] = np.uint16(low), np.uint16(low >> np.uint32(16))
    if column + 2 < head_size:  # it is even
        out[token, at + 2], out[token, at + 3] = np.uint16(high), np.uint16(high >> np.uint32(16))
