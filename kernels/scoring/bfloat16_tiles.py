"""The bfloat16 product by tile registers (AMX).

Two panels (32 rows of the matrix) meet up to 32 rows of activations in four tiles of sums. Weights
of 4 or 8 bits are unpacked to tiles of 1 KB in working memory just before: for up to 32 rows block
by block, since one product follows; for more a chunk of two panels at a time, four lines after each
block's products of the chunk before, whose tiles keep another unit of the CPU busy.

Limits, for 32 columns of two panels and 32 rows: four products of 16 cycles each; four loads of 1
KB. The weights are in the first level of the cache (36 KB of a chunk), the activations stream
through it from the second: 32 bytes a cycle, of some 40 that it gives.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import (
    configure,
    dot_bfloat16,
    load_tile,
    release,
    store_tile,
    stream_tile,
    tile_shapes,
    zero_tile,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, PANEL
from numbatch.kernels.scoring.bfloat16_product import ROWS, store_output, wide
from numbatch.kernels.scoring.bfloat16_unpack import (
    AHEAD,
    TILE,
    later_block,
    unpack_block,
    unpack_quarter,
)
from numbatch.kernels.simd import load_float32, prefetch_to_write

__all__ = ["SHAPES", "multiply_bfloat16_by_tiles", "tiles_memory"]

TOGETHER, RING = 2, 4
"""Blocks of a few rows are unpacked to a ring of tiles, so many in a row, and then multiplied.

One at a time took a tenth longer, four a tenth longer with 32 rows.
"""

CHUNK = 18
"""Blocks of two panels that are multiplied with all rows before the next, at most.

Sums wait in memory between two chunks, so few large ones are better: 9 instead of 18 made three
quarters of the speed.
"""

SHAPES = np.stack(
    [tile_shapes([m, m, 16, 16, m, 16, 16, 16], [64] * 8) for m in range(1, ROWS + 1)]
)
"""Row m - 1: tiles for m rows of activations. 0 to 3: sums. 4, 5: activations. 6, 7: weights."""

SUMS_AT = 4 * CHUNK * TILE
"""Where sums begin in working memory: behind two chunks of two panels."""

SUMS = 128
"""Sums of 32 rows and two panels that wait between two chunks of columns: 512 KB.

So many pairs of panels are multiplied with one chunk of the activations before the next chunk, as
these have room for, where all of the activations would not stay in the second level of the cache
(``FITS``), but a chunk does: 1,200 instead of 700 GFLOP/s for models of 1 billion weights or more.
"""

FITS = 1 << 20
"""Bytes of activations that stay in the second level of the cache, half of it."""


def tiles_memory(columns: int, rows: int) -> int:
    """Return the bytes of working memory that a thread needs for so many columns and rows."""
    sums = 1
    if wide(columns) > CHUNK * BLOCK:
        many = 2 * rows * wide(columns) > FITS
        sums = max(SUMS if many else 1, -(-rows // (2 * ROWS)))
    return SUMS_AT + 4 * sums * TILE


@cpu_device(inline=True)
def _few_rows(data, a_at, b_at, end, jump, bits, size, memory, x, rows, two, blocks, table, out,
              out_at):  # fmt: skip
    """Multiply up to 32 rows with two panels; leave the tiles of sums in memory.

    Blocks are unpacked into a ring of four pairs of tiles, and multiplied a round later: a tile
    that is loaded too soon waits for its lines to be written. Meanwhile the lines of ``out``, from
    ``out_at`` on, are asked for: as many weights as the cache's second level holds have passed
    since they were used last, and each store would wait for its line.
    """
    lines, pace = 2 * rows, (2 * rows * TOGETHER + blocks - 1) // blocks
    line = 0
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    for first in range(0, blocks + TOGETHER, TOGETHER):
        for k in range(first, min(first + TOGETHER, blocks)):
            to = k % RING * 2 * TILE
            a, b = a_at + k * size, b_at + k * size
            unpack_block(data, a, bits, memory, to, table, later_block(a, AHEAD, end, jump))
            unpack_block(data, b, bits, memory, to + TILE, table, later_block(b, AHEAD, end, jump))
        line = _ask_for_lines(out, out_at, line, min(line + pace, lines))
        for k in range(max(0, first - TOGETHER), min(first, blocks)):
            from_, at = k % RING * 2 * TILE, k * ROWS * BLOCK
            load_tile(4, x, at, 64)
            load_tile(6, memory, from_, 64)
            load_tile(7, memory, from_ + TILE, 64)
            dot_bfloat16(0, 4, 6)
            dot_bfloat16(1, 4, 7)
            if two:
                load_tile(5, x, at + ROWS * x.shape[1], 64)
                dot_bfloat16(2, 5, 6)
                dot_bfloat16(3, 5, 7)
    _store_tiles(memory, SUMS_AT, two)


@cpu_device(inline=True)
def _store_tiles(memory, at, two):
    store_tile(0, memory, at, 64)
    store_tile(1, memory, at + TILE, 64)
    if two:
        store_tile(2, memory, at + 2 * TILE, 64)
        store_tile(3, memory, at + 3 * TILE, 64)


@cpu_device(inline=True)
def _multiply_tiles(a, a_at, b_at, step, memory, sums_at, x, row, two, first, last, following, pace,
                    done, out, out_at, lines):  # fmt: skip
    """Multiply 16 or 32 rows, from ``row`` on, with blocks ``first`` to ``last - 1`` of two panels.

    The blocks are tiles ``step`` bytes apart. The sums are left in the tile registers; from the
    second chunk on they start at what is in memory. Behind the products of each block, ``pace``
    quarters of the chunk that follows are unpacked: the CPU does both at a time if few instructions
    of the one are between those of the other. Returns how many are ``done``. Meanwhile ``lines``
    lines of ``out``, two of a row, are asked for from ``out_at`` on, as in :func:`_few_rows`.
    """
    line, asks = 0, (lines + last - first - 1) // (last - first)
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    if first > 0:
        load_tile(0, memory, sums_at, 64)
        load_tile(1, memory, sums_at + TILE, 64)
        if two:
            load_tile(2, memory, sums_at + 2 * TILE, 64)
            load_tile(3, memory, sums_at + 3 * TILE, 64)
    at = row * x.shape[1]
    for k in range(first, last):
        load_tile(6, a, a_at + (k - first) * step, 64)
        stream_tile(4, x, at + k * ROWS * BLOCK, 64)
        dot_bfloat16(0, 4, 6)
        load_tile(7, a, b_at + (k - first) * step, 64)
        dot_bfloat16(1, 4, 7)
        if two:
            stream_tile(5, x, at + k * ROWS * BLOCK + ROWS * x.shape[1], 64)
            dot_bfloat16(2, 5, 6)
            dot_bfloat16(3, 5, 7)
        goal = done + pace
        while done < goal:
            _unpack_next(following, memory, done)
            done += 1
        line = _ask_for_lines(out, out_at, line, min(line + asks, lines))
    return done


@cpu_device(inline=True)
def _ask_for_lines(out, at, line, goal):
    """Ask for lines ``line`` to ``goal - 1`` of two panels' outputs; return ``goal``."""
    while line < goal:
        prefetch_to_write(out, at + line // 2 * out.shape[1] + line % 2 * PANEL)
        line += 1
    return goal


@cpu_device(inline=True)
def _unpack_next(following, memory, done):
    """Unpack quarter ``done`` of a chunk, if it has so many: blocks of both panels in turns."""
    data, at, size, apart, bits, quarters, to, table, ahead, end, jump = following
    if done < quarters:
        i = done >> 2
        place = at + (i >> 1) * size + (i & 1) * apart
        later = later_block(place, ahead, end, jump)
        unpack_quarter(data, place, done & 3, bits, memory, to + i * TILE, table, later)


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
def _multiply_few(start, stop, memory, table, data, size, blocks, bits, jump, x, rows, out, shift,
                  bias, add):  # fmt: skip
    """Multiply up to 32 rows."""
    two, end = rows > ROWS, stop * blocks * size
    for panel in range(start, stop, 2):
        panels = min(2, stop - panel)
        a_at, b_at = panel * blocks * size, (panel + panels - 1) * blocks * size
        if bits == 16:
            following = (data, 0, 0, 0, 0, 0, 0, table, 0, 0, 0)
            _multiply_tiles(data, a_at, b_at, TILE, memory, SUMS_AT, x, 0, two, 0, blocks,
                            following, 0, 0, out, panel * PANEL - shift, 2 * rows)  # fmt: skip
            _store_tiles(memory, SUMS_AT, two)
        elif bits == 8:
            _few_rows(data, a_at, b_at, end, jump, 8, size, memory, x, rows, two, blocks, table,
                      out, panel * PANEL - shift)  # fmt: skip
        else:
            _few_rows(data, a_at, b_at, end, jump, 4, size, memory, x, rows, two, blocks, table,
                      out, panel * PANEL - shift)  # fmt: skip
        _store_sums(memory, SUMS_AT, 0, rows, panel, panels, out, shift, bias, add)


@cpu_device(inline=True)
def _pair_and_chunk(step, pairs, together, chunks):
    """Return the pair of panels and the chunk of columns of a step.

    ``together`` pairs take turns with one chunk before the next chunk.
    """
    batch, rest = step // (together * chunks), step % (together * chunks)
    here = max(1, min(together, pairs - batch * together))
    return batch * together + rest % here, rest // here


@cpu_device
def _multiply_many(start, stop, memory, table, data, size, blocks, bits, jump, x, rows, out, shift,
                   bias, add):  # fmt: skip
    """Multiply more than 32 rows."""
    chunks = (blocks + CHUNK - 1) // CHUNK
    chunk = (blocks + chunks - 1) // chunks
    groups = (rows + 2 * ROWS - 1) // (2 * ROWS)
    pairs = (stop - start + 1) // 2
    steps = pairs * chunks
    together = max(1, SUMS // groups) if chunks > 1 and 2 * rows * x.shape[1] > FITS else 1
    ahead = AHEAD if together == 1 else 2 * blocks * size  # the next two panels, the same chunk
    plain, end = not add and bias.size == 0, stop * blocks * size
    for step in range(-1, steps):  # in step -1 only the first chunk is unpacked
        # The chunk that follows, to be unpacked in quarters of its tiles: none behind the last.
        pair, first = _pair_and_chunk(step + 1, pairs, together, chunks)
        panel, first = start + 2 * pair, first * chunk
        apart = blocks * size if stop - panel >= 2 else 0
        quarters = 8 * (min(first + chunk, blocks) - first)
        if bits == 16 or step + 1 == steps:
            quarters = 0
        next_at, next_to = (panel * blocks + first) * size, (step + 1) % 2 * 2 * CHUNK * TILE
        following = (data, next_at, size, apart, bits, quarters, next_to, table, ahead, end, jump)
        done = 0
        if step < 0:
            while done < quarters:
                _unpack_next(following, memory, done)
                done += 1
            continue
        pair, first = _pair_and_chunk(step, pairs, together, chunks)
        panel, first = start + 2 * pair, first * chunk
        last, panels = min(first + chunk, blocks), min(2, stop - panel)
        products = groups * (last - first)
        pace = (quarters + products - 1) // products
        source, a_at, apart, next_block = memory, step % 2 * 2 * CHUNK * TILE, TILE, 2 * TILE
        if bits == 16:
            source, a_at = data, (panel * blocks + first) * size
            apart, next_block = (panels - 1) * blocks * size, TILE
        for group in range(groups):
            row = 2 * ROWS * group
            two, lines = rows - row > ROWS, 2 * min(2 * ROWS, rows - row)
            if last < blocks:
                lines = 0
            sums = SUMS_AT + (4 * (pair % together * groups + group) * TILE if chunks > 1 else 0)
            done = _multiply_tiles(
                source, a_at, a_at + apart, next_block, memory, sums, x, row, two, first, last,
                following, pace, done, out, row * out.shape[1] + panel * PANEL - shift, lines,
            )  # fmt: skip
            if last == blocks and plain and panels == 2 and rows - row >= 2 * ROWS:
                at, stride = row * out.shape[1] + panel * PANEL - shift, out.shape[1]
                store_tile(0, out, at, 4 * stride)
                store_tile(1, out, at + PANEL, 4 * stride)
                store_tile(2, out, at + ROWS * stride, 4 * stride)
                store_tile(3, out, at + ROWS * stride + PANEL, 4 * stride)
            else:
                _store_tiles(memory, sums, two)
                if last == blocks:
                    _store_sums(memory, sums, row, rows, panel, panels, out, shift, bias, add)


@cpu_device
def multiply_bfloat16_by_tiles(
    start, stop, memory, shapes, table, data, bits, jump, x, rows, out, shift, bias, add
):
    """Multiply the first rows of x with panels ``start`` to ``stop - 1``.

    No error check. Arguments are those of ``bfloat16_product.multiply_bfloat16``, but:

    memory : uint8 array, from a cache line on
        Of at least :func:`tiles_memory` bytes; overwritten.
    shapes : uint8 array, shape (16, 64)
        ``SHAPES``.
    x : uint16 array, shape (rows rounded up to 16, wide(columns))
        In memory each 16 rows are a run of tiles of 16 rows and 32 columns (``place_of``): read
        from end to end, where rows a few KB apart were fetched at half the speed.
    """
    blocks = x.shape[1] // BLOCK
    size, flat = data.shape[1] // blocks, data.reshape(data.size)
    configure(shapes[min(rows, ROWS) - 1])
    if rows <= 2 * ROWS:
        _multiply_few(start, stop, memory, table, flat, size, blocks, bits, jump, x, rows, out,
                      shift, bias, add)  # fmt: skip
    else:
        _multiply_many(start, stop, memory, table, flat, size, blocks, bits, jump, x, rows, out,
                       shift, bias, add)  # fmt: skip
    release()
