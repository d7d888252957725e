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
    add_bytes,
    add_nibbles,
    add_plain,
    store_sums,
)
from numbatch.kernels.scoring.cuda.rows import _activation
from numbatch.kernels.scoring.cuda.tiles import zero_tile
from numbatch.kernels.scoring.cuda.words import to_bfloat16

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
    is_plain, is_nibbles = kind == "plain", kind == "nibbles"

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
        for unit in range(begin, end):
            column = unit * unit_step + four * piece
            at = (row * wide + column, row_below * wide + column)
            x_at = (a0 + unit * UNIT, a1 + unit * UNIT)
            block = unit * (UNIT // 32)
            scale_at = (row * blocks + block, row_below * blocks + block)
            if is_plain:
                total = add_plain(total, weights, at, x, x_at)
            elif not is_nibbles:
                total = add_bytes(total, weights, at, scales, None, scale_at, x, x_at)
            elif has_least:
                total = add_nibbles(total, weights, at, scales, leasts, scale_at, x, x_at)
            else:
                total = add_nibbles(total, weights, at, scales, None, scale_at, x, x_at)
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
