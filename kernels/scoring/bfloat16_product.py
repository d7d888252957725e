"""Products of activations rounded to bfloat16 with packed weights, summed in float32.

A column at a time from the first to the last, whatever the number of rows: so the bits of a row do
not depend on the others. ``multiply_bfloat16`` uses vectors, ``multiply_bfloat16_by_tiles`` tile
registers (AMX); the two sum pairs of columns differently and may differ in the last bits, so a
process uses one of them for everything.

Where weights are packed in 4 or 8 bits, they are unpacked to tiles of 1 KB in working memory: for
up to 16 rows block by block, since only one product follows; for more rows some blocks of two
panels at once.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import (
    configure,
    dot_bfloat16,
    load_tile,
    release,
    store_tile,
    tile_shapes,
    zero_tile,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, HAS_TILES, PANEL, TILE, unpack_block
from numbatch.kernels.simd import (
    dot_pairs,
    load_float32,
    load_int32,
    prefetch,
    splat,
    splat_bytes,
    store_float32,
)

__all__ = [
    "SHAPES",
    "bfloat16_memory",
    "multiply_bfloat16",
    "multiply_bfloat16_by_tiles",
    "place_of",
    "store_output",
    "wide",
]

ROWS = 16
"""Rows of a tile."""

DELAY, RING = 3, 4
"""Blocks of a few rows are unpacked to a ring of tiles and multiplied so many rounds later."""

CHUNK = 9
"""Blocks of two panels that are multiplied with all rows before the next: 18 KB of weights and 18
of 32 rows' activations stay in the L1 cache."""

SHAPES = np.stack(
    [tile_shapes([m, m, 16, 16, m, 16, 16, 16], [64] * 8) for m in range(1, ROWS + 1)]
)
"""Row m - 1: tiles for m rows of activations. 0 to 3: sums. 4, 5: activations. 6, 7: weights."""


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


def bfloat16_memory(columns: int, rows: int) -> int:
    """Return the bytes of working memory that a thread needs for so many columns and rows."""
    tiles = 2 * max(RING, CHUNK) + 4 * -(-rows // (2 * ROWS))
    return max(tiles * TILE, wide(columns) // BLOCK * TILE)


@cpu_device(inline=True)
def store_output(out, at, total, bias, n, add):
    """Write 16 outputs, with bias; added to what is there, or in its place."""
    if bias.size:
        total = total + load_float32(bias, n)
    if add:
        total = load_float32(out, at) + total
    store_float32(out, at, total)


@cpu_device(inline=True)
def _unpack_panel(data, at, bits, blocks, size, memory, to, step, table):
    for k in range(blocks):
        unpack_block(data, at + k * size, bits, memory, to + k * step, table)


@cpu_device(inline=True)
def _few_rows(data, a_at, b_at, bits, size, memory, sums_at, x, blocks, table):
    """Multiply up to 16 rows with two panels; leave the two tiles of sums in memory.

    Blocks are unpacked into a ring of four pairs of tiles, and multiplied a round later: a tile
    that is loaded too soon waits for its lines to be written.
    """
    zero_tile(0)
    zero_tile(1)
    for k in range(blocks + DELAY):
        if k < blocks:
            to = k % RING * 2 * TILE
            # The next two panels: their first lines are beyond what the CPU fetches by itself, and
            # a panel of few columns is over before it has found its pace.
            for line in range(0, 2 * size, 64):
                prefetch(data, a_at + 2 * blocks * size + 2 * k * size + line)
            unpack_block(data, a_at + k * size, bits, memory, to, table)
            unpack_block(data, b_at + k * size, bits, memory, to + TILE, table)
        if k >= DELAY:
            from_ = (k - DELAY) % RING * 2 * TILE
            load_tile(4, x, (k - DELAY) * ROWS * BLOCK, 64)
            load_tile(6, memory, from_, 64)
            load_tile(7, memory, from_ + TILE, 64)
            dot_bfloat16(0, 4, 6)
            dot_bfloat16(1, 4, 7)
    store_tile(0, memory, sums_at, 64)
    store_tile(1, memory, sums_at + TILE, 64)


@cpu_device(inline=True)
def _few_rows_of_tiles(data, a_at, b_at, memory, sums_at, x, blocks):
    """As :func:`_few_rows` for weights that are tiles already."""
    zero_tile(0)
    zero_tile(1)
    for k in range(blocks):
        load_tile(4, x, k * ROWS * BLOCK, 64)
        load_tile(6, data, a_at + k * TILE, 64)
        load_tile(7, data, b_at + k * TILE, 64)
        dot_bfloat16(0, 4, 6)
        dot_bfloat16(1, 4, 7)
    store_tile(0, memory, sums_at, 64)
    store_tile(1, memory, sums_at + TILE, 64)


@cpu_device(inline=True)
def _many_rows(a, a_at, b_at, step, memory, sums_at, x, row, two, first, last, direct, out, out_at):
    """Multiply 16 or 32 rows, from ``row`` on, with blocks ``first`` to ``last - 1`` of two panels.

    The blocks are tiles ``step`` bytes apart. The four tiles of sums are added to, from the second
    blocks on; ``direct``: they go to ``out`` from flat index ``out_at`` on, not to ``memory``.
    """
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    if first > 0:
        load_tile(0, memory, sums_at, 64)
        load_tile(1, memory, sums_at + TILE, 64)
        load_tile(2, memory, sums_at + 2 * TILE, 64)
        load_tile(3, memory, sums_at + 3 * TILE, 64)
    at = row * x.shape[1]
    for k in range(first, last):
        load_tile(6, a, a_at + (k - first) * step, 64)
        load_tile(4, x, at + k * ROWS * BLOCK, 64)
        dot_bfloat16(0, 4, 6)
        load_tile(7, a, b_at + (k - first) * step, 64)
        dot_bfloat16(1, 4, 7)
        if two:
            load_tile(5, x, at + k * ROWS * BLOCK + ROWS * x.shape[1], 64)
            dot_bfloat16(2, 5, 6)
            dot_bfloat16(3, 5, 7)
    if direct:
        stride = 4 * out.shape[1]
        store_tile(0, out, out_at, stride)
        store_tile(1, out, out_at + PANEL, stride)
        store_tile(2, out, out_at + ROWS * out.shape[1], stride)
        store_tile(3, out, out_at + ROWS * out.shape[1] + PANEL, stride)
    else:
        store_tile(0, memory, sums_at, 64)
        store_tile(1, memory, sums_at + TILE, 64)
        store_tile(2, memory, sums_at + 2 * TILE, 64)
        store_tile(3, memory, sums_at + 3 * TILE, 64)


@cpu_device(inline=True)
def _store_sums(memory, sums_at, row, rows, panel, panels, out, shift, bias, add):
    """Hand the tiles of up to 32 rows to ``out``."""
    stride = out.shape[1]
    for p in range(panels):
        n = (panel + p) * PANEL
        for r in range(min(2 * ROWS, rows - row)):
            place = sums_at + (r // ROWS * 2 + p) * TILE + r % ROWS * 64
            total = load_float32(memory, place)
            store_output(out, (row + r) * stride + n - shift, total, bias, n, add)


@cpu_device
def multiply_bfloat16_by_tiles(
    start, stop, memory, shapes, table, data, bits, x, rows, out, shift, bias, add
):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``, by tiles.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Range of panels.
    memory : uint8 array, from a cache line on
        Of at least :func:`bfloat16_memory` bytes; overwritten.
    shapes : uint8 array, shape (16, 64)
        ``SHAPES``.
    table : uint8 array
        ``bfloat16_panels.HALF_BYTES``.
    data, bits
        As in ``bfloat16_panels.Bfloat16Matrix``.
    x : uint16 array, shape (rows rounded up to 32, wide(columns))
        Activations over ``DOWN`` in bfloat16, zero beyond the columns. In memory each 16 rows are a
        run of tiles of 16 rows and 32 columns (:func:`place_of`): read from end to end, where rows
        a few KB apart were fetched at half the speed.
    rows : intp
        How many rows of x.
    out : float32 array, shape (at least rows, columns)
        Modified in place: panel p goes to columns ``16 * p - shift`` and the 15 after.
    shift : intp
    bias : float32 array, shape (16 * panels,) or (0,)
    add : bool
        Whether outputs are added to what is in ``out``.
    """
    blocks = x.shape[1] // BLOCK
    size, flat = data.shape[1] // blocks, data.reshape(data.size)
    sums_at = 2 * max(RING, CHUNK) * TILE
    configure(shapes[min(rows, ROWS) - 1])
    for panel in range(start, stop, 2):
        panels = min(2, stop - panel)
        a_at, b_at = panel * data.shape[1], (panel + panels - 1) * data.shape[1]
        if rows <= ROWS:
            if bits == 16:
                _few_rows_of_tiles(flat, a_at, b_at, memory, sums_at, x, blocks)
            elif bits == 8:
                _few_rows(flat, a_at, b_at, 8, size, memory, sums_at, x, blocks, table)
            else:
                _few_rows(flat, a_at, b_at, 4, size, memory, sums_at, x, blocks, table)
            _store_sums(memory, sums_at, 0, rows, panel, panels, out, shift, bias, add)
            continue
        whole = rows // (2 * ROWS) * 2 * ROWS
        if add or bias.size > 0 or panels == 1:
            whole = 0  # rows whose sums go from the tile registers to ``out``
        for first in range(0, blocks, CHUNK):
            last = min(first + CHUNK, blocks)
            source, step, a, b = flat, TILE, a_at + first * TILE, b_at + first * TILE
            if bits < 16:
                count, from_ = last - first, first * size
                _unpack_panel(flat, a_at + from_, bits, count, size, memory, 0, 2 * TILE, table)
                _unpack_panel(flat, b_at + from_, bits, count, size, memory, TILE, 2 * TILE, table)
                source, step, a, b = memory, 2 * TILE, 0, TILE
            for row in range(0, rows, 2 * ROWS):
                two, sums = rows - row > ROWS, sums_at + row // (2 * ROWS) * 4 * TILE
                direct = last == blocks and row < whole
                to = row * out.shape[1] + panel * PANEL - shift
                _many_rows(
                    *(source, a, b, step, memory, sums, x, row, two, first, last),
                    *(direct, out, to),
                )
        for row in range(whole, rows, 2 * ROWS):
            sums = sums_at + row // (2 * ROWS) * 4 * TILE
            _store_sums(memory, sums, row, rows, panel, panels, out, shift, bias, add)
    release()


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
    start, stop, memory, shapes, table, data, bits, x, rows, out, shift, bias, add
):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``, by vectors.

    No error check. Arguments are those of :func:`multiply_bfloat16_by_tiles`; ``x`` is in rows.
    """
    blocks, whole = x.shape[1] // BLOCK, rows - rows % 4
    size, flat = data.shape[1] // blocks, data.reshape(data.size)
    for panel in range(start, stop):
        at, n = panel * data.shape[1], panel * PANEL
        source = flat
        if bits < 16:
            _unpack_panel(flat, at, bits, blocks, size, memory, 0, TILE, table)
            source, at = memory, 0
        for row in range(0, whole, 4):
            to = row * out.shape[1] + n - shift
            _rows_4(source, at, x, row, blocks, out, to, bias, n, add)
        for row in range(whole, rows):
            to = row * out.shape[1] + n - shift
            _rows_1(source, at, x, row, blocks, out, to, bias, n, add)
