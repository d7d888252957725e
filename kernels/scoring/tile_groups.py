"""One group of up to 32 rows and two panels: the products that :mod:`bfloat16_tiles` is made of.

Tiles 0 to 3 are sums: of the first and the second panel with 16 rows, then with 16 more. Tiles 4
and 5 are activations, 6 and 7 weights.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.amx import (
    dot_bfloat16,
    load_tile,
    store_tile,
    stream_tile,
    zero_tile,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_panels import BLOCK
from numbatch.kernels.scoring.bfloat16_product import ROWS
from numbatch.kernels.scoring.bfloat16_unpack import (
    TILE,
    block_scales,
    later_block,
    unpack_block,
    unpack_quarter,
)
from numbatch.kernels.simd import prefetch, prefetch_to_write, splat

__all__ = ["do_items", "multiply_group", "store_sums", "unpack_room"]

LAG = 1
"""Blocks from the one that is multiplied to the one that is unpacked; 2 and 3 were no faster."""

RING = 2
"""Blocks of a few rows that are held: what follows overwrites them, in the nearest cache."""


@cpu_device(inline=True)
def _begin_sums(memory, at, two, first):
    """Set the tiles of sums to zero; behind a chunk before, to what it left in memory."""
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)
    if first > 0:
        load_tile(0, memory, at, 64)
        load_tile(1, memory, at + TILE, 64)
        if two:
            load_tile(2, memory, at + 2 * TILE, 64)
            load_tile(3, memory, at + 3 * TILE, 64)


@cpu_device(inline=True)
def store_sums(memory, at, two):
    """Write the tiles of sums, of the first or of ``two`` times 16 rows, to memory."""
    store_tile(0, memory, at, 64)
    store_tile(1, memory, at + TILE, 64)
    if two:
        store_tile(2, memory, at + 2 * TILE, 64)
        store_tile(3, memory, at + 3 * TILE, 64)


@cpu_device(inline=True)
def do_items(first, end, work, job):
    """Do items ``first`` to ``end - 1`` of other work alone."""
    for item in range(first, end):
        state = work(0, item, job, _nothing())
        state = work(1, item, job, state)
        state = work(2, item, job, state)
        work(3, item, job, state)


@cpu_device(inline=True)
def _nothing():
    """Return what the first stage of an item is given."""
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@cpu_device(inline=True)
def _pause(weights, at, n):
    """Ask for the ``n``-th two lines of a tile, which are in the nearest cache, and so do nothing.

    In spells products by tiles take four times as long as else, if they follow each other alone;
    why is not known (neighbours on the same core?). With these between two instructions for tiles
    four products and their loads then took 85 instead of 115 ns; 25 in both cases else.
    """
    prefetch(weights, at + 128 * n)
    prefetch(weights, at + 128 * n + 64)


@cpu_device(inline=True)
def _no_work(stage, item, job, state):
    """Take the place of other work where there is none."""
    return state


@cpu_device(inline=True)
def _multiply_block(weights, a, b, x, at, below, two, work, job, item):
    """Multiply 16 or 32 rows with an unpacked block of two panels; meanwhile do two items."""
    state = work(0, item, job, _nothing())
    load_tile(6, weights, a, 64)
    _pause(weights, a, 0)
    state = work(1, item, job, state)
    stream_tile(4, x, at, 64)
    _pause(weights, a, 1)
    state = work(2, item, job, state)
    dot_bfloat16(0, 4, 6)
    _pause(weights, a, 2)
    work(3, item, job, state)
    load_tile(7, weights, b, 64)
    _pause(weights, a, 3)
    state = work(0, item + 1, job, _nothing())
    dot_bfloat16(1, 4, 7)
    _pause(weights, b, 0)
    state = work(1, item + 1, job, state)
    if two:
        stream_tile(5, x, at + below, 64)
        _pause(weights, b, 1)
    state = work(2, item + 1, job, state)
    if two:
        dot_bfloat16(2, 5, 6)
        _pause(weights, b, 2)
    work(3, item + 1, job, state)
    if two:
        dot_bfloat16(3, 5, 7)
        _pause(weights, b, 3)


@cpu_device(inline=True)
def _multiply(weights, a_at, b_at, step, blocks, x, at, two, work, job, items):
    """Multiply 16 or 32 rows, at ``at`` in ``x``, with unpacked blocks ``step`` bytes apart."""
    done, below = 0, ROWS * x.shape[1]
    for k in range(blocks):
        a, b, place = a_at + k * step, b_at + k * step, at + k * ROWS * BLOCK
        if done + 1 < items:
            _multiply_block(weights, a, b, x, place, below, two, work, job, done)
            done += 2
        else:
            _multiply_block(weights, a, b, x, place, below, two, _no_work, job, done)
    do_items(done, items, work, job)


@cpu_device(inline=True)
def _unpack_and_multiply(data, a_at, b_at, size, bits, table, ahead, end, jump, memory, room,
                         blocks, x, at, two, work, job, items):  # fmt: skip
    """As :func:`_multiply`, but unpack the weights to the first ``room`` bytes of memory.

    Where that is less than all blocks take, the first ones are overwritten by those that follow.
    """
    done, each, below = 0, (items + blocks - 1) // blocks, ROWS * x.shape[1]
    fresh, used, far = 0, 0, room > 2 * TILE * RING
    for k in range(-LAG, blocks):
        a, b = a_at + (k + LAG) * size, b_at + (k + LAG) * size
        later = later_block(a, ahead, end, jump), later_block(b, ahead, end, jump)
        if k < 0:
            unpack_block(data, a, bits, memory, fresh, table, later[0])
            unpack_block(data, b, bits, memory, fresh + TILE, table, later[1])
        elif k >= blocks - LAG:
            _multiply_block(memory, used, used + TILE, x, at, below, two, _no_work, job, done)
        elif two and far:
            _block_of_32(data, a, b, bits, table, later, memory, fresh, used, x, at, below, True)
        elif two:
            _block_of_32(data, a, b, bits, table, later, memory, fresh, used, x, at, below, False)
        else:
            _block_of_16(data, a, b, bits, table, later, memory, fresh, used, x, at)
        fresh = fresh + 2 * TILE if fresh + 2 * TILE < room else 0
        if k >= 0:
            used, at = used + 2 * TILE if used + 2 * TILE < room else 0, at + ROWS * BLOCK
            do_items(done, min(done + each, items), work, job)
            done = min(done + each, items)


@cpu_device(inline=True)
def _unpack(data, at, quarter, bits, scales, memory, to, table, later, far):
    """Unpack a quarter; if ``far``, ask for the lines that the block after the next is written to.

    These have left the nearest cache: asked for, 64 or 256 rows took 0.95 to 0.97 of the time.
    """
    unpack_quarter(data, at, quarter, bits, scales, memory, to, table, later)
    if far:
        for line in range(4):
            prefetch_to_write(memory, to + 4 * TILE + 256 * quarter + 64 * line)


@cpu_device(inline=True)
def _block_of_32(data, a, b, bits, table, later, memory, to, from_, x, at, below,
                 far):  # fmt: skip
    """Multiply 32 rows with a block of two panels, while blocks ``a`` and ``b`` are unpacked.

    An instruction for tiles stands behind each four lines that are unpacked: so the CPU does both
    at a time. Two or more of them together cost as much as they take alone: 75 us instead of 57 for
    32 rows and a matrix of 1,536 x 576, 45 instead of 41 for 8 rows, 43 instead of 33 for one.
    """
    scales = block_scales(data, a, bits)
    _unpack(data, a, 0, bits, scales, memory, to, table, later[0], far)
    load_tile(4, x, at, 64)
    _unpack(data, a, 1, bits, scales, memory, to, table, later[0], far)
    load_tile(6, memory, from_, 64)
    _unpack(data, a, 2, bits, scales, memory, to, table, later[0], far)
    dot_bfloat16(0, 4, 6)
    _unpack(data, a, 3, bits, scales, memory, to, table, later[0], far)
    load_tile(7, memory, from_ + TILE, 64)
    scales, to = block_scales(data, b, bits), to + TILE
    _unpack(data, b, 0, bits, scales, memory, to, table, later[1], far)
    dot_bfloat16(1, 4, 7)
    _unpack(data, b, 1, bits, scales, memory, to, table, later[1], far)
    load_tile(5, x, at + below, 64)
    _unpack(data, b, 2, bits, scales, memory, to, table, later[1], far)
    dot_bfloat16(2, 5, 6)
    _unpack(data, b, 3, bits, scales, memory, to, table, later[1], far)
    dot_bfloat16(3, 5, 7)


@cpu_device(inline=True)
def _block_of_16(data, a, b, bits, table, later, memory, to, from_, x, at):
    """As :func:`_block_of_32`, for up to 16 rows."""
    scales = block_scales(data, a, bits)
    unpack_quarter(data, a, 0, bits, scales, memory, to, table, later[0])
    load_tile(4, x, at, 64)
    load_tile(6, memory, from_, 64)
    unpack_quarter(data, a, 1, bits, scales, memory, to, table, later[0])
    unpack_quarter(data, a, 2, bits, scales, memory, to, table, later[0])
    dot_bfloat16(0, 4, 6)
    unpack_quarter(data, a, 3, bits, scales, memory, to, table, later[0])
    scales, to = block_scales(data, b, bits), to + TILE
    unpack_quarter(data, b, 0, bits, scales, memory, to, table, later[1])
    load_tile(7, memory, from_ + TILE, 64)
    unpack_quarter(data, b, 1, bits, scales, memory, to, table, later[1])
    unpack_quarter(data, b, 2, bits, scales, memory, to, table, later[1])
    dot_bfloat16(1, 4, 7)
    unpack_quarter(data, b, 3, bits, scales, memory, to, table, later[1])


@cpu_device(inline=True)
def unpack_room(few, blocks):
    """Return the bytes of working memory that unpacked weights take: all blocks, or of few rows."""
    return 2 * TILE * (RING if few else blocks)


@cpu_device(inline=True)
def multiply_group(data, a_at, b_at, size, bits, table, ahead, end, jump, memory, room, sums, first,
                   blocks, unpack, x, at, two, work, job, items):  # fmt: skip
    """Multiply up to 32 rows with some blocks of two panels; leave the sums in the tiles.

    No error check.

    Parameters
    ----------
    data : uint8 array
        Weights; ``a_at`` and ``b_at`` are where the blocks of the two panels begin.
    size, bits : int
        Bytes of a block, bits of a weight.
    table, ahead, end, jump
        As for ``unpack_block`` and ``later_block``.
    memory : uint8 array
        The unpacked weights are in its first ``room`` bytes (:func:`unpack_room`).
    sums, first : int
        Where the sums of earlier blocks lie in memory, if ``first`` is not 0.
    blocks : int
    unpack : bool
        Whether to unpack the weights, which else are there already.
    x : uint16 array
        Activations, whose first tile is at flat index ``at``.
    two : bool
        Whether there are more than 16 rows.
    work : device function (stage, item, job, state)
        Does a stage, 0 to 3, of an item of other work, and returns the state for the next: four
        vectors of float32.
    job : tuple
    items : int
    """
    _begin_sums(memory, sums, two, first)
    if bits == 16:
        _multiply(data, a_at, b_at, TILE, blocks, x, at, two, work, job, items)
    elif unpack:
        _unpack_and_multiply(data, a_at, b_at, size, bits, table, ahead, end, jump, memory, room,
                             blocks, x, at, two, work, job, items)  # fmt: skip
    else:
        _multiply(memory, 0, TILE, 2 * TILE, blocks, x, at, two, work, job, items)
