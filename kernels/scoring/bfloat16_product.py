"""Products of activations rounded to bfloat16 with packed weights, summed in float32.

A column at a time from the first to the last, whatever the number of rows: so the bits of a row do
not depend on the others. Here by vectors; :mod:`bfloat16_tiles` does it by tile registers (AMX).
The two sum pairs of columns differently and may differ in the last bits, so a process uses one of
them for everything.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, PANEL
from numbatch.kernels.scoring.bfloat16_unpack import (
    AHEAD,
    HAS_TILES,
    TILE,
    later_block,
    unpack_block,
)
from numbatch.kernels.simd import load_float32, load_int32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import dot_pairs
from numbatch.kernels.simd_bytes import splat_bytes

__all__ = ["ROWS", "multiply_bfloat16", "panel_memory", "place_of", "store_output", "wide"]

ROWS = 16
"""Rows of a tile."""


def wide(columns: int) -> int:
    """Return ``columns`` rounded up as panels and activations have them."""
    return -(-columns // BLOCK) * BLOCK


@cpu_device(inline=True)
def place_of(row, column, width):
    """Return where a row's 16 activations from ``column`` on lie, as a flat index."""
    if HAS_TILES:
        tile = row // ROWS * ROWS * width + column // BLOCK * ROWS * BLOCK
        return tile + row % ROWS * BLOCK + column % BLOCK
    return row * width + column


def panel_memory(columns: int) -> int:
    """Return the bytes of working memory that a thread needs for so many columns."""
    return wide(columns) // BLOCK * TILE


@cpu_device(inline=True)
def store_output(out, at, total, bias, n, add):
    """Write 16 outputs, with bias; added to what is there, or in its place."""
    if bias.size:
        total = total + load_float32(bias, n)
    if add:
        total = load_float32(out, at) + total
    store_float32(out, at, total)


@cpu_device
def _rows_1(a, at, x, row, blocks, out, to, bias, n, add):
    """Multiply a row of x with an unpacked panel; two chains, even and odd lines."""
    even = odd = splat(np.float32(0))
    begin = 2 * row * x.shape[1]
    bytes_ = x.reshape(x.size).view(np.uint8)
    for line in range(0, blocks * 16, 2):
        place = begin + 4 * line
        even = dot_pairs(even, load_int32(a, at + line * 64), splat_bytes(bytes_, place))
        odd = dot_pairs(odd, load_int32(a, at + line * 64 + 64), splat_bytes(bytes_, place + 4))
    store_output(out, to, even + odd, bias, n, add)


@cpu_device
def _rows_4(a, at, x, row, blocks, out, to, bias, n, add):
    """Multiply four rows of x with an unpacked panel: the same sums as :func:`_rows_1`."""
    e0 = e1 = e2 = e3 = o0 = o1 = o2 = o3 = splat(np.float32(0))
    stride, x_stride = out.shape[1], 2 * x.shape[1]
    bytes_ = x.reshape(x.size).view(np.uint8)
    for line in range(0, blocks * 16, 2):
        w, place = load_int32(a, at + line * 64), row * x_stride + 4 * line
        e0 = dot_pairs(e0, w, splat_bytes(bytes_, place))
        e1 = dot_pairs(e1, w, splat_bytes(bytes_, place + x_stride))
        e2 = dot_pairs(e2, w, splat_bytes(bytes_, place + 2 * x_stride))
        e3 = dot_pairs(e3, w, splat_bytes(bytes_, place + 3 * x_stride))
        w, place = load_int32(a, at + line * 64 + 64), place + 4
        o0 = dot_pairs(o0, w, splat_bytes(bytes_, place))
        o1 = dot_pairs(o1, w, splat_bytes(bytes_, place + x_stride))
        o2 = dot_pairs(o2, w, splat_bytes(bytes_, place + 2 * x_stride))
        o3 = dot_pairs(o3, w, splat_bytes(bytes_, place + 3 * x_stride))
    store_output(out, to, e0 + o0, bias, n, add)
    store_output(out, to + stride, e1 + o1, bias, n, add)
    store_output(out, to + 2 * stride, e2 + o2, bias, n, add)
    store_output(out, to + 3 * stride, e3 + o3, bias, n, add)


@cpu_device
def multiply_bfloat16(
    start, stop, memory, shapes, table, data, bits, jump, x, rows, out, shift, bias, add
):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``, by vectors.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Range of panels.
    memory : uint8 array, from a cache line on
        Of at least :func:`panel_memory` bytes; overwritten.
    shapes : uint8 array
        Not used; see ``bfloat16_tiles``.
    table : uint8 array
        ``bfloat16_unpack.HALF_BYTES``.
    data, bits
        As in ``bfloat16_panels.Bfloat16Matrix``.
    jump : intp
        From the end of these panels to what is read after them, for ``later_block``.
    x : uint16 array, shape (at least rows, wide(columns))
        Activations over ``DOWN`` in bfloat16, zero beyond the columns.
    rows : intp
        How many rows of x.
    out : float32 array, shape (at least rows, columns)
        Modified in place: panel p goes to columns ``16 * p - shift`` and the 15 after.
    shift : intp
    bias : float32 array, shape (16 * panels,) or (0,)
    add : bool
        Whether outputs are added to what is in ``out``.
    """
    blocks, whole = x.shape[1] // BLOCK, rows - rows % 4
    size, flat = data.shape[1] // blocks, data.reshape(data.size)
    end = stop * data.shape[1]
    for panel in range(start, stop):
        at, n = panel * data.shape[1], panel * PANEL
        source = flat
        if bits < 16:
            for k in range(blocks):
                later = later_block(at + k * size, AHEAD, end, jump)
                unpack_block(flat, at + k * size, bits, memory, k * TILE, table, later)
            source, at = memory, 0
        for row in range(0, whole, 4):
            to = row * out.shape[1] + n - shift
            _rows_4(source, at, x, row, blocks, out, to, bias, n, add)
        for row in range(whole, rows):
            to = row * out.shape[1] + n - shift
            _rows_1(source, at, x, row, blocks, out, to, bias, n, add)
