"""Step four on the device: count tokens, add up, and write them one after another."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.cuda.find_pieces import TOTAL, WINDOW
from numbatch.kernels.tokenization.cuda.look_up import ones, write_places

__all__ = ["SCAN_THREADS", "TILE", "add_tiles", "count_tokens", "gather_ids", "text_ends"]

TILE = threads_of(256, 8)
"""Windows of a block."""
TILE_BYTES = TILE * WINDOW
SCAN_THREADS = threads_of(512, 4)


@cpu_device
def _bits_before(mask, at):
    return mask & ((np.uint64(1) << (np.uint64(at) & np.uint64(63))) - np.uint64(1))


bits_before = shared_body(_bits_before)


@cuda_device
def _running_sums(sums, thread, size):
    """Replace the numbers of a block by their running sums."""
    step = 1
    while step < size:
        more = 0
        if thread >= step:
            more = sums[thread - step]
        cuda.syncthreads()
        sums[thread] += more
        cuda.syncthreads()
        step *= 2


@cuda_kernel
def count_tokens(masks, windows, tiles):
    """Write how many bits are set in each 256 masks."""
    sums = cuda.shared.array(TILE, np.int32)
    thread = cuda.threadIdx.x
    window = cuda.grid(1)
    sums[thread] = ones(masks[window]) if window < windows else 0
    cuda.syncthreads()
    step = TILE // 2
    while step > 0:
        if thread < step:
            sums[thread] += sums[thread + step]
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        tiles[cuda.blockIdx.x] = sums[0]


@cuda_kernel
def add_tiles(tiles, count, counters):
    """Replace the tiles' numbers by the sums of those before; the whole is ``counters[0]``.

    One block of 512 threads, each with a run of tiles.
    """
    sums = cuda.shared.array(SCAN_THREADS, np.int64)
    thread = cuda.threadIdx.x
    share = (count + SCAN_THREADS - 1) // SCAN_THREADS
    low, high = min(thread * share, count), min((thread + 1) * share, count)
    own = np.int64(0)
    for i in range(low, high):
        own += tiles[i]
    sums[thread] = own
    cuda.syncthreads()
    _running_sums(sums, thread, SCAN_THREADS)
    total = sums[thread] - own
    for i in range(low, high):
        here = tiles[i]
        tiles[i] = total
        total += here
    if thread == SCAN_THREADS - 1:
        counters[TOTAL] = total


@cuda_kernel
def gather_ids(ids, masks, windows, tiles, bases, out):
    """Write the ids whose bits are set to ``out``, and how many lie before each window.

    No error check. A block has 256 windows.
    """
    places = cuda.shared.array(TILE_BYTES, np.uint16)
    sums = cuda.shared.array(TILE, np.int32)
    thread = cuda.threadIdx.x
    window = cuda.grid(1)
    mask = np.uint64(0)
    if window < windows:
        mask = masks[window]
    own = ones(mask)
    sums[thread] = own
    cuda.syncthreads()
    _running_sums(sums, thread, TILE)
    before = sums[thread] - own
    base = tiles[cuda.blockIdx.x]
    if window < windows:
        bases[window] = base + before
    write_places(mask, thread * WINDOW, places, before)
    cuda.syncthreads()
    count = sums[TILE - 1]
    first = np.int64(cuda.blockIdx.x) * TILE_BYTES
    i = thread
    while i < count:
        out[base + i] = ids[first + np.int64(places[i])]
        i += TILE


@cuda_kernel
def text_ends(offsets, masks, bases, out):
    """Write where the ids of each text begin and end: int64, shape (texts + 1,)."""
    i = cuda.grid(1)
    if i < offsets.size:
        at = offsets[i]
        out[i] = bases[at >> 6] + ones(bits_before(masks[at >> 6], at))
