"""Products of activations with packed weight matrices.

Weights are unpacked a few rows at a time into float32 working memory and multiplied from there, so
no float32 copy of a matrix ever exists. Each output is one chain of fused multiply-adds over the
columns in sixteen lanes, summed in a fixed order at the end: its bits depend on the number of
columns alone, not on how many rows of activations there are or which tile they fall into.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.formats import unpack_span
from numbatch.kernels.simd import LANES, fma, load_float32, splat, sum_lanes
from numbatch.kernels.threads import Call

__all__ = ["TILE_ROWS", "matmul_call", "multiply_rows", "padded", "tile_scratch"]

TILE_ROWS = 16
"""Weight rows unpacked at a time: 16 rows of 1,536 columns are 96 KB and stay in the L2 cache."""


def padded(columns: int) -> int:
    """Return ``columns`` rounded up to whole vectors; activations are stored this wide."""
    return -(-columns // LANES) * LANES


def tile_scratch(threads: int, columns: int) -> np.ndarray:
    """Allocate the working memory of :func:`matmul_call` for matrices up to ``columns`` wide."""
    return np.zeros((threads, TILE_ROWS * padded(columns)), np.float32)


@cpu_device
def _dot_3x2(x, m, w, n, columns):
    """Products of three rows of x with two rows of w, both of width ``columns``.

    Six sums of sixteen lanes are what fits into the registers of AVX2 beside their operands.
    """
    x0, x1, x2 = m * columns, (m + 1) * columns, (m + 2) * columns
    w0, w1 = n * columns, (n + 1) * columns
    s00 = s01 = s10 = s11 = s20 = s21 = splat(np.float32(0))
    for k in range(0, columns, LANES):
        b0, b1 = load_float32(w, w0 + k), load_float32(w, w1 + k)
        a = load_float32(x, x0 + k)
        s00, s01 = fma(a, b0, s00), fma(a, b1, s01)
        a = load_float32(x, x1 + k)
        s10, s11 = fma(a, b0, s10), fma(a, b1, s11)
        a = load_float32(x, x2 + k)
        s20, s21 = fma(a, b0, s20), fma(a, b1, s21)
    return (
        (sum_lanes(s00), sum_lanes(s01)),
        (sum_lanes(s10), sum_lanes(s11)),
        (sum_lanes(s20), sum_lanes(s21)),
    )


@cpu_device
def _dot_1x4(x, m, w, n, columns):
    """Products of one row of x with four rows of w; the same chains as ``_dot_3x2``."""
    x0 = m * columns
    w0, w1, w2, w3 = n * columns, (n + 1) * columns, (n + 2) * columns, (n + 3) * columns
    s0 = s1 = s2 = s3 = splat(np.float32(0))
    for k in range(0, columns, LANES):
        a = load_float32(x, x0 + k)
        s0, s1 = fma(a, load_float32(w, w0 + k), s0), fma(a, load_float32(w, w1 + k), s1)
        s2, s3 = fma(a, load_float32(w, w2 + k), s2), fma(a, load_float32(w, w3 + k), s3)
    return sum_lanes(s0), sum_lanes(s1), sum_lanes(s2), sum_lanes(s3)


@cpu_device
def _store(out, m, n, end, sums, shift, bias, add):
    """Write the sums to ``out[m, n:]``, with bias, but none at or beyond column ``end``."""
    for j in range(len(sums)):
        if n + j < end:
            total = sums[j]
            if bias.size:
                total += bias[n + j + shift]
            if add:
                total = out[m, n + j] + total
            out[m, n + j] = total


@cpu_device
def multiply_rows(start, stop, scratch, x, data, format, columns, out, shift, bias, add):
    """Write ``x @ unpack(data[start:stop]).T + bias`` to ``out[:, start - shift : stop - shift]``.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Range of weight rows.
    scratch : float32 array, shape (TILE_ROWS * width,)
        Overwritten; ``width`` is the second size of ``x``. Beyond ``columns`` each row stays 0.
    x : float32 array, shape (tokens, width)
        Width is ``columns`` rounded up to whole vectors, zero beyond ``columns``.
    data, format, columns
        As in ``numbatch.models.decoder.Matrix``.
    out : float32 array, shape (tokens, any)
        Modified in place.
    shift : intp
        Weight row ``n`` goes to column ``n - shift``.
    bias : float32 array, shape (at least rows,) or (0,)
    add : bool
        Whether products are added to what is in ``out``.
    """
    tokens, width = x.shape
    for first in range(start, stop, TILE_ROWS):
        rows = min(TILE_ROWS, stop - first)
        for row in range(rows):
            unpacked = scratch[row * width : row * width + columns]
            unpack_span(format, data[first + row], 0, unpacked)
            scratch[row * width + columns : (row + 1) * width] = 0
        column, end = first - shift, first - shift + rows
        whole = tokens - tokens % 3
        # A few rows of x stay in the L1 cache while the tile of weights passes by.
        for m in range(0, whole, 3):
            for n in range(0, rows, 2):
                sums = _dot_3x2(x, m, scratch, n, width)
                _store(out, m, column + n, end, sums[0], shift, bias, add)
                _store(out, m + 1, column + n, end, sums[1], shift, bias, add)
                _store(out, m + 2, column + n, end, sums[2], shift, bias, add)
        for m in range(whole, tokens):
            for n in range(0, rows, 4):
                dots = _dot_1x4(x, m, scratch, n, width)
                _store(out, m, column + n, end, dots, shift, bias, add)


@cpu_kernel
def _matmul(start, stop, scratch, x, data, format, columns, bias, out):
    """Write ``x @ unpack(data).T + bias`` for weight rows ``start`` to ``stop - 1``.

    No error check. ``bias`` has shape (rows,), or (0,) for none; the rest is as in
    :func:`multiply_rows`.
    """
    multiply_rows(start, stop, scratch, x, data, format, columns, out, 0, bias, False)


def matmul_call(
    x: np.ndarray,
    data: np.ndarray,
    format: int,
    columns: int,
    bias: np.ndarray,
    out: np.ndarray,
    scratch: np.ndarray,
) -> Call:
    """Describe ``out[:, :rows] = x @ unpack(data).T + bias`` for a thread team.

    Parameters
    ----------
    x : float32 array, shape (tokens, padded(columns))
        Zero beyond ``columns``.
    data : uint8 array, shape (rows, bytes of a row), read-only
        Packed weights.
    format, columns : int
        Storage format and width of the matrix.
    bias : float32 array, shape (rows,) or (0,)
    out : float32 array, shape (tokens, at least rows)
    scratch : float32 array
        From :func:`tile_scratch`, for at least as many columns.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """
    rows = len(data)
    if x.shape[1] != padded(columns):
        raise ValueError(f"x is {x.shape[1]} wide, should be {padded(columns)}")
    if out.shape[0] != x.shape[0] or out.shape[1] < rows:
        raise ValueError(f"out has shape {out.shape}, should be ({x.shape[0]}, {rows})")
    if scratch.shape[1] < TILE_ROWS * x.shape[1]:
        raise ValueError(f"scratch has {scratch.shape[1]} values, needs {TILE_ROWS * x.shape[1]}")
    if len(bias) not in (0, rows):
        raise ValueError(f"bias has {len(bias)} values, should have 0 or {rows}")
    return Call(_matmul, rows, (x, data, format, columns, bias, out), scratch, grain=TILE_ROWS)
