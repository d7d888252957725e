"""What a text must not hold for its ids to be found on the device.

Added tokens, and characters that a normalizer may change.
"""

from __future__ import annotations

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.composition import is_unsure
from numbatch.kernels.tokenization.tables import (
    HASH_START,
    StringTable,
    extend_hash,
    find_hashed_string,
)

__all__ = ["count_literals", "count_unsure", "insert_start"]


@cpu_device
def _literal_at(text, at, size, reach, slots, values, offsets):
    """Return whether a literal begins at a place."""
    table = StringTable(slots, values, offsets)
    state = HASH_START
    for stop in range(at + 1, min(at + reach[text[at]], size) + 1):
        state = extend_hash(state, text[stop - 1])
        if find_hashed_string(state, text, at, stop, table) >= 0:
            return True
    return False


literal_at = shared_body(_literal_at)
unsure_at = shared_body(is_unsure)


@cuda_kernel
def count_literals(text, size, reach, slots, values, offsets, counters):
    """Raise ``counters[0]`` for each place where a literal begins, across texts too.

    No error check. ``reach`` (int64, shape (256,)) is the length of the longest by its first byte.
    """
    at = cuda.grid(1)
    if (
        at < size
        and reach[text[at]] > 0
        and literal_at(text, at, size, reach, slots, values, offsets)
    ):
        cuda.atomic.add(counters, 0, 1)


@cuda_kernel
def count_unsure(text, size, table, counters):
    """Raise ``counters[0]`` for each character that form NFC may change; no error check."""
    at = cuda.grid(1)
    if at < size and text[at] >= 0xC0 and unsure_at(text, at, size, table):
        cuda.atomic.add(counters, 0, 1)


@cuda_kernel
def insert_start(ids, offsets, start, out, out_offsets):
    """Copy each row with ``start`` before it, a block a row; no error check."""
    row = cuda.blockIdx.x
    low, high = offsets[row], offsets[row + 1]
    base = low + row
    i = cuda.threadIdx.x
    if i == 0:
        out[base] = start
        out_offsets[row + 1] = high + row + 1
        if row == 0:
            out_offsets[0] = 0
    while i < high - low:
        out[base + 1 + i] = ids[low + i]
        i += cuda.blockDim.x
