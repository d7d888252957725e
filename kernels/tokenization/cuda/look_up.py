"""Step two on the device: the pieces that are one token, and lists of those that are not."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.byte_pairs import NEVER
from numbatch.kernels.tokenization.cuda.find_pieces import (
    HOST_COUNT,
    LONG_COUNT,
    MIDDLE_COUNT,
    SHORT_COUNT,
    WINDOW,
)
from numbatch.kernels.tokenization.cuda.tables import KEY_BYTES, find_key, key_words
from numbatch.kernels.tokenization.tables import StringTable, find_string
from numbatch.kernels.words import count_ones, trailing_zeros

__all__ = [
    "LENGTH_BITS",
    "LONGEST",
    "LOOK_UP_THREADS",
    "MIDDLE",
    "SHORT",
    "TILE_WINDOWS",
    "look_up",
]

TILE_WINDOWS = threads_of(64, 8)
"""Windows of a block."""
TILE_BYTES = TILE_WINDOWS * WINDOW
LOOK_UP_THREADS = threads_of(128, 8)
SHORT, MIDDLE, LONGEST = 24, 64, 2048
"""Bytes of a piece that a thread merges quickly, slowly, and that a block merges."""
LENGTH_BITS = 12
"""An entry of a list is ``start << LENGTH_BITS | length``, of the last list only a start."""
_1 = np.uint64(1)


@cpu_device
def _known_piece(text, words, at, stop, entries, shift, slots, values, offsets, longest):
    """Return the id of the token that a piece is, or -1."""
    length = stop - at
    if length <= KEY_BYTES:
        low, high = key_words(words, at, length)
        return find_key(low, high, entries, shift)
    if length > longest:
        return np.intp(-1)
    return np.intp(find_string(text, at, stop, StringTable(slots, values, offsets)))


@cpu_device
def _next_start(masks, window, windows, size):
    """Return the first place whose bit is set, from a window on; ``size`` if there is none."""
    while window < windows:
        mask = masks[window]
        if mask:
            return min(WINDOW * window + trailing_zeros(mask), size)
        window += 1
    return size


@cpu_device
def _write_places(mask, at, places, count):
    """Write the places of the bits of a mask, the lowest of which is ``at``."""
    while mask:
        places[count] = at + trailing_zeros(mask)
        mask &= mask - _1
        count += 1


@cpu_device
def _part_end(text, at, stop, byte_pairs):
    """Return where the part of a piece ends that begins at ``at``: no merge reaches across."""
    at += 1
    if byte_pairs.size > 1:
        while at < stop:
            if byte_pairs[np.intp(text[at - 1]) << 8 | np.intp(text[at])] == NEVER:
                return at
            at += 1
    return stop


@cpu_device
def _ones(mask):
    return count_ones(mask)


known_piece = shared_body(_known_piece)
next_start = shared_body(_next_start)
ones = shared_body(_ones)
write_places = shared_body(_write_places)
part_end = shared_body(_part_end)


@cuda_device
def _append(kept, counters, place, entry):
    """Put an entry in a list, if there is room; the counter says how much was needed."""
    slot = cuda.atomic.add(counters, place, 1)
    if slot < kept.size:
        kept[slot] = entry


@cuda_device
def _list_piece(text, at, stop, byte_pairs, short, middle, long, host, counters):
    """Put a piece that is no token in the list of its length."""
    length = stop - at
    if length <= SHORT:
        _append(short, counters, SHORT_COUNT, at << LENGTH_BITS | length)
    elif length <= MIDDLE:
        _append(middle, counters, MIDDLE_COUNT, at << LENGTH_BITS | length)
    else:
        while at < stop:
            end = part_end(text, at, stop, byte_pairs)
            length = end - at
            if length <= SHORT:
                _append(short, counters, SHORT_COUNT, at << LENGTH_BITS | length)
            elif length <= MIDDLE:
                _append(middle, counters, MIDDLE_COUNT, at << LENGTH_BITS | length)
            elif length <= LONGEST:
                _append(long, counters, LONG_COUNT, at << LENGTH_BITS | length)
            else:
                slot = cuda.atomic.add(counters, HOST_COUNT, 1)
                if 2 * slot + 1 < host.size:
                    host[2 * slot], host[2 * slot + 1] = at, end
            at = end


@cuda_kernel
def look_up(
    text, words, size, masks, windows, entries, shift, slots, values, offsets, longest, byte_pairs,
    ids, short, middle, long, host, counters,
):  # fmt: skip
    """Write the id of each piece that is a token where it begins; list the others.

    No error check. A block has 4,096 bytes of text.

    Parameters
    ----------
    text, words, masks
        As :func:`~numbatch.kernels.tokenization.cuda.find_pieces.find_pieces` leaves them.
    ids : uint32 array, shape (bytes,)
        Modified in place.
    short, middle, long : int64 arrays
        Receive entries in any order.
    host : int64 array, shape (2 * parts,)
        Receives begins and ends of parts that are left to the host.
    """
    places = cuda.shared.array(TILE_BYTES, np.uint16)
    sums = cuda.shared.array(TILE_WINDOWS, np.int32)
    thread = cuda.threadIdx.x
    first = cuda.blockIdx.x * TILE_WINDOWS
    mask = np.uint64(0)
    if thread < TILE_WINDOWS:
        if first + thread < windows:
            mask = masks[first + thread]
        sums[thread] = ones(mask)
    cuda.syncthreads()
    step = 1
    while step < TILE_WINDOWS:
        more = 0
        if step <= thread < TILE_WINDOWS:
            more = sums[thread - step]
        cuda.syncthreads()
        if thread < TILE_WINDOWS:
            sums[thread] += more
        cuda.syncthreads()
        step *= 2
    if thread < TILE_WINDOWS:
        write_places(mask, thread * WINDOW, places, sums[thread] - ones(mask))
    cuda.syncthreads()
    count = sums[TILE_WINDOWS - 1]
    base = first * WINDOW
    i = thread
    while i < count:
        at = base + np.int64(places[i])
        if i + 1 < count:
            stop = base + np.int64(places[i + 1])
        else:
            stop = next_start(masks, first + TILE_WINDOWS, windows, size)
        row = known_piece(text, words, at, stop, entries, shift, slots, values, offsets, longest)
        if row >= 0:
            ids[at] = row
        else:
            _list_piece(text, at, stop, byte_pairs, short, middle, long, host, counters)
        i += cuda.blockDim.x
