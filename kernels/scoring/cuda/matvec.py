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
from numbatch.kernels.scoring.cuda.matvec_stages import (
    ROW_BYTES,
    add_stage,
    copy_few,
    store_shared,
)
from numbatch.kernels.scoring.cuda.overlap import await_previous, begin_next
from numbatch.kernels.scoring.cuda.product_sums import in_order, store_part
from numbatch.kernels.scoring.cuda.results import GATED, write_result
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    copy_words,
    finish_copies,
    shared_address,
    zero_tile,
)
from numbatch.kernels.scoring.cuda.words import load_words

__all__ = [
    "MOST_INPUTS",
    "THREADS",
    "UNIT",
    "WARPS",
    "goes_on_to_further_rows",
    "matvec_blocks",
    "matvec_kernel",
    "tiles_of",
]

UNIT = 256
"""Columns that a warp takes at a time; rows of weights and inputs are padded to a multiple."""

WARPS = 8
THREADS = 32 * WARPS

MOST_INPUTS = 16
"""Inputs that a block takes; more are shared out over blocks that read the same weights."""

STAGE_BYTES = 16 * ROW_BYTES
"""Bytes of weights that a warp copies at a time: of 16 rows."""

BLOCKS_AT_ONCE = 3
"""Blocks of the kernel for one input that run on a multiprocessor. With as many in all, 28,672 x
4,096 4-bit weights took 23.1 us in a graph on an H200, with one for each 16 rows 25.0."""

SHARED_BYTES = 48 << 10
"""Shared memory that a block may have."""

SECTOR = 16
"""Numbers that the first cache asks for together."""

_STEPS = {"plain": (64, 0, 0), "nibbles": (32, 8, 16), "bytes": (32, 4, 8)}
"""Elements of weights and of scales in a row of a stage, and bytes of these scales."""


_COLUMNS = {"plain": 64, "nibbles": 256, "bytes": 128}
"""Columns of a stage."""

DEPTH = 2
"""Stages of a warp that are under way at a time."""


def tiles_of(tokens: int) -> int:
    """Return how :func:`matvec_kernel` is asked for the kernel for so many inputs."""
    return 0 if tokens == 1 else 1 if tokens <= 8 else 2


def matvec_blocks(
    mode: int, rows: int, tokens: int, multiprocessors: int | None = None
) -> tuple[int, int]:
    """Return the blocks that a product of so many results (``GATED``: of the gate) needs.

    Blocks that share weights come after one another, so that these are read from memory once. With
    ``multiprocessors``, and one input, there are no more blocks than run at once: each then goes
    on to further rows, whose weights are under way while it adds up those before. It is for kernels
    of which :func:`goes_on_to_further_rows` says so.
    """
    groups = -(-rows // (8 if mode == GATED else 16))
    if multiprocessors is not None and tokens == 1:
        groups = min(groups, BLOCKS_AT_ONCE * multiprocessors)
    return -(-tokens // MOST_INPUTS), groups


@functools.cache
def goes_on_to_further_rows(kind: str, tiles: int, has_least: bool) -> bool:
    """Whether a block can take several groups of rows, so that there may be fewer blocks.

    Its sums need room behind the stages, where weights of the next group are under way.
    """
    inputs = 128 if tiles else 2 * _COLUMNS[kind]
    stage = STAGE_BYTES + 16 * _STEPS[kind][2] * (1 + has_least) + inputs
    return WARPS * (DEPTH * stage + 16 * 4 * max(1, 8 * tiles)) <= SHARED_BYTES


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
def _input_copier(columns: int, tiles: int, place: int) -> tuple[Any, Any]:
    """Return the functions that bring a stage of the inputs near: at once, and begin to.

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
    def store_input(address, x, begin, here, stage, lane):
        if lane < columns // 8:
            words = load_words(x, stage * columns + np.intp(lane) * 8)
            store_shared(address + np.uint32(np.int32(place) + (lane << 4)), words)

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

    return (touch_inputs, touch_inputs) if tiles else (store_input, copy_input)


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
    columns = _COLUMNS[kind]
    per_unit = UNIT // columns
    depth = DEPTH
    left = depth - 1
    x_place = STAGE_BYTES + 16 * scale_bytes * (1 + has_least)
    stage_bytes = x_place + (2 * columns if is_one else 128)
    own_bytes = depth * stage_bytes
    # Each warp's sums, 16 rows for each token; they lie behind the stages if there is room.
    tokens_kept = 1 if is_one else tokens_held
    sums = WARPS * 16 * tokens_kept
    goes_on = goes_on_to_further_rows(kind, tiles, has_least)
    sums_at = WARPS * own_bytes // 4 if goes_on else 0
    floats = max(WARPS * own_bytes // 4, sums_at + sums)
    lane_bytes, lane_turn = (32, 16) if kind == "bytes" else (16, 64)
    copy_stage = _stage_copier(kind, has_least)
    bring_inputs, copy_inputs = _input_copier(columns, tiles, x_place)
    # Three blocks at a time instead of two: 28.5 instead of 31.2 us for 28,672 x 4,096.
    registers = 80 if kind == "nibbles" and is_one and not has_least else None

    @cuda_device
    def keep_sums(total, shared, warp, group, four):
        """Write a warp's sums where the others find them."""
        if is_one:
            if four == 0:
                place = np.intp(warp) * 16 + np.intp(group) + sums_at
                shared[place], shared[place + 8] = total[0], total[2]
        else:
            rest = (np.intp(warp) * tokens_held + 2 * np.intp(four)) * 16 + np.intp(group)
            store_part(total, shared, rest + sums_at, tiles_held, 0, tiles_held, 16)

    @cuda_device
    def added(shared, token, place):
        """Return the sum of all warps' sums, in their order."""
        value = np.float32(0)
        for warp in range(WARPS):
            at = (warp * tokens_kept + token) * 16 + place + sums_at
            value = in_order(value, shared[at])
        return value

    @cuda_kernel(fast=True, registers=registers, early=True)
    def matvec(
        weights, scales, leasts, rows, x, tokens, mode, apart, code, scale, cap, at_column, out,
        out32,
    ):  # fmt: skip
        """Multiply some groups of rows of weights with all inputs. No error check.

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
        step = np.intp(cuda.gridDim.y) << bits
        distance = np.intp(apart if mode == GATED else 8)
        units = np.int32(x.shape[1] // UNIT)
        start = np.int32(warp * units // np.int32(WARPS) * np.int32(per_unit))
        end = np.int32((warp + 1) * units // np.int32(WARPS) * np.int32(per_unit))
        base = shared_address(shared) + np.uint32(warp * np.int32(own_bytes))
        begin = np.intp(cuda.blockIdx.x) * tokens_held
        here = min(np.intp(tokens) - begin, np.intp(tokens_held))
        # The stage that is copied next: it may be of rows further on than those being added up.
        next_first, following = first, start
        begin_next()
        for ahead in range(depth):
            if next_first < rows and start < end:
                place = base + np.uint32(ahead * stage_bytes)
                at = np.intp(following)
                copy_stage(place, weights, scales, leasts, next_first, distance, at, lane)
                following = np.int32(following + 1)
                if following == end:
                    following, next_first = start, next_first + step
            finish_copies()
        await_previous()
        following, next_first = start, first
        for ahead in range(depth):
            if next_first < rows and start < end:
                place = base + np.uint32(ahead * stage_bytes)
                bring_inputs(place, x, begin, here, np.intp(following), lane)
                following = np.int32(following + 1)
                if following == end:
                    following, next_first = start, next_first + step
        own = np.uint32(group * np.int32(ROW_BYTES) + four * np.int32(lane_bytes)) + np.uint32(
            (group & 1) * np.int32(lane_turn)
        )
        own_scale = np.uint32(np.int32(STAGE_BYTES) + group * np.int32(scale_bytes))
        slot = np.int32(0)
        while first < rows:
            total = zero_tile(numbers)
            at = np.intp(start) * columns + np.intp(four) * 8
            a0 = (begin + min(np.intp(group), here - 1)) * x.shape[1] + at
            a1 = (begin + min(np.intp(group) + 8, here - 1)) * x.shape[1] + at
            stage = start
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
                if next_first < rows:
                    at = np.intp(following)
                    copy_stage(place, weights, scales, leasts, next_first, distance, at, lane)
                    copy_inputs(place, x, begin, here, at, lane)
                    following = np.int32(following + 1)
                    if following == end:
                        following, next_first = start, next_first + step
                finish_copies()
                stage = np.int32(stage + 1)
                slot = np.int32(slot + 1) if slot + 1 < depth else np.int32(0)
            if not goes_on:
                cuda.syncthreads()  # nobody reads weights any more
            keep_sums(total, shared, warp, group, four)
            cuda.syncthreads()
            for i in range(thread, np.int32(here) << bits, np.int32(THREADS)):
                token, place = np.intp(i >> bits), np.intp(i & ((np.int32(1) << bits) - 1))
                if first + place < rows:
                    value, below = added(shared, token, place), np.float32(0)
                    if mode == GATED:
                        below = added(shared, token, place + 8)
                    write_result(
                        mode, value, below, code, scale, cap, begin + token,
                        at_column + first + place, out, out32,
                    )  # fmt: skip
            first += step
            if first < rows:
                cuda.syncthreads()  # before sums are written where others may still be read

    return matvec
