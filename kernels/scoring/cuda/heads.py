"""What happens to queries, keys and values between their product and attention."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.rows import biased
from numbatch.kernels.scoring.cuda.words import (
    load_floats,
    load_words,
    pack_pair,
    store_words,
    to_bfloat16,
    warp_sum,
)

__all__ = ["prepare_heads", "prepare_heads_words", "rotated_eight"]


@cuda_kernel
def prepare_heads(
    qkv, bias, query_norm, key_norm, epsilon, cosine, sine, interleaved, positions, rows, tables,
    plane, head_size, q, cache,
):  # fmt: skip
    """Norm and rotate queries and keys, and store keys and values in the cache. No error check.

    A warp works on one head of one token: block x is the token, block y and thread y give the head,
    queries first, then keys, then values.

    Parameters
    ----------
    qkv : uint16 array, shape (tokens, at least (heads + 2 * kv_heads) * head_size)
        bfloat16.
    bias : float32 array
        Of the same columns, or empty.
    query_norm, key_norm : float32 arrays, shape (head_size,) or empty
        Weights of RMS norms over each head.
    cosine, sine : float32 arrays, shape (positions, pairs)
        No pairs where positions are not rotary. Source: Su et al. 2021, arXiv 2104.09864.
    interleaved : bool
        True: pairs are (0, 1), (2, 3), ...; False: (0, pairs), (1, pairs + 1), ...
    positions, rows : int32 arrays, shape (tokens,)
        Nothing is done where the position is negative.
    tables : int32 array, shape (sequences, blocks)
    plane : int
        Where the layer's keys are in the cache; its values are in the next.
    q : uint16 array, shape (tokens, heads, padded head size)
        Modified in place: bfloat16, zero beyond ``head_size``.
    cache : uint16 array, shape (2 * layers, blocks, kv_heads, block size, padded head size)
        Modified in place.
    """
    token = np.intp(cuda.blockIdx.x)
    head = np.intp(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)
    heads, kv_heads, block_size, width = q.shape[1], cache.shape[2], cache.shape[3], cache.shape[4]
    position = np.intp(positions[token])
    if position < 0 or head >= heads + 2 * kv_heads:
        return
    lane = np.intp(cuda.threadIdx.x)
    base = head * head_size
    is_query, is_value = head < heads, head >= heads + kv_heads
    pairs = 0 if is_value else cosine.shape[1]
    step, apart = (2, 1) if interleaved else (1, pairs)
    weight = query_norm if is_query else key_norm
    has_norm = weight.size > 0 and not is_value
    scale = np.float32(1)
    if has_norm:
        total = np.float32(0)
        for i in range(lane, head_size, LANES):
            value = biased(qkv, token, base + i, bias)
            total += value * value
        mean = warp_sum(total) / np.float32(head_size)
        scale = np.float32(1) / np.float32(math.sqrt(mean + epsilon))
    block = np.intp(tables[np.intp(rows[token]), position // block_size])
    place = position % block_size
    kv_head = head - heads - (kv_heads if is_value else 0)
    page = plane + (1 if is_value else 0)
    for i in range(lane, width - pairs, LANES):
        first = step * i if i < pairs else i + pairs
        a = np.float32(0)
        if first < head_size:
            a = biased(qkv, token, base + first, bias)
            if has_norm:
                a *= scale * weight[first]
        if i < pairs:
            b = biased(qkv, token, base + first + apart, bias)
            if has_norm:
                b *= scale * weight[first + apart]
            c, s = cosine[position, i], sine[position, i]
            a, b = a * c - b * s, a * s + b * c
            if is_query:
                q[token, head, first + apart] = to_bfloat16(b)
            else:
                cache[page, block, kv_head, place, first + apart] = to_bfloat16(b)
        if is_query:
            q[token, head, first] = to_bfloat16(a)
        else:
            cache[page, block, kv_head, place, first] = to_bfloat16(a)


@cuda_device
def _rotated(a, b, cosine, cosine_high, sine, sine_high):
    """Rotate the two pairs that two words of bfloat16 numbers hold."""
    low, high = np.uint32(a << np.uint32(16)).view(np.float32), a & np.uint32(0xFFFF0000)
    b_low, b_high = np.uint32(b << np.uint32(16)).view(np.float32), b & np.uint32(0xFFFF0000)
    top, b_top = np.uint32(high).view(np.float32), np.uint32(b_high).view(np.float32)
    first = pack_pair(low * cosine - b_low * sine, top * cosine_high - b_top * sine_high)
    second = pack_pair(low * sine + b_low * cosine, top * sine_high + b_top * cosine_high)
    return first, second


@cuda_device
def rotated_eight(a, b, cosines, sines):
    """Rotate eight pairs: four words of their first numbers, four of their second."""
    c, d = cosines
    s, t = sines
    a0, b0 = _rotated(a[0], b[0], c[0], c[1], s[0], s[1])
    a1, b1 = _rotated(a[1], b[1], c[2], c[3], s[2], s[3])
    a2, b2 = _rotated(a[2], b[2], d[0], d[1], t[0], t[1])
    a3, b3 = _rotated(a[3], b[3], d[2], d[3], t[2], t[3])
    return (a0, a1, a2, a3), (b0, b1, b2, b3)


@cuda_kernel(early=True, registers=40)
def prepare_heads_words(qkv, cosine, sine, positions, rows, tables, plane, q, cache):
    """:func:`prepare_heads` 16 bytes at a time, of heads that are rotated as a whole, in halves.

    No error check. Block x is the token. There are no biases and no norms, heads have no padding,
    and half a head is a multiple of 8.
    """
    begin_next()
    token = np.intp(cuda.blockIdx.x)
    heads, kv_heads, block_size, width = q.shape[1], cache.shape[2], cache.shape[3], cache.shape[4]
    position = np.intp(positions[token])
    block = np.intp(tables[np.intp(rows[token]), max(position, 0) // block_size])
    await_previous()
    if position < 0:
        return
    place = position % block_size
    half = width // 2
    pieces = np.int32(half // 8)
    for item in range(cuda.threadIdx.x, (heads + 2 * kv_heads) * pieces, cuda.blockDim.x):
        head, piece = np.intp(np.int32(item) // pieces), 8 * np.intp(np.int32(item) % pieces)
        at = token * qkv.shape[1] + head * width + piece
        a, b = load_words(qkv, at), load_words(qkv, at + half)
        if head < heads + kv_heads:
            turn = position * half + piece
            c, d = load_floats(cosine, turn), load_floats(cosine, turn + 4)
            s, t = load_floats(sine, turn), load_floats(sine, turn + 4)
            a, b = rotated_eight(a, b, (c, d), (s, t))
        if head < heads:
            at = (token * heads + head) * width + piece
            store_words(q, at, a)
            store_words(q, at + half, b)
        else:
            is_value = head >= heads + kv_heads
            kv_head = head - heads - (kv_heads if is_value else 0)
            page = (plane + (1 if is_value else 0)) * cache.shape[1] + block
            at = ((page * kv_heads + kv_head) * block_size + place) * width + piece
            store_words(cache, at, a)
            store_words(cache, at + half, b)
