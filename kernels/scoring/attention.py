"""Causal attention over keys and values that lie in fixed blocks.

Tokens of many sequences stand one after another (no padding); each attends to the earlier tokens of
its own sequence through that sequence's row of the block table. All sums run over positions in
order, from the first visible one, so a token's result does not depend on the batch or the chunks.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.activation import softcap
from numbatch.kernels.simd import LANES, fma, load_float32, splat, store_float32, sum_lanes

__all__ = ["attend", "store_kv"]


@cpu_device
def _at(shape, block, layer, part, head, place):
    """Return the flat index of a cached vector; ``part`` is 0 for keys, 1 for values."""
    _, layers, _, heads, block_size, width = shape
    return ((((block * layers + layer) * 2 + part) * heads + head) * block_size + place) * width


@cpu_kernel
def store_kv(start, stop, k, v, head_size, slots, layer, cache):
    """Write the keys and values of a range of tokens into their slots of the cache.

    No error check.

    Parameters
    ----------
    k, v : float32 arrays, shape (tokens, at least kv_heads * head_size)
    head_size : int
    slots : int64 array, shape (tokens,)
        ``block * block_size + place within the block``.
    layer : int
    cache : float32 array, shape (blocks, layers, 2, kv_heads, block_size, padded head size)
        Modified in place: keys at ``[..., 0, ...]``, values at ``[..., 1, ...]``, zero beyond
        ``head_size``.
    """
    heads, block_size = cache.shape[3:5]
    for token in range(start, stop):
        block, place = divmod(slots[token], block_size)
        for head in range(heads):
            source = slice(head * head_size, (head + 1) * head_size)
            for part in range(2):
                out = cache[block, layer, part, head, place]
                out[:head_size] = k[token, source] if part == 0 else v[token, source]
                out[head_size:] = 0


@cpu_device
def _scores(query, cache, layer, head, table, first, last, scale, cap, out):
    """Write the scaled scores of positions ``first`` to ``last`` to ``out``; return the largest."""
    block_size, width = cache.shape[4:]
    largest = np.float32(-np.inf)
    # Blocks outside, places inside: a division at each position would cost as much as its product.
    for index in range(first // block_size, last // block_size + 1):
        begin = index * block_size
        base = _at(cache.shape, table[index], layer, 0, head, 0)
        for place in range(max(first - begin, 0), min(last - begin + 1, block_size)):
            total = splat(np.float32(0))
            for i in range(0, width, LANES):
                key = load_float32(cache, base + place * width + i)
                total = fma(load_float32(query, i), key, total)
            score = softcap(sum_lanes(total) * scale, cap)
            out[begin + place - first] = score
            largest = max(largest, score)
    return largest


@cpu_device
def _softmax(scores, count, largest):
    """Replace scores by their exponentials, in place; return their sum."""
    total = 0.0
    for i in range(count):
        scores[i] = math.exp(scores[i] - largest)
        total += scores[i]
    return np.float32(total)


@cpu_device
def _weighted_values(weights, cache, layer, head, table, first, last, factor, out):
    """Write ``factor * sum(weights[p] * values[p])`` over positions to ``out``."""
    block_size, width = cache.shape[4:]
    for i in range(0, width, 2 * LANES):
        two = i + LANES < width
        low = high = splat(np.float32(0))
        for index in range(first // block_size, last // block_size + 1):
            begin = index * block_size
            base = _at(cache.shape, table[index], layer, 1, head, 0) + i
            for place in range(max(first - begin, 0), min(last - begin + 1, block_size)):
                weight = splat(weights[begin + place - first])
                low = fma(weight, load_float32(cache, base + place * width), low)
                if two:
                    value = load_float32(cache, base + place * width + LANES)
                    high = fma(weight, value, high)
        store_float32(out, i, low * factor)
        if two:
            store_float32(out, i + LANES, high * factor)


@cpu_kernel
def attend(
    start,
    stop,
    scratch,
    q,
    head_size,
    layer,
    cache,
    tables,
    rows,
    positions,
    window,
    scale,
    cap,
    out,
):
    """Attend for items ``start`` to ``stop - 1``; item ``h * tokens + t`` is head h of token t.

    No error check. Heads come first so that equal ranges of items take about equal time: a late
    token has more to look at than an early one.

    Parameters
    ----------
    scratch : float32 array, shape (2 * padded head size + longest context,)
        Overwritten.
    q : float32 array, shape (tokens, at least heads * head_size)
    head_size : int
    layer, cache
        As in :func:`store_kv`.
    tables : int64 array, shape (sequences, blocks of the longest)
        The blocks of each sequence, in order.
    rows : int64 array, shape (tokens,)
        The token's sequence.
    positions : int64 array, shape (tokens,)
        The token's position in its sequence.
    window : int
        A token sees itself and ``window - 1`` before it; 0: all before it.
    scale, cap : float32
        Factor on scores, and soft cap (0: none).
    out : float32 array, shape (tokens, at least heads * head_size)
        Modified in place.
    """
    tokens, width = rows.size, cache.shape[5]
    heads = q.shape[1] // head_size
    group = heads // cache.shape[3]
    query, result, scores = scratch[:width], scratch[width : 2 * width], scratch[2 * width :]
    query[:] = 0
    for item in range(start, stop):
        head, token = divmod(item, tokens)
        base = head * head_size
        query[:head_size] = q[token, base : base + head_size]
        last = positions[token]
        first = max(0, last - window + 1) if window > 0 else 0
        place = (layer, head // group, tables[rows[token]], first, last)
        largest = _scores(query, cache, *place, scale, cap, scores)
        factor = np.float32(1) / _softmax(scores, last - first + 1, largest)
        _weighted_values(scores, cache, *place, factor, result)
        out[token, base : base + head_size] = result[:head_size]
