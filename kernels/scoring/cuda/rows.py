"""What happens to each row between two products: embedding, norms, rotary positions, activation.

The residual stream is float32, inputs of products are bfloat16; sums are float32, in an order that
depends on the row's length alone.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.words import (
    block_sum,
    load_floats,
    load_words,
    pack_pair,
    store_words,
    to_bfloat16,
    to_float,
    warp_sum,
)

__all__ = [
    "activate",
    "activate_words",
    "add_bias",
    "add_norm",
    "embed",
    "layer_norm",
    "prepare_heads",
    "prepare_heads_words",
    "rms_norm",
    "scale_rows",
]


@cuda_kernel
def embed(tokens, positions, table, table_scale, places, has_places, width, hidden):
    """Write the embeddings of tokens (block x) to ``hidden``. No error check.

    Parameters
    ----------
    tokens, positions : int32 arrays, shape (tokens,)
        Nothing is written where the position is negative.
    table, places : uint16 arrays, shape (rows, at least width)
        bfloat16; learned positions are added if ``has_places``.
    table_scale : float32
    width : int
    hidden : float32 array, shape (tokens, width)
        Modified in place.
    """
    row = np.intp(cuda.blockIdx.x)
    position = np.intp(positions[row])
    if position < 0:
        return
    token = np.intp(tokens[row])
    for i in range(cuda.threadIdx.x, width, cuda.blockDim.x):
        value = to_float(table[token, i]) * table_scale
        if has_places:
            value += to_float(places[position, i])
        hidden[row, i] = value


@cuda_device
def _inverse_root(x, row, width, epsilon, slots):
    """Return ``1 / sqrt(mean(x ** 2) + epsilon)`` of a row, to all threads of a block."""
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    total = np.float32(0)
    zero = np.float32(0)
    for i in range(thread, width, 4 * threads):
        # Four loads are under way at a time: one by one, a row of 4,096 took 10 us.
        i1, i2, i3 = i + threads, i + 2 * threads, i + 3 * threads
        a = x[row, i]
        b = x[row, i1] if i1 < width else zero
        c = x[row, i2] if i2 < width else zero
        d = x[row, i3] if i3 < width else zero
        total += (a * a + b * b) + (c * c + d * d)
    total = block_sum(total, slots, thread, threads, LANES)
    return np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + epsilon))


@cuda_device
def _squares(four):
    return (four[0] * four[0] + four[1] * four[1]) + (four[2] * four[2] + four[3] * four[3])


@cuda_device
def _store_normed(out, at, four, weight, scale):
    """Write four numbers of a row as bfloat16."""
    low = pack_pair(four[0] * scale * weight[0], four[1] * scale * weight[1])
    high = pack_pair(four[2] * scale * weight[2], four[3] * scale * weight[3])
    store_words(out, at, (low, high))


@cuda_device
def _norm_held(x, at, weight, epsilon, out, out_at, slots):
    """:func:`rms_norm` of a row that the threads hold: 16 numbers each, all loads at once."""
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    width, zero = weight.size, np.float32(0)
    i0 = 4 * thread
    i1, i2, i3 = i0 + 4 * threads, i0 + 8 * threads, i0 + 12 * threads
    # What lies beyond the row is read from its beginning, and counts for nothing.
    j0, j1 = i0 if i0 < width else np.intp(0), i1 if i1 < width else np.intp(0)
    j2, j3 = i2 if i2 < width else np.intp(0), i3 if i3 < width else np.intp(0)
    a, b = load_floats(x, at + j0), load_floats(x, at + j1)
    c, d = load_floats(x, at + j2), load_floats(x, at + j3)
    wa, wb = load_floats(weight, j0), load_floats(weight, j1)
    wc, wd = load_floats(weight, j2), load_floats(weight, j3)
    total = (_squares(a) if i0 < width else zero) + (_squares(b) if i1 < width else zero)
    total += (_squares(c) if i2 < width else zero) + (_squares(d) if i3 < width else zero)
    total = block_sum(total, slots, thread, threads, LANES)
    scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + epsilon))
    if i0 < width:
        _store_normed(out, out_at + i0, a, wa, scale)
    if i1 < width:
        _store_normed(out, out_at + i1, b, wb, scale)
    if i2 < width:
        _store_normed(out, out_at + i2, c, wc, scale)
    if i3 < width:
        _store_normed(out, out_at + i3, d, wd, scale)


@cuda_kernel
def rms_norm(x, places, weight, epsilon, out):
    """Write ``x / sqrt(mean(x**2) + epsilon) * weight`` of each row (block x) as bfloat16.

    No error check. Source: Zhang and Sennrich 2019, arXiv 1910.07467.

    Parameters
    ----------
    x : float32 array, shape (rows, width)
    places : int32 array
        Which row of ``x`` becomes each row of ``out``; empty: the same.
    weight : float32 array, shape (width,)
    epsilon : float32
    out : uint16 array, shape (rows, at least width)
        Modified in place.
    """
    slots = cuda.shared.array(32, np.float32)
    place = np.intp(cuda.blockIdx.x)
    row = np.intp(places[place]) if places.size else place
    aligned = weight.size % 4 == 0 and x.shape[1] % 4 == 0 and out.shape[1] % 4 == 0
    if aligned and weight.size <= 16 * cuda.blockDim.x:
        at, out_at = row * x.shape[1], place * out.shape[1]
        _norm_held(x, at, weight, epsilon, out, out_at, slots)
        return
    scale = _inverse_root(x, row, weight.size, epsilon, slots)
    for i in range(cuda.threadIdx.x, weight.size, cuda.blockDim.x):
        out[place, i] = to_bfloat16(x[row, i] * scale * weight[i])


@cuda_kernel
def add_norm(x, weight, epsilon, hidden):
    """Add the RMS norm of each row of ``x`` (block x) to ``hidden``. No error check."""
    slots = cuda.shared.array(32, np.float32)
    row = np.intp(cuda.blockIdx.x)
    scale = _inverse_root(x, row, weight.size, epsilon, slots)
    for i in range(cuda.threadIdx.x, weight.size, cuda.blockDim.x):
        hidden[row, i] += x[row, i] * scale * weight[i]


@cuda_kernel
def layer_norm(x, places, weight, bias, epsilon, out):
    """Write ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` of each row as bfloat16.

    No error check. Source: Ba et al. 2016, arXiv 1607.06450. Arguments as in :func:`rms_norm`.
    """
    slots = cuda.shared.array(32, np.float32)
    more = cuda.shared.array(32, np.float32)
    place, width = np.intp(cuda.blockIdx.x), weight.size
    row = np.intp(places[place]) if places.size else place
    thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
    total = np.float32(0)
    for i in range(thread, width, threads):
        total += x[row, i]
    mean = block_sum(total, slots, thread, threads, LANES) / np.float32(width)
    total = np.float32(0)
    for i in range(thread, width, threads):
        total += (x[row, i] - mean) * (x[row, i] - mean)
    variance = block_sum(total, more, thread, threads, LANES) / np.float32(width)
    scale = np.float32(1) / np.float32(math.sqrt(variance + epsilon))
    for i in range(thread, width, threads):
        out[place, i] = to_bfloat16((x[row, i] - mean) * scale * weight[i] + bias[i])


@cuda_kernel
def add_bias(bias, hidden):
    """Add a bias to each row (block x) of a float32 array. No error check."""
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, bias.size, cuda.blockDim.x):
        hidden[row, i] += bias[i]


@cuda_device
def _value(qkv, row, at, bias):
    """Return an output of the three products, with its bias."""
    value = to_float(qkv[row, at])
    return value + bias[at] if bias.size else value


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
            value = _value(qkv, token, base + i, bias)
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
            a = _value(qkv, token, base + first, bias)
            if has_norm:
                a *= scale * weight[first]
        if i < pairs:
            b = _value(qkv, token, base + first + apart, bias)
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


@cuda_kernel
def prepare_heads_words(qkv, cosine, sine, positions, rows, tables, plane, q, cache):
    """:func:`prepare_heads` 16 bytes at a time, of heads that are rotated as a whole, in halves.

    No error check. Block x is the token. There are no biases and no norms, heads have no padding,
    and half a head is a multiple of 8.
    """
    token = np.intp(cuda.blockIdx.x)
    heads, kv_heads, block_size, width = q.shape[1], cache.shape[2], cache.shape[3], cache.shape[4]
    position = np.intp(positions[token])
    if position < 0:
        return
    block = np.intp(tables[np.intp(rows[token]), position // block_size])
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
            a0, b0 = _rotated(a[0], b[0], c[0], c[1], s[0], s[1])
            a1, b1 = _rotated(a[1], b[1], c[2], c[3], s[2], s[3])
            a2, b2 = _rotated(a[2], b[2], d[0], d[1], t[0], t[1])
            a3, b3 = _rotated(a[3], b[3], d[2], d[3], t[2], t[3])
            a, b = (a0, a1, a2, a3), (b0, b1, b2, b3)
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


@cuda_device
def _activation(code, x):
    """Apply the CPU's activation function of a code from ``ACTIVATIONS``."""
    if code == 0:
        return x / (np.float32(1) + np.float32(math.exp(-x)))
    if code == 1:
        return (
            np.float32(0.5) * x * (np.float32(1) + np.float32(math.erf(x * np.float32(0.5**0.5))))
        )
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + np.float32(math.tanh(inner)))


@cuda_kernel
def activate(code, gated, x, bias, inner, out):
    """Write ``act(gate) * up`` or ``act(up)`` of each row (block x) as bfloat16. No error check.

    Parameters
    ----------
    code : int
        From ``numbatch.kernels.scoring.activation.ACTIVATIONS``.
    gated : bool
    x : uint16 array, shape (rows, at least inner, or 2 * inner)
        bfloat16: the gate's outputs where there is one, then the up product's.
    bias : float32 array
        Of the same columns, or empty.
    inner : int
    out : uint16 array, shape (rows, at least inner)
        Modified in place.
    """
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, inner, cuda.blockDim.x):
        value = _activation(code, _value(x, row, i, bias))
        if gated:
            value *= _value(x, row, i + inner, bias)
        out[row, i] = to_bfloat16(value)


@cuda_device
def _active_pair(code, gate, up):
    """Activate the two bfloat16 numbers of a word and multiply by those of another."""
    low, high = gate << np.uint32(16), gate & np.uint32(0xFFFF0000)
    up_low, up_high = up << np.uint32(16), up & np.uint32(0xFFFF0000)
    a = _activation(code, np.uint32(low).view(np.float32)) * np.uint32(up_low).view(np.float32)
    b = _activation(code, np.uint32(high).view(np.float32)) * np.uint32(up_high).view(np.float32)
    return pack_pair(a, b)


@cuda_kernel(fast=True)
def activate_words(code, x, inner, out):
    """:func:`activate` with a gate and no bias, 16 bytes at a time, where rows are multiples of 8.

    Block x is the row, block y and the thread the piece of eight numbers.
    """
    row = np.intp(cuda.blockIdx.x)
    piece = np.intp(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    if piece * 8 >= inner:
        return
    at = row * x.shape[1] + piece * 8
    gate, up = load_words(x, at), load_words(x, at + inner)
    done = (
        _active_pair(code, gate[0], up[0]),
        _active_pair(code, gate[1], up[1]),
        _active_pair(code, gate[2], up[2]),
        _active_pair(code, gate[3], up[3]),
    )
    store_words(out, row * out.shape[1] + piece * 8, done)


@cuda_kernel
def scale_rows(x, scale, cap):
    """Scale and softly cap each row (block x) of a float32 array in place. No error check."""
    row = np.intp(cuda.blockIdx.x)
    for i in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        value = x[row, i] * scale
        x[row, i] = value if cap == np.float32(0) else cap * np.float32(math.tanh(value / cap))
