"""Products of weights with a few inputs, as fast as the weights can be read.

A block takes 16 rows of weights; its eight warps share the columns among them, each a fixed range,
and their sums are added in order. So an output's bits depend on its row and its input alone, not on
how many inputs there are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.matvec_tiles import add_bytes, add_nibbles, add_plain
from numbatch.kernels.scoring.cuda.rows import _activation
from numbatch.kernels.scoring.cuda.tiles import zero_tile
from numbatch.kernels.scoring.cuda.words import to_bfloat16

__all__ = ["ADD", "GATED", "LOGITS", "MOST_INPUTS", "STORE", "THREADS", "UNIT", "matvec_kernel"]

STORE, ADD, LOGITS, GATED = 0, 1, 2, 3
"""What is done with a product: stored as bfloat16, added to float32, scaled, capped and stored as
float32, or activated and multiplied with that of the row ``apart`` below."""

UNIT = 256
"""Columns that a warp takes at a time; rows of weights and inputs are padded to a multiple."""

WARPS = 8
THREADS = 32 * WARPS

MOST_INPUTS = 16
"""The most inputs; beyond these, weights are better read once into shared memory."""


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

    It is launched with ``rows / 16`` blocks (``GATED``: rows of the gate / 8) of ``THREADS``.
    """
    numbers = 4 * tiles
    tokens_held = 8 * tiles
    slots = WARPS * 16 * tokens_held
    unit_step, piece = {"plain": (UNIT, 8), "nibbles": (UNIT // 8, 4), "bytes": (UNIT // 4, 8)}[
        kind
    ]
    is_plain, is_nibbles = kind == "plain", kind == "nibbles"

    @cuda_kernel(fast=True)
    def matvec(
        weights, scales, leasts, rows, x, tokens, mode, apart, code, scale, cap, at_column, out,
        out32,
    ):  # fmt: skip
        """Multiply 16 rows of weights (block x) with all inputs. No error check.

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
        first = np.intp(cuda.blockIdx.x) * (8 if mode == GATED else 16)
        lower = apart if mode == GATED else 8
        row = min(first + group, rows - 1)
        row_below = min(first + lower + group, weights.shape[0] - 1)
        units = x.shape[1] // UNIT
        begin, end = np.intp(warp) * units // WARPS, (np.intp(warp) + 1) * units // WARPS
        total = zero_tile(numbers)
        a0 = min(group, tokens - 1) * x.shape[1] + four * 8
        a1 = min(group + 8, tokens - 1) * x.shape[1] + four * 8
        for unit in range(begin, end):
            column = unit * unit_step + four * piece
            at = (row * weights.shape[1] + column, row_below * weights.shape[1] + column)
            x_at = (a0 + unit * UNIT, a1 + unit * UNIT)
            if is_plain:
                total = add_plain(total, weights, at, x, x_at)
            else:
                blocks = unit * (UNIT // 32)
                scale_at = (
                    row * scales.shape[1] + blocks, row_below * scales.shape[1] + blocks
                )  # fmt: skip
                if not is_nibbles:
                    total = add_bytes(total, weights, at, scales, None, scale_at, x, x_at)
                elif has_least:
                    total = add_nibbles(total, weights, at, scales, leasts, scale_at, x, x_at)
                else:
                    total = add_nibbles(total, weights, at, scales, None, scale_at, x, x_at)
        spread(total, shared, warp, group, four)
        cuda.syncthreads()
        height = 8 if mode == GATED else 16
        for i in range(thread, height * tokens, THREADS):
            token, own = i // height, i % height
            if first + own < rows:
                value, below = shared[own * tokens_held + token], np.float32(0)
                for other in range(1, WARPS):
                    value += shared[(other * 16 + own) * tokens_held + token]
                if mode == GATED:
                    below = shared[(own + 8) * tokens_held + token]
                    for other in range(1, WARPS):
                        below += shared[(other * 16 + own + 8) * tokens_held + token]
                value = _finish(mode, value, below, code, scale, cap)
                if mode == ADD:
                    out32[token, at_column + first + own] += value
                elif mode == LOGITS:
                    out32[token, at_column + first + own] = value
                else:
                    out[token, at_column + first + own] = to_bfloat16(value)

    @cuda_device
    def spread(total, shared, warp, group, four):
        """Write a warp's sums to shared memory: warp, row, token."""
        own = (np.intp(warp) * 16 + group) * tokens_held + 2 * four
        below = own + 8 * tokens_held
        shared[own], shared[own + 1] = total[0], total[1]
        shared[below], shared[below + 1] = total[2], total[3]
        if tiles == 2:
            shared[own + 8], shared[own + 9] = total[numbers - 4], total[numbers - 3]
            shared[below + 8], shared[below + 9] = total[numbers - 2], total[numbers - 1]

    return matvec
