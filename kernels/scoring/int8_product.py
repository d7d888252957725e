"""Products of quantized activations with packed weights.

Codes are multiplied and summed in exact integers for 32 columns at a time, and only these sums are
scaled, in float32, from the first block to the last::

    total += sum(code of w * code of x) * scale of x * scale of w
    total += least of w * (sum(code of x) * scale of x)              4 bits
    total += sum((byte of w - 128) * code of x) * scale of x * scale of w    8 bits

So every path and every number of rows gives the same bits. Activations of two terms (quantize.py)
are two rows here, whose totals are added at the end, or of which the second is passed over.

Six rows of activations meet a panel at a time: twelve sums and twelve totals stay in registers,
and weights are unpacked between products, which use other units of the CPU. Limit: a block of one
row and half a panel takes 8 products and 3 other operations of the multiplying units (2 with 8
bits), so 73 % of what products alone reach; from L1 on a Zen 4 core 165 of 233 billion
multiply-adds a second.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import store_output
from numbatch.kernels.scoring.int8_panels import BLOCK, BYTES_4, BYTES_8, PANEL, ZERO
from numbatch.kernels.simd import (
    LANES,
    fma,
    load_float32,
    load_int32,
    prefetch_to_l2,
    prefetch_to_write,
    splat,
    splat_int32,
    to_float32,
)
from numbatch.kernels.simd_bytes import dot_bytes, splat_bytes
from numbatch.kernels.simd_halves import load_half
from numbatch.kernels.simd_path import gains_by_prefetch

__all__ = ["multiply_int8"]

LOW = 0x0F0F0F0F

ROWS = 6
"""Rows of activations that meet a panel at a time."""

ASKS_AHEAD = gains_by_prefetch()


@cpu_device(inline=True)
def _codes(data, at, j, bits):
    """Return half a panel's codes of columns ``8 * j`` to ``8 * j + 3``, and of the next four."""
    if bits == 4:
        both = load_int32(data, at + 128 * j)
        return both & LOW, (both >> 4) & LOW
    return load_int32(data, at + 256 * j), load_int32(data, at + 256 * j + 128)


@cpu_device(inline=True)
def _scales(data, block, half, bits):
    """Return the scales of half a panel's rows, and their least weights."""
    if bits == 4:
        at = block + 512 + 32 * half
        return load_half(data, at), load_half(data, at + 64)
    return load_float32(data, block + 1024 + 64 * half), splat(np.float32(0))


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


@cpu_device(inline=True)
def _scale(factors, place, bits, a, b, a_total, b_total, a_scales, b_scales):
    """Add a row's scaled sums of a block to its totals."""
    factor = splat(factors[2 * place])
    a_total = fma(to_float32(a) * factor, a_scales[0], a_total)
    b_total = fma(to_float32(b) * factor, b_scales[0], b_total)
    if bits == 4:
        shift = splat(factors[2 * place + 1])
        a_total, b_total = fma(a_scales[1], shift, a_total), fma(b_scales[1], shift, b_total)
    return a_total, b_total


@cpu_device(inline=True)
def _store(out, to, a, b, two, bias, n, add):
    store_output(out, to, a, bias, n, add)
    if two:
        store_output(out, to + LANES, b, bias, n + LANES, add)


@cpu_device
def _rows_6(
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
        sa, sb = _scales(data, block, 0, bits), _scales(data, block, 1, bits)
        a0, b0 = _scale(factors, p0, bits, c0, d0, a0, b0, sa, sb)
        a1, b1 = _scale(factors, p1, bits, c1, d1, a1, b1, sa, sb)
        a2, b2 = _scale(factors, p2, bits, c2, d2, a2, b2, sa, sb)
        a3, b3 = _scale(factors, p3, bits, c3, d3, a3, b3, sa, sb)
        a4, b4 = _scale(factors, p4, bits, c4, d4, a4, b4, sa, sb)
        a5, b5 = _scale(factors, p5, bits, c5, d5, a5, b5, sa, sb)
    stride = out.shape[1]
    if terms == 2:
        _store(out, to, a0 + a1, b0 + b1, two, bias, n, add)
        _store(out, to + stride, a2 + a3, b2 + b3, two, bias, n, add)
        if count > 4:
            _store(out, to + 2 * stride, a4 + a5, b4 + b5, two, bias, n, add)
        return
    _store(out, to, a0, b0, two, bias, n, add)
    _store(out, to + stride, a1, b1, two, bias, n, add)
    _store(out, to + 2 * stride, a2, b2, two, bias, n, add)
    if count > 3:
        _store(out, to + 3 * stride, a3, b3, two, bias, n, add)
    if count > 4:
        _store(out, to + 4 * stride, a4, b4, two, bias, n, add)
    if count > 5:
        _store(out, to + 5 * stride, a5, b5, two, bias, n, add)


@cpu_device
def _rows_2(
    data, begin, size, bits, x, row, count, blocks, apart, terms, ask, out, to, two, bias, n, add
):  # fmt: skip
    """Multiply two rows of x with a panel, or the first: the same sums as :func:`_rows_6`."""
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
        sa, sb = _scales(data, block, 0, bits), _scales(data, block, 1, bits)
        a0, b0 = _scale(factors, p0, bits, c0, d0, a0, b0, sa, sb)
        a1, b1 = _scale(factors, p1, bits, c1, d1, a1, b1, sa, sb)
    if terms == 2:
        _store(out, to, a0 + a1, b0 + b1, two, bias, n, add)
        return
    _store(out, to, a0, b0, two, bias, n, add)
    if count > 1:
        _store(out, to + out.shape[1], a1, b1, two, bias, n, add)


@cpu_device
def _all_rows(
    start, stop, data, size, bits, jump, x, rows, blocks, terms, given, out, shift, bias, add
):  # fmt: skip
    """Multiply all rows with panels that begin at matrix rows ``start`` to ``stop - 1``.

    While a panel is multiplied, the next one is asked for, by each strip of six rows a part of it,
    or by each of two where there are no others; one strip of two asks only where that gains. Lines
    come to the second level: a Zen 4 waits for 24 lines at most that come to the first, which took
    8 rows of bytes 85 us where these take 46.
    """
    panel_bytes, number, apart = blocks * size, rows * terms, given // terms * blocks
    rest, lines, last = number % ROWS, size // 64, (stop - 1) // PANEL
    # Two or three strips of two take longer than one of six, and with bytes they do from memory.
    filled = rest >= 5 or (bits == 8 and 3 <= number < ROWS)
    whole = number - rest + (ROWS if filled else 0)
    strips = whole // ROWS if whole > 0 else (number + 1) // 2
    each = (lines + strips - 1) // strips
    for panel in range(start // PANEL, last + 1):
        at, n, two = panel * panel_bytes, panel * PANEL, stop - panel * PANEL > LANES
        later = panel_bytes + (jump if panel == last else 0)
        for row in range(0, whole, ROWS):
            to, line = row // terms * out.shape[1] + n - shift, row // ROWS * each
            ask = later, min(line, lines), min(line + each, lines)
            _rows_6(data, at, size, bits, x, row, number - row, blocks, apart, terms, ask,
                    out, to, two, bias, n, add)  # fmt: skip
        asked = lines if whole == 0 and (strips > 1 or ASKS_AHEAD) else 0
        for row in range(whole, number, 2):
            to, line = row // terms * out.shape[1] + n - shift, row // 2 * each
            ask = later, min(line, asked), min(line + each, asked)
            _rows_2(data, at, size, bits, x, row, number - row, blocks, apart, terms, ask,
                    out, to, two, bias, n, add)  # fmt: skip


@cpu_device
def multiply_int8(
    start, stop, data, bits, jump, x, rows, blocks, terms, given, out, shift, bias, add
):  # fmt: skip
    """Multiply the first rows of x with rows ``start`` to ``stop - 1`` of a matrix.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Multiples of 32, or the end.
    data : uint8 array, flat
    bits : intp
        As in ``int8_panels``.
    jump : intp
        From the end of these panels to what is read after them.
    x : tuple of codes, factors and sums
        Flat arrays, as :func:`quantize.quantize_row` writes them; there is memory for an even
        number of rows, and for six.
    rows : intp
        How many rows of x.
    blocks : intp
        Of a row of the matrix.
    terms, given : intp
        How many terms of a row of x are multiplied, and how many it has: one of one or two, or both
        of two.
    out : float32 array, shape (at least rows, columns)
        Modified in place: matrix row n goes to column ``n - shift``; up to a multiple of 16.
    shift : intp
    bias : float32 array, shape (rows of the matrix, up to a multiple of 16,) or (0,)
    add : bool
        Whether outputs are added to what is in ``out``.
    """
    if bits == 4:
        _all_rows(start, stop, data, BYTES_4, 4, jump, x, rows, blocks, terms, given, out, shift,
                  bias, add)  # fmt: skip
    else:
        _all_rows(start, stop, data, BYTES_8, 8, jump, x, rows, blocks, terms, given, out, shift,
                  bias, add)  # fmt: skip
