"""The bfloat16 product by tile registers (AMX).

Two panels (32 rows of the matrix) meet up to 32 rows of activations in four tiles of sums. Weights
of 4 or 8 bits are unpacked to tiles of 1 KB in working memory while the first 32 rows are
multiplied, four lines between two instructions for tiles; the other rows find them there, a chunk
of two panels.

Limits, for 32 columns of two panels and 32 rows: four products of 16 cycles each; four loads of 1
KB; 32 lines to unpack, of five vector instructions each, two of which are issued a cycle. Products
take no time from these, but there is only one multiply-add a cycle beside them. The weights are in
the first level of the cache (36 KB of a chunk), the activations stream through it from the second:
32 bytes a cycle, of some 40 that it gives. Each line that is written there and was not in the first
level costs some three cycles more.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import configure, release, store_tile, tile_shapes
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_panels import BLOCK, PANEL
from numbatch.kernels.scoring.bfloat16_product import ROWS, store_output, wide
from numbatch.kernels.scoring.bfloat16_unpack import AHEAD, TILE
from numbatch.kernels.scoring.tile_groups import do_items, multiply_group, store_sums, unpack_room
from numbatch.kernels.simd import align_stack, load_float32, prefetch_to_write

__all__ = ["SHAPES", "multiply_bfloat16_by_tiles", "tiles_memory"]

CHUNK = 18
"""Blocks of two panels that are multiplied with all rows before the next, at most.

Sums wait in memory between two chunks, so few large ones are better: 9 instead of 18 made three
quarters of the speed.
"""

SHAPES = np.stack(
    [tile_shapes([m, m, 16, 16, m, 16, 16, 16], [64] * 8) for m in range(1, ROWS + 1)]
)
"""Row m - 1: tiles for m rows of activations. 0 to 3: sums. 4, 5: activations. 6, 7: weights."""

SUMS_AT = 2 * CHUNK * TILE
"""Where sums begin in working memory: behind a chunk of two panels."""

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
    sums = 2
    if wide(columns) > CHUNK * BLOCK:
        many = 2 * rows * wide(columns) > FITS
        sums = max(SUMS if many else 2, -(-rows // (2 * ROWS)))
    return SUMS_AT + 4 * sums * TILE


@cpu_device(inline=True)
def _output_row(stage, row, job, state):
    """Write a row's outputs of two panels from sums in memory; if ``direct`` ask for their lines.

    As many weights as the cache's second level holds have passed since these lines were used last,
    and each store would wait for its line.
    """
    out, at, direct, memory, sums, panels, bias, n, add = job
    panel = stage // 2
    if stage % 2 == 0 and panel < panels:
        place = at + row * out.shape[1] + panel * PANEL
        if direct:
            prefetch_to_write(out, place)
        else:
            total = load_float32(memory, sums + (row // ROWS * 2 + panel) * TILE + row % ROWS * 64)
            store_output(out, place, total, bias, n + panel * PANEL, add)
    return state


@cpu_device(inline=True)
def _store_outputs(out, at, two):
    """Write the tiles of sums of 16 or 32 rows to the outputs."""
    stride = out.shape[1]
    store_tile(0, out, at, 4 * stride)
    store_tile(1, out, at + PANEL, 4 * stride)
    if two:
        store_tile(2, out, at + ROWS * stride, 4 * stride)
        store_tile(3, out, at + ROWS * stride + PANEL, 4 * stride)


@cpu_device(inline=True)
def _pair_and_chunk(step, pairs, together, chunks):
    """Return the pair of panels and the chunk of columns of a step.

    ``together`` pairs take turns with one chunk before the next chunk.
    """
    batch, rest = step // (together * chunks), step % (together * chunks)
    here = max(1, min(together, pairs - batch * together))
    return batch * together + rest % here, rest // here


@cpu_device(inline=True)
def _multiply_panels(start, stop, memory, table, data, size, blocks, bits, jump, x, rows, out,
                     shift, bias, add):  # fmt: skip
    """Multiply rows with panels, two at a time; the first 32 rows unpack the weights for all."""
    few = rows <= 2 * ROWS
    chunks = 1 if few else (blocks + CHUNK - 1) // CHUNK
    chunk = (blocks + chunks - 1) // chunks
    groups = (rows + 2 * ROWS - 1) // (2 * ROWS)
    pairs = (stop - start + 1) // 2
    together = max(1, SUMS // groups) if chunks > 1 and 2 * rows * x.shape[1] > FITS else 1
    ahead = AHEAD if together == 1 else 2 * blocks * size  # the next two panels, the same chunk
    end, room = stop * blocks * size, unpack_room(few, chunk)
    # Outputs that are not just stored are written behind the products of the group that follows.
    turn, waiting, job = 0, 0, (out, 0, False, memory, SUMS_AT, 2, bias, 0, add)
    for step in range(pairs * chunks):
        pair, first = _pair_and_chunk(step, pairs, together, chunks)
        panel, first = start + 2 * pair, first * chunk
        last, panels = min(first + chunk, blocks), min(2, stop - panel)
        a_at = (panel * blocks + first) * size
        b_at = a_at + (panels - 1) * blocks * size
        for group in range(groups):
            row = 2 * ROWS * group
            left, at = rows - row, row * x.shape[1] + first * ROWS * BLOCK
            out_at = row * out.shape[1] + panel * PANEL - shift
            sums = pair % together * groups + group if chunks > 1 else turn
            sums = SUMS_AT + 4 * sums * TILE
            # The tiles have 16 rows, or as many as there are in all.
            whole = left >= 2 * ROWS or left == ROWS or rows <= ROWS
            direct = last == blocks and not add and bias.size == 0 and panels == 2 and whole
            if direct:
                do_items(0, waiting, _output_row, job)
                waiting = min(2 * ROWS, left)
                job = (out, out_at, True, memory, sums, panels, bias, panel * PANEL, add)
            multiply_group(
                data, a_at, b_at, size, bits, table, ahead, end, jump, memory, room, sums, first,
                last - first, group == 0, x, at, left > ROWS, _output_row, job, waiting,
            )  # fmt: skip
            waiting = 0
            if direct:
                _store_outputs(out, out_at, left > ROWS)
                continue
            store_sums(memory, sums, left > ROWS)
            if last == blocks:
                turn, waiting = 1 - turn, min(2 * ROWS, left)
                job = (out, out_at, False, memory, sums, panels, bias, panel * PANEL, add)
    do_items(0, waiting, _output_row, job)


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
    align_stack()
    blocks = x.shape[1] // BLOCK
    size, flat = data.shape[1] // blocks, data.reshape(data.size)
    configure(shapes[min(rows, ROWS) - 1])
    if bits == 4:
        _multiply_panels(start, stop, memory, table, flat, size, blocks, 4, jump, x, rows, out,
                         shift, bias, add)  # fmt: skip
    elif bits == 8:
        _multiply_panels(start, stop, memory, table, flat, size, blocks, 8, jump, x, rows, out,
                         shift, bias, add)  # fmt: skip
    else:
        _multiply_panels(start, stop, memory, table, flat, size, blocks, 16, jump, x, rows, out,
                         shift, bias, add)  # fmt: skip
    release()
