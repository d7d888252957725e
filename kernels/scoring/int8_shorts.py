"""The int8 product where the CPU has no instruction for four products of bytes (AVX2).

AVX2 sums two products of bytes in 16 bits. Half bytes of weights times codes of activations are at
most 15 * 127: over the 32 columns of a block eight such sums stay within 16 bits, and are widened
but once. Of whole bytes each sum is widened. All is exact: the same bits as ``int8_dots``.

Four rows of activations meet half a panel: eight registers of sums, two of weights. Limit, measured
in assembly on a Zen 3 core with all in the nearest cache: products and their sums alone 128 billion
multiply-adds a second (1.5 of the 2 products a cycle), 88 with scales and least weights for every
32 columns; here 87 with half bytes, 49 with bytes. Five and six rows do not get further, nor do
weights unpacked before, nor scales applied between the next block's products.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import store_output
from numbatch.kernels.scoring.int8_panels import BLOCK
from numbatch.kernels.scoring.int8_scales import (
    LOW,
    load_scales,
    scale_sums,
    store_halves,
)
from numbatch.kernels.simd import (
    LANES,
    align_stack,
    load_int32,
    prefetch,
    prefetch_to_l2,
    prefetch_to_write,
    splat,
    splat_int32,
)
from numbatch.kernels.simd_bytes import (
    add_short_pairs,
    dot_signed_bytes,
    dot_to_shorts,
    splat_bytes,
)

__all__ = ["rows_2", "rows_4"]

ROWS = 4

SIGNS = -0x7F7F7F80
"""Turns the bytes of a word, each above its weight by 128, into weights."""


@cpu_device(inline=True)
def _dot(bits, total, weights, code):
    """Add products to sums of half bytes, of 16 bits, or of bytes, of 32 bits."""
    if bits == 4:
        return dot_to_shorts(total, weights, code)
    return dot_signed_bytes(total, weights, code)


@cpu_device(inline=True)
def _add(bits, sums, codes, at, width, weights):
    """Add the products of four columns of four rows with half a panel."""
    a, b, c, d = sums
    return (
        _dot(bits, a, weights, splat_bytes(codes, at)),
        _dot(bits, b, weights, splat_bytes(codes, at + width)),
        _dot(bits, c, weights, splat_bytes(codes, at + 2 * width)),
        _dot(bits, d, weights, splat_bytes(codes, at + 3 * width)),
    )


@cpu_device(inline=True)
def _sum_block(data, block, bits, codes, at, width):
    """Return the sums of a block of four rows and half a panel."""
    zero = splat_int32(np.int32(0))
    sums = zero, zero, zero, zero
    if bits == 8:
        for j in range(8):
            weights = load_int32(data, block + 128 * j) ^ SIGNS
            sums = _add(8, sums, codes, at + 4 * j, width, weights)
        return sums
    # Written out: in a loop LLVM keeps the sums in memory.
    w0, w1 = load_int32(data, block), load_int32(data, block + 128)
    w2, w3 = load_int32(data, block + 256), load_int32(data, block + 384)
    sums = _add(4, sums, codes, at, width, w0 & LOW)
    sums = _add(4, sums, codes, at + 4, width, (w0 >> 4) & LOW)
    sums = _add(4, sums, codes, at + 8, width, w1 & LOW)
    sums = _add(4, sums, codes, at + 12, width, (w1 >> 4) & LOW)
    sums = _add(4, sums, codes, at + 16, width, w2 & LOW)
    sums = _add(4, sums, codes, at + 20, width, (w2 >> 4) & LOW)
    sums = _add(4, sums, codes, at + 24, width, w3 & LOW)
    sums = _add(4, sums, codes, at + 28, width, (w3 >> 4) & LOW)
    a, b, c, d = sums
    return (
        add_short_pairs(zero, a),
        add_short_pairs(zero, b),
        add_short_pairs(zero, c),
        add_short_pairs(zero, d),
    )


@cpu_device
def _half_4(
    data, begin, size, bits, half, x, row, count, blocks, apart, terms, ask, out, to, bias, n, add
):  # fmt: skip
    """Multiply four rows of x with half a panel; see :func:`rows_4`."""
    align_stack()
    codes, factors, _ = x
    later, first_line, last_line = ask
    a = b = c = d = splat(np.float32(0))
    width = apart * BLOCK
    for index in range(blocks):
        block, p = begin + size * index, row * apart + index
        q, r, s = p + apart, p + 2 * apart, p + 3 * apart
        for line in range(first_line, last_line):
            prefetch_to_l2(data, block + later + 64 * line)
        found = _sum_block(data, block + 64 * half, bits, codes, p * BLOCK, width)
        scales = load_scales(data, block, half, bits)
        a = scale_sums(factors, p, bits, found[0], a, scales)
        b = scale_sums(factors, q, bits, found[1], b, scales)
        c = scale_sums(factors, r, bits, found[2], c, scales)
        d = scale_sums(factors, s, bits, found[3], d, scales)
    stride = out.shape[1]
    if terms == 2:
        store_output(out, to, a + b, bias, n, add)
        if count > 2:
            store_output(out, to + stride, c + d, bias, n, add)
        return
    store_output(out, to, a, bias, n, add)
    if count > 1:
        store_output(out, to + stride, b, bias, n, add)
    if count > 2:
        store_output(out, to + 2 * stride, c, bias, n, add)
    if count > 3:
        store_output(out, to + 3 * stride, d, bias, n, add)


@cpu_device
def rows_4(
    data, begin, size, bits, x, row, count, blocks, apart, terms, ask, out, to, two, bias, n, add
):  # fmt: skip
    """Multiply four rows of x with a panel, or its first half.

    If ``count`` is less the last rows, of which only their memory counts, are dropped. Meanwhile
    some lines are asked for of each block of the panel that is ``later`` bytes on.
    """
    for i in range(ROWS // terms):  # lines that are written, which would be waited for
        prefetch_to_write(out, to + i * out.shape[1])
        prefetch_to_write(out, to + i * out.shape[1] + LANES)
    _half_4(data, begin, size, bits, 0, x, row, count, blocks, apart, terms, ask, out, to,
            bias, n, add)  # fmt: skip
    if two:
        _half_4(data, begin, size, bits, 1, x, row, count, blocks, apart, terms, (0, 0, 0), out,
                to + LANES, bias, n + LANES, add)  # fmt: skip


@cpu_device(inline=True)
def _sum_row(data, block, bits, codes, at):
    """Return the sums of a block of one row and both halves of a panel."""
    a = b = zero = splat_int32(np.int32(0))
    if bits == 8:
        for j in range(8):
            v, w = load_int32(data, block + 128 * j), load_int32(data, block + 128 * j + 64)
            code = splat_bytes(codes, at + 4 * j)
            a, b = dot_signed_bytes(a, v ^ SIGNS, code), dot_signed_bytes(b, w ^ SIGNS, code)
        return a, b
    for j in range(4):
        v, w = load_int32(data, block + 128 * j), load_int32(data, block + 128 * j + 64)
        low, high = splat_bytes(codes, at + 8 * j), splat_bytes(codes, at + 8 * j + 4)
        a, b = dot_to_shorts(a, v & LOW, low), dot_to_shorts(b, w & LOW, low)
        a, b = dot_to_shorts(a, (v >> 4) & LOW, high), dot_to_shorts(b, (w >> 4) & LOW, high)
    return add_short_pairs(zero, a), add_short_pairs(zero, b)


@cpu_device
def _row_1(data, begin, size, bits, x, row, blocks, apart, ask):
    """Return the products of a row of x with both halves of a panel."""
    align_stack()
    codes, factors, _ = x
    later, first_line, last_line = ask
    a = b = splat(np.float32(0))
    for index in range(blocks):
        block, p = begin + size * index, row * apart + index
        for line in range(first_line, last_line):
            prefetch(data, block + later + 64 * line)
        c, d = _sum_row(data, block, bits, codes, p * BLOCK)
        a = scale_sums(factors, p, bits, c, a, load_scales(data, block, 0, bits))
        b = scale_sums(factors, p, bits, d, b, load_scales(data, block, 1, bits))
    return a, b


@cpu_device
def rows_2(
    data, begin, size, bits, x, row, count, blocks, apart, terms, ask, out, to, two, bias, n, add
):  # fmt: skip
    """Multiply two rows of x with a panel, or the first: the same sums as :func:`rows_4`.

    One after the other, since the weights of a panel stay in the nearest cache.
    """
    a, b = _row_1(data, begin, size, bits, x, row, blocks, apart, ask)
    if terms == 2:
        c, d = _row_1(data, begin, size, bits, x, row + 1, blocks, apart, (0, 0, 0))
        store_halves(out, to, a + c, b + d, two, bias, n, add)
        return
    store_halves(out, to, a, b, two, bias, n, add)
    if count > 1:
        a, b = _row_1(data, begin, size, bits, x, row + 1, blocks, apart, (0, 0, 0))
        store_halves(out, to + out.shape[1], a, b, two, bias, n, add)
