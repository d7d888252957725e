"""Activations as int8 with a scale for each block of columns, for the int8 product.

A row keeps ``scale = largest / 127`` for each ``int8_panels.BLOCK`` columns and codes
``round(x / scale)``, as GGML's Q8_0 does; half is rounded to even. Where that is not enough, what
is left, ``x - scale * code``, is quantized in the same way as a second term: a relative error of
2**-16 instead of 2**-8 of a block's largest.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.int8_panels import BLOCK
from numbatch.kernels.simd import (
    LANES,
    absolute,
    fma,
    load_float32,
    load_int8,
    max_lanes,
    maximum,
    splat,
    splat_at,
    store_float32,
    store_int32,
    sum_lanes,
    to_float32,
)
from numbatch.kernels.simd_blocks import largest_of_blocks, store_alternating, sums_of_blocks
from numbatch.kernels.simd_bytes import store_rounded_int8
from numbatch.kernels.simd_masks import above, where

__all__ = ["keep_rest", "quantize_row"]

TINY = np.float32(1e-30)
"""What is smaller becomes 0: its reciprocal might be infinite."""

ROUND = np.float32(12582912)
"""1.5 * 2**23: added and taken away again, it rounds to the nearest whole number."""


@cpu_device(inline=True)
def _second_half(x, at, stop):
    """Return 16 columns, or zeros where the row ends before them."""
    return load_float32(x, at) if at < stop else splat(np.float32(0))


@cpu_device
def _sixteen_blocks(x, at, codes, to, factors, sums, place):
    """Quantize sixteen blocks, to the same bits as one by one."""
    peak, zero = largest_of_blocks(x, at), splat(np.float32(0))
    large = above(peak, splat(TINY))
    store_float32(factors, 2 * place, where(large, splat(np.float32(127)) / peak, zero))
    for block in range(LANES):
        factor, i = splat_at(factors, 2 * place + block), block * BLOCK
        store_rounded_int8(codes, to + i, load_float32(x, at + i) * factor)
        store_rounded_int8(codes, to + i + LANES, load_float32(x, at + i + LANES) * factor)
    total = sums_of_blocks(codes, to)
    # The difference is NaN for NaN and infinity.
    scale = where(large, peak, zero) / np.float32(127) + (peak - peak)
    store_alternating(factors, 2 * place, scale, scale * to_float32(total))
    store_int32(sums, place, total)


@cpu_device
def quantize_row(x, at, columns, codes, to, factors, sums, place):
    """Quantize some columns of a row. No error check.

    Parameters
    ----------
    x : flat float32 array
        The columns are at index ``at`` and after.
    at, columns : int
        ``columns`` is a multiple of 16; those up to a whole block are taken for 0.
    codes : flat int8 array
        Modified in place, from index ``to`` on.
    to : int
    factors : flat float32 array
        Modified in place, two numbers for each block from ``2 * place`` on: the scale, NaN where an
        element of the block is NaN or infinite, and the scale times the sum of codes.
    sums : flat int32 array
        Modified in place, from ``place`` on: sums of codes.
    place : int
    """
    stop, whole = at + columns, columns // (LANES * BLOCK) * (LANES * BLOCK)
    for i in range(0, whole, LANES * BLOCK):
        _sixteen_blocks(x, at + i, codes, to + i, factors, sums, place)
        place += LANES
    for i in range(whole, columns, BLOCK):
        a, b = load_float32(x, at + i), _second_half(x, at + i + LANES, stop)
        zero = splat(np.float32(0))
        wrong = sum_lanes(fma(a, zero, b * zero))  # NaN for NaN and infinity
        peak = max_lanes(maximum(absolute(a), absolute(b)))
        if peak > TINY:
            factor = np.float32(127) / peak
        else:
            factor, peak = np.float32(0), np.float32(0)
        a, b = a * factor, b * factor
        store_rounded_int8(codes, to + i, a)
        store_rounded_int8(codes, to + i + LANES, b)
        total = sum_lanes(((a + ROUND) - ROUND) + ((b + ROUND) - ROUND))
        scale = peak / np.float32(127) + wrong
        factors[2 * place], factors[2 * place + 1] = scale, scale * total
        sums[place] = np.int32(total)
        place += 1


@cpu_device
def keep_rest(x, at, columns, codes, to, factors, place):
    """Take from some columns of a row what their codes stand for. No error check.

    Arguments are those of :func:`quantize_row`, but ``x`` is modified.
    """
    for i in range(0, columns, LANES):
        scale = splat(-factors[2 * (place + i // BLOCK)])
        code = to_float32(load_int8(codes, to + i))
        store_float32(x, at + i, fma(code, scale, load_float32(x, at + i)))
