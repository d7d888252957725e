"""Step one on the device: where pieces begin, as a mask of a bit for each byte.

A thread has a window of 64 bytes. It starts at the first sure boundary in its window, goes on piece
by piece, and stops at the first sure boundary behind its window, where the next thread that has one
starts. So each piece is found once, by the same function as on the CPU.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.device_offsets import count_wrong
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.cuda.boundaries import (
    first_boundary,
    first_invalid,
    is_boundary,
)
from numbatch.kernels.tokenization.split_scalar import piece_end

__all__ = ["COUNTERS", "WINDOW", "find_pieces", "prepare"]

WINDOW = 64
"""Bytes of a thread, and bits of a mask."""
TOTAL, INVALID, DECREASING, SHORT_COUNT, MIDDLE_COUNT, LONG_COUNT, HOST_COUNT = range(7)
"""Places in the counters (int64)."""
COUNTERS = 8


@cpu_device
def _text_with(offsets, low, high, at):
    """Return the last row from ``low`` to ``high`` that begins at or before ``at``."""
    while low < high:
        middle = (low + high + 1) >> 1
        if offsets[middle] <= at:
            low = middle
        else:
            high = middle - 1
    return low


@cpu_device
def _any_high_bit(words, window):
    """Return whether one of the 64 bytes of a window is not ASCII."""
    found = np.uint64(0)
    for i in range(8):
        found |= words[8 * window + i]
    return found & np.uint64(0x8080808080808080) != np.uint64(0)


@cpu_device
def _bit(at):
    return np.uint64(1) << (np.uint64(at) & np.uint64(63))


text_with = shared_body(_text_with)
any_high_bit = shared_body(_any_high_bit)
bit = shared_body(_bit)
boundary_here = shared_body(is_boundary)
boundary_from = shared_body(first_boundary)
invalid_from = shared_body(first_invalid)
end_of_piece = shared_body(piece_end)


@cuda_kernel
def prepare(source, copy, size, whole, offsets, masks, counters):
    """Copy the texts, clear the masks, and count the offsets that do not describe rows.

    Copies ``size`` bytes to ``copy``, and zeros up to ``whole``, a multiple of 64; there is a mask
    for each 64 of these but the last.
    """
    i = cuda.grid(1)
    at = 8 * i
    if at < whole:
        for j in range(8):
            copy[at + j] = source[at + j] if at + j < size else 0
    if i < masks.size and i < whole // WINDOW - 1:
        masks[i] = 0
    while i < offsets.size:
        count_wrong(offsets, i, size, counters, DECREASING)
        i += cuda.gridsize(1)


@cuda_device
def _note_invalid(text, words, begin, end, low, high, window, counters):
    if any_high_bit(words, window) and invalid_from(text, begin, end, low, high) >= 0:
        cuda.atomic.add(counters, INVALID, 1)


@cuda_kernel
def find_pieces(text, words, size, offsets, rules, classes, masks, counters):
    """Set the bit of each byte that begins a piece; count what is wrong. No other check.

    Parameters
    ----------
    text : uint8 array
        With 64 zeros behind the ``size`` bytes of the texts; ``words`` is the same as uint64.
    offsets : int64 array, shape (texts + 1,)
    rules : int
    classes : uint8 array
    masks : uint64 array, shape (windows,)
        Bits of the windows, zero before.
    counters : int64 array
        ``INVALID`` is raised where there is a byte that is no UTF-8. Nothing is done where
        :func:`prepare` has counted wrong offsets.
    """
    window = cuda.grid(1)
    low = window * WINDOW
    if low >= size or counters[DECREASING] > 0:  # such offsets would be followed for ever
        return
    high = min(low + WINDOW, size)
    row = text_with(offsets, 0, offsets.size - 2, low)
    begin, end = offsets[row], offsets[row + 1]
    at = low
    while True:  # check the texts that lie in the window
        _note_invalid(text, words, begin, end, at, min(high, end), window, counters)
        if end >= high:
            break
        at = end
        row = text_with(offsets, row, offsets.size - 2, at)
        begin, end = offsets[row], offsets[row + 1]
    row = text_with(offsets, 0, row, low)
    begin, end = offsets[row], offsets[row + 1]
    at = boundary_from(text, begin, low, min(high, end), rules, classes)
    if at < 0:
        if end >= high:
            return
        at = end
    here = at >> 6
    found = np.uint64(0)
    while True:
        if at == end:  # the next text begins: that is sure
            if at >= high:
                break
            row = text_with(offsets, row, offsets.size - 2, at)
            begin, end = offsets[row], offsets[row + 1]
        elif at >= high and boundary_here(text, begin, at, rules, classes):
            break
        if at >> 6 != here:
            cuda.atomic.or_(masks, here, found)
            here, found = at >> 6, np.uint64(0)
        found |= bit(at)
        at = min(end_of_piece(text, at, end, rules, classes), end)
    cuda.atomic.or_(masks, here, found)
