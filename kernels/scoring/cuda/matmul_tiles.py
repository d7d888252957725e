"""Products of bfloat16 weights with many inputs, whose bits are those of products with few.

A block takes a tile of rows and a tile of tokens; weights and inputs come through shared memory, 32
columns at a time, while those before are worked on. Sums are taken in the order of ``matvec``: the
columns of a row are cut into the same eight ranges, within each the same sixteen columns meet in
one tensor-core product, and the ranges' sums are added in order.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.matvec import UNIT, WARPS
from numbatch.kernels.scoring.cuda.product_sums import add_chunk, in_order, store_part
from numbatch.kernels.scoring.cuda.results import GATED, write_result
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    copy_words,
    finish_copies,
    shared_address,
    zero_tile,
)

__all__ = ["FEWEST_INPUTS", "THREADS", "multiply_tiles_kernel", "tile_blocks", "tile_sizes"]

THREADS = 256
FEWEST_INPUTS = 65
"""Below, products with few inputs are as fast."""

CHUNK = 32
"""Columns in a stage; 64 bytes of a row."""

STAGES = 3
TOGETHER = 8
"""Tiles of rows whose blocks run at about the same time, so that they share inputs."""

_WARPS_DOWN, _WARPS_ACROSS = 4, 2


def tile_sizes(mode: int, rows: int, tokens: int, multiprocessors: int) -> tuple[int, int]:
    """Return how many 16-row tiles and 8-token tiles a warp takes: large, if blocks are many.

    Tiles twice as wide are not faster: then a multiprocessor has one block, and all of it waits.
    """
    return (2, 4) if tile_blocks(mode, rows, tokens, 2, 4) >= multiprocessors else (1, 4)


def tile_blocks(mode: int, rows: int, tokens: int, down: int, across: int) -> int:
    """Return the blocks that a product of so many results (``GATED``: of the gate) needs."""
    height = _WARPS_DOWN * down * (8 if mode == GATED else 16)
    return -(-rows // height) * -(-tokens // (_WARPS_ACROSS * across * 8))


@cuda_device
def _tile_of_block(row_tiles, token_tiles):
    """Return the tiles of this block: some tiles of rows go through all tokens together."""
    block = np.int32(cuda.blockIdx.x)
    in_group = np.int32(TOGETHER) * token_tiles
    group = block // in_group
    first = np.int32(group * np.int32(TOGETHER))
    height = min(np.int32(row_tiles - first), np.int32(TOGETHER))
    place = np.int32(block - group * in_group)
    return np.int32(first + place % height), np.int32(place // height)


@functools.cache
def multiply_tiles_kernel(down: int, across: int) -> Any:
    """Return the kernel for so many 16-row tiles and 8-token tiles (an even number) a warp.

    It is launched with :func:`tile_blocks` blocks of ``THREADS`` threads.
    """
    height, width = _WARPS_DOWN * down * 16, _WARPS_ACROSS * across * 8
    weight_bytes = 64 * height
    stage_bytes = weight_bytes + 64 * width
    numbers = 4 * down * across
    half = across // 2
    held = _WARPS_ACROSS * half * 8
    apart = height + 4  # lest the tokens of a store lie in the same banks
    floats = max(STAGES * stage_bytes // 4, held * apart)
    chunks_of_unit = UNIT // CHUNK

    @cuda_device
    def copy_tile(base, x, first, most, lines, stage, thread):
        for i in range(lines * 4 // THREADS):
            at = thread + np.int32(i * THREADS)
            row = min(first + np.intp(at >> 2), most)
            column = np.intp(stage) * CHUNK + np.intp(at & 3) * 8
            copy_words(base + np.uint32(at << 4), x, row * x.shape[1] + column, True)

    @cuda_device
    def copy_weights(base, weights, first, distance, bits, stage, thread):
        most = weights.shape[0] - 1
        for i in range(height * 4 // THREADS):
            at = thread + np.int32(i * THREADS)
            line = at >> 2
            # Of 16 rows the first eight are a gate's, the others the up product's, or the next.
            own = np.intp(((line >> 4) << bits) + (line & 7)) + np.intp((line >> 3) & 1) * distance
            row = min(first + own, most)
            column = np.intp(stage) * CHUNK + np.intp(at & 3) * 8
            copy_words(base + np.uint32(at << 4), weights, row * weights.shape[1] + column, True)

    @cuda_kernel(fast=True)
    def multiply_tiles(
        weights, rows, x, first_token, tokens, mode, apart_rows, code, scale, cap, at_column, out,
        out32,
    ):  # fmt: skip
        """Multiply a tile of rows of weights with a tile of inputs. No error check.

        Parameters as for ``matvec``; ``first_token`` is the row of ``x`` that becomes row 0.
        """
        shared = cuda.shared.array(floats, np.float32)
        thread = np.int32(cuda.threadIdx.x)
        lane, warp = thread & 31, thread >> 5
        group, four = lane >> 2, lane & 3
        bits = np.int32(3) if mode == GATED else np.int32(4)
        rows_here = np.int32(height >> 1) if mode == GATED else np.int32(height)
        distance = np.intp(apart_rows if mode == GATED else 8)
        row_tiles = np.int32((rows + rows_here - 1) // rows_here)
        token_tiles = np.int32((tokens + width - 1) // width)
        row_tile, token_tile = _tile_of_block(row_tiles, token_tiles)
        first, begin = np.intp(row_tile) * rows_here, np.intp(token_tile) * width
        most = np.intp(first_token) + tokens - 1
        units = np.int32(x.shape[1] // UNIT)
        stages = np.int32(units * np.int32(chunks_of_unit))
        base = shared_address(shared)
        down_at, across_at = warp // np.int32(_WARPS_ACROSS), warp % np.int32(_WARPS_ACROSS)
        lane_at = np.int32(64) * group + np.int32(16) * four
        own = np.uint32(down_at * np.int32(1024 * down) + lane_at)
        own_tokens = np.uint32(
            np.int32(weight_bytes) + across_at * np.int32(512 * across) + lane_at
        )
        for ahead in range(STAGES - 1):
            place = base + np.uint32(ahead * stage_bytes)
            copy_weights(place, weights, first, distance, bits, ahead, thread)
            copy_tile(
                place + np.uint32(weight_bytes), x, first_token + begin, most, width, ahead, thread
            )
            finish_copies()
        total, part = zero_tile(numbers), zero_tile(numbers)
        part_of = np.int32(1)
        end = np.int32(units // np.int32(WARPS) * np.int32(chunks_of_unit))
        slot, free = np.int32(0), np.int32(STAGES - 1)
        for stage in range(stages):
            copies_done(1)
            cuda.syncthreads()  # this stage is there, and nobody reads the one before any more
            if stage + STAGES - 1 < stages:
                place = base + np.uint32(free * np.int32(stage_bytes))
                copy_weights(place, weights, first, distance, bits, stage + STAGES - 1, thread)
                copy_tile(
                    place + np.uint32(weight_bytes), x, first_token + begin, most, width,
                    stage + STAGES - 1, thread,
                )  # fmt: skip
            finish_copies()
            place = base + np.uint32(slot * np.int32(stage_bytes))
            while stage == end:
                total, part = in_order(total, part), zero_tile(numbers)
                part_of = np.int32(part_of + 1)
                end = np.int32(part_of * units // np.int32(WARPS) * np.int32(chunks_of_unit))
            part = add_chunk(part, place + own, place + own_tokens, across)
            free, slot = slot, np.int32(slot + 1) if slot + 1 < STAGES else np.int32(0)
        total = in_order(total, part)

        across_first = np.intp(across_at) * (half * 8)
        row_at = np.intp(down_at) * (16 * down) + np.intp(group)
        rest = (across_first + 2 * np.intp(four)) * apart + row_at
        for side in range(2):
            cuda.syncthreads()  # nobody reads what lies there any more
            if side == 0:
                store_part(total, shared, rest, across, 0, half, apart)
            else:
                store_part(total, shared, rest, across, half, half, apart)
            cuda.syncthreads()
            for i in range(thread, np.int32(held) * rows_here, np.int32(THREADS)):
                line, place = np.intp(i // rows_here), np.intp(i % rows_here)
                # The warps' shares of this half of the tokens lie one after the other.
                token = begin + line // (half * 8) * (across * 8) + side * (half * 8)
                token += line % (half * 8)
                if first + place < rows and token < tokens:
                    source = place
                    if mode == GATED:
                        source = (place >> 3) * 16 + (place & 7)
                    value = shared[line * apart + source]
                    below = shared[line * apart + source + 8] if mode == GATED else value
                    write_result(
                        mode, value, below, code, scale, cap, token, at_column + first + place,
                        out, out32,
                    )  # fmt: skip

    return multiply_tiles
