"""Products of weights with a few inputs, as fast as the weights can be read.

A block takes 16 rows of weights; its eight warps share the columns among them, each a fixed
range, and their sums are added in order. So an output's bits depend on its row and its input alone,
not on how many inputs there are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.matvec_tiles import (
    add_row_dots,
    add_weights,
    load_weights,
    store_sums,
)
from numbatch.kernels.scoring.cuda.rows import _activation
from numbatch.kernels.scoring.cuda.tiles import zero_tile
from numbatch.kernels.scoring.cuda.words import to_bfloat16, warp_sum

__all__ = [
    "ADD",
    "GATED",
    "LOGITS",
    "MOST_INPUTS",
    "STORE",
    "THREADS",
    "UNIT",
    "matvec_blocks",
    "matvec_kernel",
    "multiply_one",
]

STORE, ADD, LOGITS, GATED = 0, 1, 2, 3
"""What is done with a product: stored as bfloat16, added to float32, scaled, capped and stored as
float32, or activated and multiplied with that of the row ``apart`` below."""

UNIT = 256
"""Columns that a warp takes at a time; rows of weights and inputs are padded to a multiple."""

WARPS = 8
THREADS = 32 * WARPS

MOST_INPUTS = 16
"""Inputs that a block takes; more are shared out over blocks that read the same weights."""


STEPS = 4
"""Pieces of 256 columns of two rows whose loads are under way at once."""


def matvec_blocks(mode: int, rows: int, tokens: int) -> tuple[int, int]:
    """Return the blocks that a product of so many results (``GATED``: of the gate) needs.

    Blocks that share weights come after one another, so that these are read from memory once.
    """
    return -(-tokens // MOST_INPUTS), -(-rows // (8 if mode == GATED else 16))


@cuda_device
def _finish(mode, value, below, code, scale, cap):
    if mode == GATED:
        return _activation(code, value) * below
    if mode == LOGITS:
        value *= scale
        if cap != np.float32(0):
            value = cap * np.float32(math.tanh(value / cap))
    return value


@cuda_kernel(fast=True)
def multiply_one(
    weights, rows, x, mode, apart, code, scale, cap, at_column, out, out32
):  # fmt: skip
    """Multiply rows of bfloat16 weights with one input, a warp two rows. No error check.

    It is launched with ``ceil(rows / 16)`` blocks (``GATED``: of 8) of ``THREADS`` threads.

    Parameters as in :func:`matvec_kernel`.
    """
    thread = np.int32(cuda.threadIdx.x)
    lane, warp = np.intp(thread & 31), np.intp(thread >> 5)
    block = np.intp(cuda.blockIdx.x)
    row = block * WARPS + warp
    below = row + apart
    if mode != GATED:
        row = 2 * row
        below = min(row + 1, weights.shape[0] - 1)
    if row < rows:
        before, before_below = np.float32(0), np.float32(0)
        if mode == ADD and lane == 0:
            before = out32[0, at_column + row]
            if below < rows:
                before_below = out32[0, at_column + below]
        wide, units = weights.shape[1], x.shape[1] // UNIT
        at, at_below, x_at = row * wide + 8 * lane, below * wide + 8 * lane, 8 * lane
        total = zero_tile(4)
        unit = np.intp(0)
        while unit + STEPS <= units:
            total = add_row_dots(total, weights, (at, at_below), x, x_at, STEPS)
            at, at_below, x_at = at + STEPS * UNIT, at_below + STEPS * UNIT, x_at + STEPS * UNIT
            unit += STEPS
        while unit < units:
            total = add_row_dots(total, weights, (at, at_below), x, x_at, 1)
            at, at_below, x_at = at + UNIT, at_below + UNIT, x_at + UNIT
            unit += 1
        value, lower = warp_sum(total[0] + total[1]), warp_sum(total[2] + total[3])
        if lane == 0:
            if mode == GATED:
                out[0, at_column + row] = to_bfloat16(_activation(code, value) * lower)
            else:
                has_below = row + 1 < rows
                value = _finish(mode, value, lower, code, scale, cap)
                lower = _finish(mode, lower, value, code, scale, cap)
                if mode == STORE:
                    out[0, at_column + row] = to_bfloat16(value)
                    if has_below:
                        out[0, at_column + row + 1] = to_bfloat16(lower)
                else:
                    out32[0, at_column + row] = before + value
                    if has_below:
                        out32[0, at_column + row + 1] = before_below + lower


@functools.cache
def matvec_kernel(kind: str, tiles: int, has_least: bool = False) -> Any:
    """Return the kernel for ``plain``, ``nibbles`` or ``bytes`` and up to ``8 * tiles`` inputs.

    ``has_least``: the nibbles have leasts.

    It is launched with :func:`matvec_blocks` blocks of ``THREADS`` threads.
    """
    numbers = 4 * tiles
    tokens_held = 8 * tiles
    slots = WARPS * 16 * tokens_held
    steps = {"plain": (UNIT, 8), "nibbles": (UNIT // 8, 4), "bytes": (UNIT // 4, 8)}
    unit_step, piece = steps[kind]
    is_plain = kind == "plain"

    @cuda_kernel(fast=True)
    def matvec(
        weights, scales, leasts, rows, x, tokens, mode, apart, code, scale, cap, at_column, out,
        out32,
    ):  # fmt: skip
        """Multiply a block's rows of weights with all inputs. No error check.

        Parameters
        ----------
        weights : array, shape (rows, words)
            uint16 (plain) or uint32 (packed; see ``packing``).
        scales, leasts : uint16 arrays, shape (rows, columns / 32)
            Bits of float16; any array where there are none.
        rows : int
            Rows of weights that count.
        x : uint16 array, shape (at least tokens, columns)
            bfloat16, zero in the padding.
        tokens, mode, apart, code : int
            How many inputs; ``STORE``, ``ADD``, ``LOGITS`` or ``GATED``; how far below its gate a
            row of the up product is; the activation's code.
        scale, cap : float32
            For ``LOGITS``.
        at_column : int
            The column of the first output.
        out, out32 : uint16 and float32 arrays, shape (at least tokens, at least rows)
            The one that the mode asks for is modified in place.
        """
        shared = cuda.shared.array(slots, np.float32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        group, four = np.intp(lane >> 2), np.intp(lane & 3)
        # Rows of a block's results; where they are activated, as many of the up product's besides.
        bits = np.int32(3) if mode == GATED else np.int32(4)
        first = np.intp(cuda.blockIdx.y) << bits
        base = np.intp(cuda.blockIdx.x) * tokens_held
        here = min(np.intp(tokens) - base, np.intp(tokens_held))
        row = min(first + group, weights.shape[0] - 1)
        row_below = min(first + group + (apart if mode == GATED else 8), weights.shape[0] - 1)
        units = x.shape[1] // UNIT
        begin, end = np.intp(warp) * units // WARPS, (np.intp(warp) + 1) * units // WARPS
        total = zero_tile(numbers)
        a0 = (base + min(group, here - 1)) * x.shape[1] + four * 8
        a1 = (base + min(group + 8, here - 1)) * x.shape[1] + four * 8
        wide, blocks = weights.shape[1], scales.shape[1]
        minimum = leasts if has_least else None
        column = min(begin, units - 1) * unit_step + four * piece
        block = min(begin, units - 1) * (UNIT // 32)
        at = (row * wide + column, row_below * wide + column)
        scale_at = (row * blocks + block, row_below * blocks + block)
        # Of bfloat16 the next weights are under way while these are worked on. Packed ones are
        # fewer bytes for as much work: there more warps at a time are worth more.
        if is_plain:
            coming = load_weights(weights, at, scales, None, scale_at, kind)
        for unit in range(begin, end):
            if is_plain:
                held = coming
            else:
                held = load_weights(weights, at, scales, minimum, scale_at, kind)
            at = (at[0] + unit_step, at[1] + unit_step)
            scale_at = (scale_at[0] + UNIT // 32, scale_at[1] + UNIT // 32)
            if is_plain and unit + 1 < end:
                coming = load_weights(weights, at, scales, None, scale_at, kind)
            x_at = (a0 + unit * UNIT, a1 + unit * UNIT)
            total = add_weights(total, held, x, x_at, kind, has_least)
        own = (np.intp(warp) * 16 + group) * tokens_held + 2 * four
        store_sums(total, shared, own, tiles)
        cuda.syncthreads()
        for i in range(thread, np.int32(here) << bits, np.int32(THREADS)):
            token, place = np.intp(i >> bits), np.intp(i & ((np.int32(1) << bits) - 1))
            if first + place < rows:
                value, below = np.float32(0), np.float32(0)
                for other in range(WARPS):
                    value += shared[(other * 16 + place) * tokens_held + token]
                if mode == GATED:
                    for other in range(WARPS):
                        lower = other * 16 + place + 8
                        below += shared[lower * tokens_held + token]
                value = _finish(mode, value, below, code, scale, cap)
                if mode == ADD:
                    out32[base + token, at_column + first + place] += value
                elif mode == LOGITS:
                    out32[base + token, at_column + first + place] = value
                else:
                    out[base + token, at_column + first + place] = to_bfloat16(value)

    return matvec
