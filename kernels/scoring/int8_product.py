"""Products of quantized activations with packed weights.

For each group of columns the codes' products are summed in exact integers, so that every path,
every number of rows and every way through memory gives the same bits::

    out += (sum(code of w * code of x) - 128 * sum(code of x)) * scale of w * scale of x

in float32, from the first group to the last. ``multiply_panels`` serves a few rows: it reads panels
as they lie and turns half bytes into codes in registers. For many rows the codes are unpacked once
(``unpack_panel``) and multiplied from there; ``int8_tiles`` does the same with tiles.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import store_output
from numbatch.kernels.scoring.int8_panels import BLOCK, GROUP, PANEL, RECORD, ZERO
from numbatch.kernels.simd import (
    fma,
    load_float32,
    load_int32,
    prefetch,
    splat,
    splat_int32,
    store_int32,
    to_float32,
)
from numbatch.kernels.simd_bytes import (
    add_shorts,
    dot_bytes,
    high_bytes,
    load_twice,
    multiply_shorts,
    splat_bytes,
)

__all__ = ["UNPACKED", "multiply_panels", "scaled", "unpack_panel"]

UNPACKED = 6
"""Rows from which a panel of half bytes is unpacked to memory first."""

EVEN = 0x000F000F
ODD = -0x00FF0100  # 0xFF00FF00


@cpu_device
def scaled(sums, scale_w, scale_x, total):
    """Add a group's integer sums, times both scales, to a total."""
    return fma(to_float32(sums) * scale_w, splat(scale_x), total)


@cpu_device
def _codes(halves, factor, summand):
    """Turn half bytes, of which the low ones of each byte count, into codes."""
    even = add_shorts(multiply_shorts(halves & EVEN, factor), summand)
    odd = add_shorts(multiply_shorts((halves >> 8) & EVEN, factor), summand)
    return high_bytes(even) | (odd & ODD)


@cpu_device
def unpack_panel(data, base, width, memory, to):
    """Write the codes of 8 bits of a panel of half bytes: ``width`` columns, 16 bytes each."""
    for block in range(width // BLOCK):
        at = base + block * RECORD
        factor, summand = load_twice(data, at), load_twice(data, at + 32)
        place = to + block * BLOCK * PANEL
        for j in range(4):
            halves = load_int32(data, at + 64 + 64 * j)
            store_int32(memory, place + 128 * j, _codes(halves, factor, summand))
            store_int32(memory, place + 128 * j + 64, _codes(halves >> 4, factor, summand))


@cpu_device
def _half_bytes_1(data, base, scales, scales_at, x, row, out, at, bias, n, add):
    """Multiply one row of x with a panel of half bytes."""
    codes, x_scales, sums = x
    width = codes.shape[1]
    total = splat(np.float32(0))
    for group in range(x_scales.shape[1]):
        first = group * GROUP
        a, b = splat_int32(np.int32(-ZERO) * sums[row, group]), splat_int32(np.int32(0))
        for k in range(first, min(first + GROUP, width), BLOCK):
            place = base + k // BLOCK * RECORD
            for line in range(5):  # a kilobyte and a half ahead: what memory's latency asks for
                prefetch(data, place + 1536 + 64 * line)
            factor, summand = load_twice(data, place), load_twice(data, place + 32)
            c = row * width + k
            for j in range(4):
                halves = load_int32(data, place + 64 + 64 * j)
                a = dot_bytes(a, _codes(halves, factor, summand), splat_bytes(codes, c + 8 * j))
                high = _codes(halves >> 4, factor, summand)
                b = dot_bytes(b, high, splat_bytes(codes, c + 8 * j + 4))
        scale = load_float32(scales, scales_at + group * PANEL)
        total = scaled(a + b, scale, x_scales[row, group], total)
    store_output(out, at, total, bias, n, add)


@cpu_device
def _bytes_1(data, base, scales, scales_at, x, row, out, at, bias, n, add):
    """Multiply one row of x with a panel of bytes."""
    codes, x_scales, sums = x
    width = codes.shape[1]
    total = splat(np.float32(0))
    for group in range(x_scales.shape[1]):
        first = group * GROUP
        a, b = splat_int32(np.int32(-ZERO) * sums[row, group]), splat_int32(np.int32(0))
        for k in range(first, min(first + GROUP, width), 8):
            place, c = base + k * PANEL, row * width + k
            prefetch(data, place + 1536)
            prefetch(data, place + 1600)
            a = dot_bytes(a, load_int32(data, place), splat_bytes(codes, c))
            b = dot_bytes(b, load_int32(data, place + 64), splat_bytes(codes, c + 4))
        scale = load_float32(scales, scales_at + group * PANEL)
        total = scaled(a + b, scale, x_scales[row, group], total)
    store_output(out, at, total, bias, n, add)


@cpu_device
def _bytes_4(data, base, scales, scales_at, x, row, out, at, stride, bias, n, add):
    """Multiply four rows of x with a panel of bytes."""
    codes, x_scales, sums = x
    width = codes.shape[1]
    t0 = t1 = t2 = t3 = splat(np.float32(0))
    for group in range(x_scales.shape[1]):
        first = group * GROUP
        zero = np.int32(-ZERO)
        a0, a1 = splat_int32(zero * sums[row, group]), splat_int32(zero * sums[row + 1, group])
        a2, a3 = splat_int32(zero * sums[row + 2, group]), splat_int32(zero * sums[row + 3, group])
        b0 = b1 = b2 = b3 = splat_int32(np.int32(0))
        for k in range(first, min(first + GROUP, width), 8):
            q = load_int32(data, base + k * PANEL)
            c = row * width + k
            a0 = dot_bytes(a0, q, splat_bytes(codes, c))
            a1 = dot_bytes(a1, q, splat_bytes(codes, c + width))
            a2 = dot_bytes(a2, q, splat_bytes(codes, c + 2 * width))
            a3 = dot_bytes(a3, q, splat_bytes(codes, c + 3 * width))
            q = load_int32(data, base + k * PANEL + 64)
            c += 4
            b0 = dot_bytes(b0, q, splat_bytes(codes, c))
            b1 = dot_bytes(b1, q, splat_bytes(codes, c + width))
            b2 = dot_bytes(b2, q, splat_bytes(codes, c + 2 * width))
            b3 = dot_bytes(b3, q, splat_bytes(codes, c + 3 * width))
        scale = load_float32(scales, scales_at + group * PANEL)
        t0 = scaled(a0 + b0, scale, x_scales[row, group], t0)
        t1 = scaled(a1 + b1, scale, x_scales[row + 1, group], t1)
        t2 = scaled(a2 + b2, scale, x_scales[row + 2, group], t2)
        t3 = scaled(a3 + b3, scale, x_scales[row + 3, group], t3)
    store_output(out, at, t0, bias, n, add)
    store_output(out, at + stride, t1, bias, n, add)
    store_output(out, at + 2 * stride, t2, bias, n, add)
    store_output(out, at + 3 * stride, t3, bias, n, add)


@cpu_device
def multiply_panels(start, stop, memory, data, scales, bits, x, rows, out, shift, bias, add):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Range of panels.
    memory : uint8 array, shape (at least 16 * wide(columns),)
        Overwritten.
    data, scales, bits
        As in ``int8_panels.PackedMatrix``.
    x : tuple of codes, scales and sums
        As in ``quantize.QuantizedRows``.
    rows : intp
        How many rows of x.
    out : float32 array, shape (at least rows, columns)
        Modified in place: panel p goes to columns ``16 * p - shift`` and the 15 after.
    shift : intp
    bias : float32 array, shape (16 * panels,) or (0,)
    add : bool
        Whether outputs are added to what is in ``out``.
    """
    stride, width = out.shape[1], x[0].shape[1]
    whole = rows - rows % 4
    for panel in range(start, stop):
        base, n = panel * data.shape[1], panel * PANEL
        scales_at = panel * scales.shape[1] * PANEL
        if bits == 4 and rows < UNPACKED:
            for row in range(rows):
                at = row * stride + n - shift
                _half_bytes_1(data, base, scales, scales_at, x, row, out, at, bias, n, add)
            continue
        source = data
        if bits == 4:
            unpack_panel(data, base, width, memory, 0)
            source, base = memory.reshape((1, memory.size)), 0
        for row in range(0, whole, 4):
            at = row * stride + n - shift
            _bytes_4(source, base, scales, scales_at, x, row, out, at, stride, bias, n, add)
        for row in range(whole, rows):
            at = row * stride + n - shift
            _bytes_1(source, base, scales, scales_at, x, row, out, at, bias, n, add)
