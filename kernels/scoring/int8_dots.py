"""The int8 product where the CPU sums four products of bytes in one instruction (AVX-512 VNNI).

Six rows of activations meet a panel at a time: twelve sums and twelve totals stay in registers,
and weights are unpacked between products, which use other units of the CPU. Limit: a block of one
row and half a panel takes 8 products and 3 other operations of the multiplying units (2 with 8
bits), so 73 % of what products alone reach; from L1 on a Zen 4 core 165 of 233 billion
multiply-adds a second.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.int8_panels import BLOCK, ZERO
from numbatch.kernels.scoring.int8_scales import (
    LOW,
    load_scales,
    scale_sums,
    store_halves,
)
from numbatch.kernels.simd import (
    LANES,
    load_int32,
    prefetch_to_l2,
    prefetch_to_write,
    splat,
    splat_int32,
)
from numbatch.kernels.simd_bytes import dot_bytes, splat_bytes

__all__ = ["rows_2", "rows_6"]

ROWS = 6


@cpu_device(inline=True)
def _codes(data, at, j, bits):
    """Return half a panel's codes of columns ``8 * j`` to ``8 * j + 3``, and of the next four."""
    if bits == 4:
        both = load_int32(data, at + 128 * j)
        return both & LOW, (both >> 4) & LOW
    return load_int32(data, at + 256 * j), load_int32(data, at + 256 * j + 128)


@cpu_device(inline=True)
def _start(sums, place, bits):
    """Return what the sum of a row's block starts from."""
    return splat_int32(np.int32(0) if bits == 4 else np.int32(-ZERO) * sums[place])


@cpu_device(inline=True)
def _add(codes, at, a, b, a_low, a_high, b_low, b_high):
    """Add the products of a row's eight columns with a panel's halves to its sums."""
    low, high = splat_bytes(codes, at), splat_bytes(codes, at + 4)
    a, b = dot_bytes(a, a_low, low), dot_bytes(b, b_low, low)
    return dot_bytes(a, a_high, high), dot_bytes(b, b_high, high)


@cpu_device
def rows_6(
    data, begin, size, bits, x, row, count, blocks, apart, terms, ask, out, to, two, bias, n, add
):  # fmt: skip
    """Multiply six rows of x with a panel, or its first half.

    If ``count`` is less the last rows, of which only their memory counts, are dropped. Meanwhile
    some lines are asked for of each block of the panel that is ``later`` bytes on.
    """
    codes, factors, sums = x
    later, first_line, last_line = ask
    for i in range(ROWS // terms):  # lines that are written, which would be waited for
        prefetch_to_write(out, to + i * out.shape[1])
        prefetch_to_write(out, to + i * out.shape[1] + LANES)
    a0 = a1 = a2 = a3 = a4 = a5 = splat(np.float32(0))
    b0 = b1 = b2 = b3 = b4 = b5 = splat(np.float32(0))
    width = apart * BLOCK
    for index in range(blocks):
        block, p0 = begin + size * index, row * apart + index
        p1, p2, p3 = p0 + apart, p0 + 2 * apart, p0 + 3 * apart
        p4, p5, at = p0 + 4 * apart, p0 + 5 * apart, p0 * BLOCK
        for line in range(first_line, last_line):
            prefetch_to_l2(data, block + later + 64 * line)
        c0 = d0 = _start(sums, p0, bits)
        c1 = d1 = _start(sums, p1, bits)
        c2 = d2 = _start(sums, p2, bits)
        c3 = d3 = _start(sums, p3, bits)
        c4 = d4 = _start(sums, p4, bits)
        c5 = d5 = _start(sums, p5, bits)
        for j in range(4):
            al, ah = _codes(data, block, j, bits)
            bl, bh = _codes(data, block + 64, j, bits)
            c = at + 8 * j
            c0, d0 = _add(codes, c, c0, d0, al, ah, bl, bh)
            c1, d1 = _add(codes, c + width, c1, d1, al, ah, bl, bh)
            c2, d2 = _add(codes, c + 2 * width, c2, d2, al, ah, bl, bh)
            c3, d3 = _add(codes, c + 3 * width, c3, d3, al, ah, bl, bh)
            c4, d4 = _add(codes, c + 4 * width, c4, d4, al, ah, bl, bh)
            c5, d5 = _add(codes, c + 5 * width, c5, d5, al, ah, bl, bh)
        sa, sb = load_scales(data, block, 0, bits), load_scales(data, block, 1, bits)
        a0 = scale_sums(factors, p0, bits, c0, a0, sa)
        b0 = scale_sums(factors, p0, bits, d0, b0, sb)
        a1 = scale_sums(factors, p1, bits, c1, a1, sa)
        b1 = scale_sums(factors, p1, bits, d1, b1, sb)
        a2 = scale_sums(factors, p2, bits, c2, a2, sa)
        b2 = scale_sums(factors, p2, bits, d2, b2, sb)
        a3 = scale_sums(factors, p3, bits, c3, a3, sa)
        b3 = scale_sums(factors, p3, bits, d3, b3, sb)
        a4 = scale_sums(factors, p4, bits, c4, a4, sa)
        b4 = scale_sums(factors, p4, bits, d4, b4, sb)
        a5 = scale_sums(factors, p5, bits, c5, a5, sa)
        b5 = scale_sums(factors, p5, bits, d5, b5, sb)
    stride = out.shape[1]
    if terms == 2:
        store_halves(out, to, a0 + a1, b0 + b1, two, bias, n, add)
        store_halves(out, to + stride, a2 + a3, b2 + b3, two, bias, n, add)
        if count > 4:
            store_halves(out, to + 2 * stride, a4 + a5, b4 + b5, two, bias, n, add)
        return
    store_halves(out, to, a0, b0, two, bias, n, add)
    store_halves(out, to + stride, a1, b1, two, bias, n, add)
    store_halves(out, to + 2 * stride, a2, b2, two, bias, n, add)
    if count > 3:
        store_halves(out, to + 3 * stride, a3, b3, two, bias, n, add)
    if count > 4:
        store_halves(out, to + 4 * stride, a4, b4, two, bias, n, add)
    if count > 5:
        store_halves(out, to + 5 * stride, a5, b5, two, bias, n, add)


@cpu_device
def rows_2(
    data, begin, size, bits, x, row, count, blocks, apart, terms, ask, out, to, two, bias, n, add
):  # fmt: skip
    """Multiply two rows of x with a panel, or the first: the same sums as :func:`rows_6`."""
    codes, factors, sums = x
    a0 = a1 = b0 = b1 = splat(np.float32(0))
    later, first_line, last_line = ask
    for index in range(blocks):
        block, p0 = begin + size * index, row * apart + index
        p1, at = p0 + apart, p0 * BLOCK
        for line in range(first_line, last_line):
            prefetch_to_l2(data, block + later + 64 * line)
        c0 = d0 = _start(sums, p0, bits)
        c1 = d1 = _start(sums, p1, bits)
        for j in range(4):
            al, ah = _codes(data, block, j, bits)
            bl, bh = _codes(data, block + 64, j, bits)
            c = at + 8 * j
            c0, d0 = _add(codes, c, c0, d0, al, ah, bl, bh)
            c1, d1 = _add(codes, c + apart * BLOCK, c1, d1, al, ah, bl, bh)
        sa, sb = load_scales(data, block, 0, bits), load_scales(data, block, 1, bits)
        a0 = scale_sums(factors, p0, bits, c0, a0, sa)
        b0 = scale_sums(factors, p0, bits, d0, b0, sb)
        a1 = scale_sums(factors, p1, bits, c1, a1, sa)
        b1 = scale_sums(factors, p1, bits, d1, b1, sb)
    if terms == 2:
        store_halves(out, to, a0 + a1, b0 + b1, two, bias, n, add)
        return
    store_halves(out, to, a0, b0, two, bias, n, add)
    if count > 1:
        store_halves(out, to + out.shape[1], a1, b1, two, bias, n, add)
