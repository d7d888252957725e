"""Step three on the device: merge what is no token, by a thread where it is short, else a block.

The tokens of a piece are written from its first byte on, a byte each, and their bits are set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body, threads_of
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.cuda.look_up import LENGTH_BITS, LONGEST, MIDDLE, SHORT
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge
from numbatch.kernels.words import leading_zeros, trailing_zeros

__all__ = [
    "BLOCK_THREADS",
    "merge_long_pieces",
    "merge_middle_pieces",
    "merge_short_pieces",
    "place",
]

BLOCK_THREADS = threads_of(64, 4)
"""Threads that merge one long piece."""
LENGTH = (1 << LENGTH_BITS) - 1
PLACE_BITS = 6
PLACE = (1 << PLACE_BITS) - 1
NO_MERGE = NOTHING << PLACE_BITS
_0, _1, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


@cpu_device
def _byte_symbols(text, at, stop, numbered_ids, unknown, fuse_unknown, symbols):
    """Write the numbers that merging starts from; return how many there are.

    A byte without an id is left out, or unknown where the vocabulary has an id for that.
    """
    count = np.intp(0)
    after_unknown = False
    for i in range(at, stop):
        number = np.int64(text[i])
        lacking = numbered_ids[number] < 0
        if lacking and unknown >= 0 and not (after_unknown and fuse_unknown):
            symbols[count] = unknown
            count += 1
        elif not lacking:
            symbols[count] = number
            count += 1
        after_unknown = lacking
    return count


@cpu_device
def _first_ranks(symbols, count, byte_pairs, pairs, shift, ranks):
    """Write ``rank << PLACE_BITS | place`` of each byte and the next."""
    for i in range(count - 1):
        if byte_pairs.size > 1:
            known = np.int64(byte_pairs[np.int64(symbols[i]) << 8 | np.int64(symbols[i + 1])])
            rank = min(known, np.int64(NOTHING))
        else:
            rank = np.int64(find_merge(symbols[i], symbols[i + 1], pairs, shift))
        ranks[i] = rank << PLACE_BITS | i
    ranks[count - 1] = NO_MERGE


@cpu_device
def _least(ranks, count):
    """Return the least rank; four are read before the first is compared."""
    least = np.int64(NO_MERGE)
    i = 0
    while i + 3 < count:
        a, b = np.int64(ranks[i]), np.int64(ranks[i + 1])
        c, d = np.int64(ranks[i + 2]), np.int64(ranks[i + 3])
        least = min(least, min(min(a, b), min(c, d)))
        i += 4
    while i < count:
        least = min(least, np.int64(ranks[i]))
        i += 1
    return least


@cpu_device
def _merge_in(
    text, at, stop, numbered_ids, unknown, fuse_unknown, byte_pairs, pairs, shift, symbols, ranks
):
    """Merge a piece of up to 64 bytes within arrays of its length; return the mask of what is left.

    What a pair merges to is its rank as well. Nothing is moved: the arrays are in memory that
    costs more than the arithmetic.
    """
    count = _byte_symbols(text, at, stop, numbered_ids, unknown, fuse_unknown, symbols)
    if count == 0:
        return _0
    _first_ranks(symbols, count, byte_pairs, pairs, shift, ranks)
    alive = _ALL >> np.uint64(64 - count)
    least = _least(ranks, count)
    while least < NO_MERGE:
        place = np.uint64(least & PLACE)
        here = np.intp(place)
        above = alive & ~((_1 << place << _1) - _1)
        right = trailing_zeros(above)
        alive ^= _1 << np.uint64(right)
        ranks[right] = NO_MERGE
        merged = least >> PLACE_BITS
        symbols[here] = merged
        above &= above - _1
        ranks[here] = NO_MERGE
        if above:
            rank = np.int64(find_merge(merged, symbols[trailing_zeros(above)], pairs, shift))
            ranks[here] = rank << PLACE_BITS | here
        below = alive & ((_1 << place) - _1)
        if below:
            before = 63 - leading_zeros(below)
            rank = np.int64(find_merge(symbols[before], merged, pairs, shift))
            ranks[before] = rank << PLACE_BITS | before
        least = _least(ranks, count)
    return alive


@cpu_device
def _run_of_bits(at, count):
    """Return the mask of up to ``count`` bits from ``at`` on within its window."""
    inside = min(count, 64 - (at & 63))
    mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - inside)
    return mask << (np.uint64(at) & np.uint64(63)), np.intp(inside)


@cpu_device
def _lowest_bit(mask):
    return trailing_zeros(mask)


byte_symbols = shared_body(_byte_symbols)
merge_in = shared_body(_merge_in)
run_of_bits = shared_body(_run_of_bits)
rank_of = shared_body(find_merge)
lowest_bit = shared_body(_lowest_bit)


@cuda_device
def _set_bits(masks, at, count):
    """Set the bits of the tokens of a piece, of which the first is set; clear that of none."""
    if count == 0:
        mask, _ = run_of_bits(at, 1)
        cuda.atomic.xor(masks, at >> 6, mask)
    while count > 0:
        mask, inside = run_of_bits(at, count)
        cuda.atomic.or_(masks, at >> 6, mask)
        at += inside
        count -= inside


@cuda_device
def _merge_entry(
    text, entry, numbered_ids, unknown, fuse_unknown, byte_pairs, pairs, shift, ids, masks,
    symbols, ranks,
):  # fmt: skip
    at = entry >> LENGTH_BITS
    left = merge_in(
        text, at, at + (entry & LENGTH), numbered_ids, unknown, fuse_unknown, byte_pairs,
        pairs, shift, symbols, ranks,
    )  # fmt: skip
    tokens = 0
    while left:
        ids[at + tokens] = numbered_ids[symbols[lowest_bit(left)]]
        left &= left - _1
        tokens += 1
    _set_bits(masks, at, tokens)


def _merge_by_thread(size: int) -> Any:
    """Make the kernel for pieces of up to ``size`` bytes, of which local memory holds that many."""

    def merge_listed(
        text, kept, counters, number, numbered_ids, unknown, fuse_unknown, byte_pairs, pairs, shift,
        ids, masks,
    ):  # fmt: skip
        """Merge the pieces of a list, a thread each; no error check."""
        symbols = cuda.local.array(size, np.int32)
        ranks = cuda.local.array(size, np.int32)
        count = min(counters[number], kept.size)
        i = cuda.grid(1)
        while i < count:
            _merge_entry(
                text, kept[i], numbered_ids, unknown, fuse_unknown, byte_pairs, pairs, shift,
                ids, masks, symbols, ranks,
            )  # fmt: skip
            i += cuda.gridsize(1)

    merge_listed.__name__ = f"merge_up_to_{size}"
    return cuda_kernel(merge_listed)


merge_short_pieces = _merge_by_thread(SHORT)
merge_middle_pieces = _merge_by_thread(MIDDLE)


@cuda_device
def _least_pair(ranks, count, least, thread):
    """Leave the lowest ``rank << LENGTH_BITS | place`` of a block in ``least[0]``."""
    best = np.int64(NOTHING) << LENGTH_BITS
    i = thread
    while i < count:
        if np.int64(ranks[i]) < best >> LENGTH_BITS:
            best = np.int64(ranks[i]) << LENGTH_BITS | i
        i += BLOCK_THREADS
    least[thread] = best
    cuda.syncthreads()
    step = BLOCK_THREADS // 2
    while step > 0:
        if thread < step:
            least[thread] = min(least[thread], least[thread + step])
        cuda.syncthreads()
        step //= 2


@cuda_device
def _join(at, symbols, ranks, following, preceding, count, pairs, shift):
    """Merge the symbol at a place with the next; the arrays are a linked list."""
    right = np.int64(following[at])
    after = np.int64(following[right])
    before = np.int64(preceding[at])
    symbols[at] = ranks[at]
    following[at] = after
    ranks[right] = NOTHING
    ranks[at] = NOTHING
    if after < count:
        preceding[after] = at
        ranks[at] = rank_of(symbols[at], symbols[after], pairs, shift)
    if before >= 0:
        ranks[before] = rank_of(symbols[before], symbols[at], pairs, shift)


@cuda_kernel
def merge_long_pieces(
    text, kept, counters, number, numbered_ids, unknown, fuse_unknown, byte_pairs, pairs, shift,
    ids, masks,
):  # fmt: skip
    """Merge the pieces of the list of long ones, a block each; no error check."""
    symbols = cuda.shared.array(LONGEST, np.int32)
    ranks = cuda.shared.array(LONGEST, np.int32)
    following = cuda.shared.array(LONGEST, np.int16)
    preceding = cuda.shared.array(LONGEST, np.int16)
    least = cuda.shared.array(BLOCK_THREADS, np.int64)
    sizes = cuda.shared.array(1, np.int32)
    thread = cuda.threadIdx.x
    entries = min(counters[number], kept.size)
    entry = cuda.blockIdx.x
    while entry < entries:
        at = kept[entry] >> LENGTH_BITS
        if thread == 0:
            stop = at + (kept[entry] & LENGTH)
            sizes[0] = byte_symbols(text, at, stop, numbered_ids, unknown, fuse_unknown, symbols)
        cuda.syncthreads()
        count = sizes[0]
        i = thread
        while i < count:
            following[i] = i + 1
            preceding[i] = i - 1
            ranks[i] = NOTHING
            if i + 1 < count:
                ranks[i] = rank_of(symbols[i], symbols[i + 1], pairs, shift)
            i += BLOCK_THREADS
        cuda.syncthreads()
        _least_pair(ranks, count, least, thread)
        while least[0] >> LENGTH_BITS < NOTHING:
            if thread == 0:
                _join(
                    least[0] & LENGTH, symbols, ranks, following, preceding, count, pairs, shift
                )  # fmt: skip
            cuda.syncthreads()
            _least_pair(ranks, count, least, thread)
        if thread == 0:
            tokens = 0
            i = 0
            while i < count:
                ids[at + tokens] = numbered_ids[symbols[i]]
                tokens += 1
                i = following[i]
            _set_bits(masks, at, tokens)
        cuda.syncthreads()
        entry += cuda.gridDim.x


@cuda_kernel
def place(begins, offsets, encoded, ids, masks):
    """Write the tokens of parts that the host has merged, a block each; no error check."""
    part = cuda.blockIdx.x
    at = begins[part]
    count = offsets[part + 1] - offsets[part]
    j = cuda.threadIdx.x
    while j < count:
        ids[at + j] = encoded[offsets[part] + j]
        j += cuda.blockDim.x
    if cuda.threadIdx.x == 0:
        _set_bits(masks, at, count)
