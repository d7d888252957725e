"""Products of 4-bit weights with one input, as fast as the weights can be read.

At this speed a multiprocessor has about four operations of a thread for each weight, so what counts
is how few there are: addresses move by sums, rows are whole groups of 16, and nothing is looked up
in the loop. The warps of a block share the columns of a group, and their sums are added in order.

The norm before a product costs no kernel: whoever adds to the residual stream leaves the new
numbers times the norm's weights as bfloat16, and the sums of their squares; the product of these is
divided by the root in the end.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.matvec_stages import ROW_BYTES
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.packed_stage import (
    INPUT_BYTES,
    SUMS_AT,
    array_address,
    bring_input,
    copy_piece,
    load_piece,
    multiply_stage,
    store_input,
)
from numbatch.kernels.scoring.cuda.results import ADD, GATED, STORE, finished
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    finish_copies,
    shared_address,
    zero_tile,
)
from numbatch.kernels.scoring.cuda.words import to_bfloat16, warp_sum

__all__ = ["GROUP", "THREADS", "multiply_packed_kernel", "packed_launch"]

GROUP = 16
"""Rows that a warp takes at a time (``GATED``: 8 of the gate, 8 of the up product)."""

COLUMNS = 256
"""Of a stage."""

WARPS = 8
THREADS = 32 * WARPS

SCALES_AT = GROUP * ROW_BYTES
STAGE_BYTES = SCALES_AT + GROUP * 16

INPUTS = 2
"""Stages of the input in shared memory."""

SUMS = WARPS * GROUP
"""Of a group; those of the next one are elsewhere, lest they be written where others still read."""

SHAPES = ((2, 3, 80), (4, 2, 120))
"""Stages of a warp under way, blocks that run on a multiprocessor, and registers of a thread.

The first is for what takes one group a block so, and not with two blocks on a multiprocessor. The
second has registers for more operations under way: a token of Llama-3.1-8B's shapes took 1.68 ms on
an H200 with it, 1.71 with the first for products of more than two groups a block, and 1.80 with 80
registers. It has no room for a third block: some multiprocessors would get three, others one.
"""


def packed_launch(
    mode: int, rows: int, columns: int, multiprocessors: int
) -> tuple[int, bool, int]:
    """Return how to run a product of so many results of so many columns.

    Returns
    -------
    int, bool, int
        What :func:`multiply_packed_kernel` is asked for, and blocks.
    """
    groups = rows // (GROUP // 2 if mode == GATED else GROUP)
    is_long = columns > WARPS * COLUMNS * INPUTS
    first, second = (blocks * multiprocessors for _, blocks, _ in SHAPES)
    shape = 0 if second < groups <= first else 1
    return shape, is_long, min(groups, second if shape else first)


@cuda_device
def _squares_of(squares, thread):
    """Return a thread's share of the sum of squares that a norm is made from."""
    size = squares.size
    total = squares[min(thread, size - 1)]
    if thread >= size:
        total = np.float32(0)
    for i in range(thread + THREADS, size, THREADS):
        total += squares[i]
    return total


@cuda_device
def _root(shared, at, width, epsilon, lane):
    """Return what a norm divides by, over 1, from the sums of squares that warps left."""
    total = warp_sum(shared[at + (lane & (WARPS - 1))]) / np.float32(32 // WARPS)
    return np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + epsilon))


@cuda_device
def _copy_stage(place, scale_place, source, source_scale, apart, lane):
    """Begin to copy a stage: four pieces of codes for a lane, and the scales of a row."""
    four_rows, below = apart
    copy_piece(place, source)
    copy_piece(place + np.uint32(512), source + four_rows)
    copy_piece(place + np.uint32(1024), source + below)
    copy_piece(place + np.uint32(1536), source + below + four_rows)
    if lane < 16:
        copy_piece(scale_place, source_scale)


@cuda_device(fast=True)
def _write(mode, first, second, code, scale, cap, row, out, out32):
    """Write the results of the rows ``row`` and ``row + 8``, or that of a gate and its row."""
    value = finished(mode, first, second, code, scale, cap)
    if mode == GATED:
        out[0, row] = to_bfloat16(value)
        return
    below = finished(mode, second, first, code, scale, cap)
    if mode == STORE:
        out[0, row], out[0, row + 8] = to_bfloat16(value), to_bfloat16(below)
    else:
        out32[0, row], out32[0, row + 8] = value, below


@functools.cache
def multiply_packed_kernel(shape: int, is_long: bool) -> Any:
    """Return the kernel with a shape of ``SHAPES``, for long inputs or others.

    Of a long one warps have more stages than ``INPUTS``. :func:`packed_launch` says which.
    """
    depth, _, registers = SHAPES[shape]
    own_bytes = depth * STAGE_BYTES + INPUTS * INPUT_BYTES
    sums_at = WARPS * own_bytes // 4
    squares_at = sums_at + 2 * SUMS
    shared_bytes = 4 * (squares_at + WARPS)
    left_over = depth - 1

    @cuda_kernel(fast=True, registers=registers, early=True, shared=shared_bytes)
    def multiply_packed(
        words, scales, rows, x, squares, width, epsilon, mode, apart, code, scale, cap, out, out32,
        weight, next_x, next_squares,
    ):  # fmt: skip
        """Multiply groups of rows of weights with one input. No error check.

        Parameters
        ----------
        words : uint32 array, shape (rows, columns / 8)
        scales : uint16 array, shape (rows, columns / 32)
            See ``packing``.
        rows : int
            Results; a multiple of 16 (``GATED``: of the gate, a multiple of 8).
        x : uint16 array, shape (1, columns)
            bfloat16, zero in the padding.
        squares : float32 array
            Sums of squares of the numbers that ``x`` is made of, or empty: then results are not
            divided by the root of their mean.
        width, epsilon : int, float32
            How many numbers there are; what is added to the mean.
        mode, apart, code, scale, cap
            As for ``matvec``.
        out, out32 : uint16 and float32 arrays, shape (1, at least rows)
            The one that the mode asks for is modified in place.
        weight : float32 array, shape (rows,), or empty
            ``ADD``: of the norm that comes next.
        next_x : uint16 array, shape (1, at least rows)
            ``ADD``: modified in place, the numbers of the residual stream times ``weight``.
        next_squares : float32 array, shape (at least rows / 16,)
            ``ADD``: modified in place, the sum of the squares of 16 of these numbers each.
        """
        shared = cuda.shared.array(0, np.float32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        group, four = lane >> 2, lane & 3
        bits = np.int32(3) if mode == GATED else np.int32(4)
        distance = np.int64(apart if mode == GATED else 8)
        stages = np.int32(x.shape[1] >> 8)  # of COLUMNS
        start = np.int32((warp * stages) >> 3)  # of WARPS
        count = np.int32(np.int32(((warp + 1) * stages) >> 3) - start)
        first, step = np.int32(cuda.blockIdx.x), np.int32(cuda.gridDim.x)
        groups = np.int32(rows >> bits)
        row_bytes, scale_bytes = np.int64(words.shape[1]) * 4, np.int64(scales.shape[1]) * 2
        # A lane copies a piece of four lines: of a row, four further on, and of those below.
        line, piece = np.int64(lane >> 3), np.int64(lane & 7)
        base = shared_address(shared) + np.uint32(warp * np.int32(own_bytes))
        to = np.uint32(line * ROW_BYTES + ((piece ^ ((line & 1) << 2)) << 4))
        to_scale = np.uint32(np.int32(SCALES_AT) + (lane << 4))
        codes = array_address(words) + (line * row_bytes + start * 128 + piece * 16)
        factors = array_address(scales) + ((piece + line * distance) * scale_bytes + start * 16)
        apart_bytes = (4 * row_bytes, distance * row_bytes)
        begin_next()
        next_group, left = first, count
        source = codes + (np.int64(first) << np.int64(bits)) * row_bytes
        source_scale = factors + (np.int64(first) << np.int64(bits)) * scale_bytes
        for early in range(depth):
            if next_group < groups and count > 0:
                place = base + np.uint32(early * STAGE_BYTES)
                _copy_stage(place + to, place + to_scale, source, source_scale, apart_bytes, lane)
                source, source_scale, left = source + 128, source_scale + 16, np.int32(left - 1)
                if left == 0:
                    next_group, left = np.int32(next_group + step), count
                    at = np.int64(next_group) << np.int64(bits)
                    source, source_scale = codes + at * row_bytes, factors + at * scale_bytes
            finish_copies()
        own_row = (np.intp(first) << np.intp(4)) + np.intp(lane & 15)
        factor = np.float32(0)
        if warp == 0 and weight.size:
            factor = weight[own_row]
        await_previous()
        inputs = base + np.uint32(depth * STAGE_BYTES)
        before, square, has_norm = np.float32(0), np.float32(0), squares.size > 0
        if has_norm:
            square = _squares_of(squares, np.int64(thread))
        if warp == 0 and mode == ADD:
            before = out32[0, own_row]
        # The first stages of the input are asked for at once, and one more; of a longer one the
        # next is under way while a stage is multiplied.
        own_x = array_address(x) + np.int64(start) * 512 + np.int64(lane) * 16
        if is_long:
            ahead_at = np.int32(INPUTS) if count > INPUTS else np.int32(0)
            ahead_x = load_piece(own_x + np.int64(ahead_at) * 512)
            ahead_at = np.int32(ahead_at + 1) if ahead_at + 1 < count else np.int32(0)
        bring_input(inputs, np.uint32(lane), own_x, count, INPUTS)
        root = np.float32(0)
        own = np.uint32(group * np.int32(ROW_BYTES) + (four << 4)) + np.uint32((group & 1) << 6)
        own_scale = np.uint32(np.int32(SCALES_AT) + (group << 4))
        slot, side, sums = np.int32(0), np.int32(1), np.intp(sums_at)
        while first < groups:
            total = zero_tile(2)
            for stage in range(count):
                side = np.int32(side ^ 1) if is_long else np.int32(stage & 1)
                input_at = inputs + np.uint32(side * np.int32(INPUT_BYTES))
                copies_done(left_over)
                cuda.syncwarp()
                place = base + np.uint32(slot * np.int32(STAGE_BYTES))
                total = multiply_stage(
                    total, place + own, place + own_scale, input_at + np.uint32(four << 4),
                    input_at + np.uint32(SUMS_AT),
                )  # fmt: skip
                cuda.syncwarp()
                if is_long:
                    store_input(input_at, np.uint32(lane), ahead_x)
                    ahead_x = load_piece(own_x + np.int64(ahead_at) * 512)
                    ahead_at = np.int32(ahead_at + 1) if ahead_at + 1 < count else np.int32(0)
                if next_group < groups:
                    _copy_stage(
                        place + to, place + to_scale, source, source_scale, apart_bytes, lane
                    )
                    source, source_scale = source + 128, source_scale + 16
                    left = np.int32(left - 1)
                    if left == 0:
                        next_group, left = np.int32(next_group + step), count
                        at = np.int64(next_group) << np.int64(bits)
                        source, source_scale = codes + at * row_bytes, factors + at * scale_bytes
                finish_copies()
                slot = np.int32(slot + 1) if slot + 1 < depth else np.int32(0)
            is_first = first == np.int32(cuda.blockIdx.x)
            if has_norm and is_first:
                # Not before: waiting for the squares would hold the products up.
                square = warp_sum(square)
                if lane == 0:
                    shared[squares_at + warp] = square
            if four == 0:
                own_sum = sums + np.intp(warp) * GROUP + np.intp(group)
                shared[own_sum], shared[own_sum + 8] = total[0], total[1]
            cuda.syncthreads()
            if warp == 0:
                value, first_sum = np.float32(0), sums + np.intp(lane & 15)
                for each in range(WARPS):
                    value += shared[first_sum + each * GROUP]
                if has_norm:
                    if is_first:
                        root = _root(shared, squares_at, width, epsilon, lane)
                    value *= root
                if mode == ADD:
                    row = (np.intp(first) << np.intp(4)) + np.intp(lane & 15)
                    if not is_first:
                        before = out32[0, row]
                        factor = weight[row] if weight.size else factor
                    value += before
                    own_square = warp_sum(value * value if lane < 16 else np.float32(0))
                    if lane < 16:
                        out32[0, row] = value
                        if weight.size:
                            next_x[0, row] = to_bfloat16(value * factor)
                    if lane == 0:
                        next_squares[first] = own_square
                else:
                    below = cuda.shfl_down_sync(0xFFFFFFFF, value, 8)
                    if lane < 8:
                        row = (np.intp(first) << np.intp(bits)) + np.intp(lane)
                        _write(mode, value, below, code, scale, cap, row, out, out32)
            sums = np.intp(2 * sums_at + SUMS) - sums
            first = np.int32(first + step)

    return multiply_packed
