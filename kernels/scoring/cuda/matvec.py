"""Products of weights with a few inputs, as fast as the weights can be read.

A block takes 16 rows of weights; its eight warps share the columns among them, each a fixed
range, and their sums are added in order. So an output's bits depend on its row and its input alone,
not on how many inputs there are.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.matvec_stages import ROW_BYTES, add_stage, copy_few
from numbatch.kernels.scoring.cuda.product_sums import in_order, store_part
from numbatch.kernels.scoring.cuda.results import GATED, write_result
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    copy_words,
    finish_copies,
    shared_address,
    zero_tile,
)

__all__ = ["MOST_INPUTS", "THREADS", "UNIT", "WARPS", "matvec_blocks", "matvec_kernel", "tiles_of"]

UNIT = 256
"""Columns that a warp takes at a time; rows of weights and inputs are padded to a multiple."""

WARPS = 8
THREADS = 32 * WARPS

MOST_INPUTS = 16
"""Inputs that a block takes; more are shared out over blocks that read the same weights."""

STAGE_BYTES = 16 * ROW_BYTES
"""Bytes of weights that a warp copies at a time: of 16 rows."""

SECTOR = 16
"""Numbers that the first cache asks for together."""

_STEPS = {"plain": (64, 0, 0), "nibbles": (32, 8, 16), "bytes": (32, 4, 8)}
"""Elements of weights and of scales in a row of a stage, and bytes of these scales."""


def tiles_of(tokens: int) -> int:
    """Return how :func:`matvec_kernel` is asked for the kernel for so many inputs."""
    return 0 if tokens == 1 else 1 if tokens <= 8 else 2


def matvec_blocks(mode: int, rows: int, tokens: int) -> tuple[int, int]:
    """Return the blocks that a product of so many results (``GATED``: of the gate) needs.

    Blocks that share weights come after one another, so that these are read from memory once.
    """
    return -(-tokens // MOST_INPUTS), -(-rows // (8 if mode == GATED else 16))


@functools.cache
def _stage_copier(kind: str, has_least: bool) -> Any:
    """Return the function that begins to copy a stage of a warp's weights, and their scales."""
    step, scale_step, scale_bytes = _STEPS[kind]
    piece = 16 // (2 if kind == "plain" else 4)
    is_plain, is_wide = kind == "plain", scale_bytes == 16

    @cuda_device
    def copy_scales(address, scales, first, apart, most, stage, lane):
        """Copy the scales of 16 rows, a lane those of one."""
        if lane < 16:
            row = min(first + np.intp(lane & 7) + np.intp(lane >> 3) * apart, most)
            at = row * scales.shape[1] + stage * scale_step
            place = address + np.uint32(lane * np.int32(scale_bytes))
            if is_wide:
                copy_words(place, scales, at, True)
            else:
                copy_few(place, scales, at, 8, True)

    @cuda_device
    def copy_stage(address, weights, scales, leasts, first, apart, stage, lane):
        most, wide = weights.shape[0] - 1, weights.shape[1]
        column = stage * step + np.intp(lane & 7) * piece
        for i in range(4):
            # A lane copies a piece of four lines; lines 8 to 15 are the rows ``apart`` below.
            line = np.int32((lane >> 3) + np.int32(4 * i))
            row = min(first + np.intp(line & 7) + np.intp(line >> 3) * apart, most)
            turn = (line & 1) if scale_bytes == 8 and not is_plain else ((line & 1) << 2)
            place = np.uint32(line * np.int32(ROW_BYTES) + (((lane & 7) ^ turn) << 4))
            copy_words(address + place, weights, row * wide + column, True)
        if not is_plain:
            behind = address + np.uint32(STAGE_BYTES)
            copy_scales(behind, scales, first, apart, most, stage, lane)
            if has_least:
                further = behind + np.uint32(16 * scale_bytes)
                copy_scales(further, leasts, first, apart, most, stage, lane)

    return copy_stage


@functools.cache
def _input_copier(columns: int, tiles: int, place: int) -> Any:
    """Return the function that begins to bring a stage of the inputs near.

    Few blocks on a multiprocessor read the same inputs: read only where they are used, from the
    second cache, they took longer than all else. One input comes to ``place`` in a stage, of
    several (``tiles`` > 0) the first cache gets what is needed, and ``place`` a few bytes of it.
    """
    sectors = columns // SECTOR

    @cuda_device
    def copy_input(address, x, begin, here, stage, lane):
        if lane < columns // 8:
            at = stage * columns + np.intp(lane) * 8
            copy_words(address + np.uint32(np.int32(place) + (lane << 4)), x, at, True)

    @cuda_device
    def touch_inputs(address, x, begin, here, stage, lane):
        own = np.intp(lane) // sectors
        at = (begin + own) * x.shape[1] + stage * columns + np.intp(lane) % sectors * SECTOR
        for i in range(8 * tiles * sectors // 32):
            token = own + i * (32 // sectors)
            copy_few(
                address + np.uint32(np.int32(place) + (lane << 2)), x,
                at + i * (32 // sectors) * x.shape[1], 4, token < here,
            )  # fmt: skip

    return touch_inputs if tiles else copy_input


@functools.cache
def matvec_kernel(kind: str, tiles: int, has_least: bool = False) -> Any:
    """Return the kernel for ``plain``, ``nibbles`` or ``bytes`` and up to ``8 * tiles`` inputs.

    ``tiles`` is 0 for one input; see :func:`tiles_of`. ``has_least``: the nibbles have leasts.

    It is launched with :func:`matvec_blocks` blocks of ``THREADS`` threads.
    """
    is_one, tiles_held = tiles == 0, max(tiles, 1)
    numbers = 4 * tiles_held
    tokens_held = 8 * tiles_held
    scale_bytes = _STEPS[kind][2]
    columns = {"plain": 64, "nibbles": 256, "bytes": 128}[kind]
    per_unit = UNIT // columns
    depth = 2
    left = depth - 1
    x_place = STAGE_BYTES + 16 * scale_bytes * (1 + has_least)
    stage_bytes = x_place + (2 * columns if is_one else 128)
    own_bytes = depth * stage_bytes
    # The sums of all warps lie in the same memory at the end.
    floats = max(WARPS * own_bytes // 4, WARPS * 16 * tokens_held)
    lane_bytes, lane_turn = (32, 16) if kind == "bytes" else (16, 64)
    copy_stage = _stage_copier(kind, has_least)
    copy_inputs = _input_copier(columns, tiles, x_place)
    # Three blocks at a time instead of two: 28.5 instead of 31.2 us for 28,672 x 4,096.
    registers = 80 if kind == "nibbles" and is_one and not has_least else None

    @cuda_kernel(fast=True, registers=registers)
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
        shared = cuda.shared.array(floats, np.float32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        group, four = lane >> 2, lane & 3
        # Rows of a block's results; where they are activated, as many of the up product's besides.
        bits = np.int32(3) if mode == GATED else np.int32(4)
        first = np.intp(cuda.blockIdx.y) << bits
        distance = np.intp(apart if mode == GATED else 8)
        units = np.int32(x.shape[1] // UNIT)
        stage = np.int32(warp * units // np.int32(WARPS) * np.int32(per_unit))
        end = np.int32((warp + 1) * units // np.int32(WARPS) * np.int32(per_unit))
        base = shared_address(shared) + np.uint32(warp * np.int32(own_bytes))
        begin = np.intp(cuda.blockIdx.x) * tokens_held
        here = min(np.intp(tokens) - begin, np.intp(tokens_held))
        for ahead in range(depth):
            if stage + ahead < end:
                place = base + np.uint32(ahead * stage_bytes)
                following = np.intp(stage + ahead)
                copy_stage(place, weights, scales, leasts, first, distance, following, lane)
                copy_inputs(place, x, begin, here, following, lane)
            finish_copies()
        at = np.intp(stage) * columns + np.intp(four) * 8
        a0 = (begin + min(np.intp(group), here - 1)) * x.shape[1] + at
        a1 = (begin + min(np.intp(group) + 8, here - 1)) * x.shape[1] + at
        own = np.uint32(group * np.int32(ROW_BYTES) + four * np.int32(lane_bytes)) + np.uint32(
            (group & 1) * np.int32(lane_turn)
        )
        own_scale = np.uint32(np.int32(STAGE_BYTES) + group * np.int32(scale_bytes))
        total = zero_tile(numbers)
        slot = np.int32(0)
        while stage < end:
            copies_done(left)
            cuda.syncwarp()
            place = base + np.uint32(slot * np.int32(stage_bytes))
            if is_one:
                x_at = place + np.uint32(np.int32(x_place) + (four << 4))
            else:
                x_at = (a0, a1)
            total = add_stage(total, place + own, place + own_scale, x, x_at, kind, has_least)
            a0, a1 = a0 + columns, a1 + columns
            cuda.syncwarp()
            if stage + np.int32(depth) < end:
                following = np.intp(stage + np.int32(depth))
                copy_stage(place, weights, scales, leasts, first, distance, following, lane)
                copy_inputs(place, x, begin, here, following, lane)
            finish_copies()
            stage = np.int32(stage + 1)
            slot = np.int32(slot + 1) if slot + 1 < depth else np.int32(0)
        cuda.syncthreads()  # nobody reads weights any more
        rest = (np.intp(warp) * tokens_held + 2 * np.intp(four)) * 16 + np.intp(group)
        store_part(total, shared, rest, tiles_held, 0, tiles_held, 16)
        cuda.syncthreads()
        for i in range(thread, np.int32(here) << bits, np.int32(THREADS)):
            token, place = np.intp(i >> bits), np.intp(i & ((np.int32(1) << bits) - 1))
            if first + place < rows:
                value, below = np.float32(0), np.float32(0)
                for other in range(WARPS):
                    value = in_order(value, shared[(other * tokens_held + token) * 16 + place])
                if mode == GATED:
                    for other in range(WARPS):
                        lower = (other * tokens_held + token) * 16 + place + 8
                        below = in_order(below, shared[lower])
                write_result(
                    mode, value, below, code, scale, cap, begin + token,
                    at_column + first + place, out, out32,
                )  # fmt: skip

    return matvec
