"""Merges of byte-level vocabularies in 8 bytes a pair, and the merging of one piece.

A slot is ``left << 44 | right << 24 | rank``: one cache line answers whether two neighbours merge
and how early. The id that they become is ``merged[rank]``. So ids are below 2**20, ranks below
2**24, and no two pairs of one rank become different ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.tables import PairTable, StringTable, read_only

__all__ = [
    "MOST_ID",
    "NEVER",
    "NO_RANK",
    "SHORT",
    "merge_long",
    "merge_short",
    "pack_pairs",
    "pair_rank",
    "rank_byte_pairs",
    "rank_pairs",
]

MOST_ID = (1 << 20) - 1
NO_RANK = (1 << 24) - 1
NEVER = 0xFFFFFFFF
"""In place of a rank: no merge joins what ends with the one byte to what begins with the other."""
SHORT = 96
"""Pieces of at most so many symbols are merged by searching the lowest rank again and again."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_RANK = np.uint64(NO_RANK)
_1, _20, _24 = np.uint64(1), np.uint64(20), np.uint64(24)
_POSITION = 0xFFFFFFFF


@cpu_device
def pair_rank(left, right, pairs, shift):
    """Return the rank of a pair of ids, ``NO_RANK`` if they do not merge. No error check."""
    key = np.uint64(left) << _20 | np.uint64(right)
    slot = (key * _MIX) >> np.uint64(shift)
    mask = (np.uint64(1) << np.uint64(64 - shift)) - np.uint64(1)
    found = pairs[np.intp(slot)]
    while found >> _24 != key:
        if found == _EMPTY:
            return NO_RANK
        slot = (slot + _1) & mask
        found = pairs[np.intp(slot)]
    return np.intp(found & _RANK)


@cpu_device
def rank_pairs(symbols, count, ranks, pairs, shift):
    """Write the rank of each symbol and the next."""
    for i in range(count - 1):
        ranks[i] = pair_rank(symbols[i], symbols[i + 1], pairs, shift)


@cpu_device
def merge_short(symbols, count, ranks, pairs, shift, merged):
    """Merge ``symbols[:count]`` in place; return how many are left.

    No error check. ``ranks`` holds those of the pairs. Quadratic in ``count``, which is small.
    """
    while count > 1:
        at: Any = np.intp(0)
        lowest = ranks[0]
        for i in range(1, count - 1):
            if ranks[i] < lowest:
                lowest = ranks[i]
                at = i
        if lowest >= NO_RANK:
            break
        symbols[at] = merged[lowest]
        count -= 1
        for i in range(at + 1, count):
            symbols[i] = symbols[i + 1]
            ranks[i - 1] = ranks[i]
        if at > 0:
            ranks[at - 1] = pair_rank(symbols[at - 1], symbols[at], pairs, shift)
        if at + 1 < count:
            ranks[at] = pair_rank(symbols[at], symbols[at + 1], pairs, shift)
    return count


@cpu_device
def _sift_up(heap, size, key):
    at = size
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key


@cpu_device
def _sift_down(heap, size, at):
    """Move the entry ``at`` down to where it belongs; ``size`` entries are in the heap."""
    key = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


@cpu_device
def merge_long(symbols, count, following, preceding, ranks, heap, pairs, shift, merged):
    """Merge ``symbols[:count]`` in place; return how many are left. O(count log count).

    No error check. The symbols are a linked list; a heap of ``rank << 32 | position`` gives the
    next merge, and an entry is stale where ``ranks`` says otherwise. ``heap`` has room for
    ``3 * count`` entries, the others for ``count``.
    """
    size = np.intp(0)
    for i in range(count):
        following[i] = i + 1
        preceding[i] = i - 1
        ranks[i] = NO_RANK
        if i + 1 < count:
            ranks[i] = pair_rank(symbols[i], symbols[i + 1], pairs, shift)
        if ranks[i] != NO_RANK:
            heap[size] = ranks[i] << 32 | i
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, i)
    while size > 0:
        top = heap[0]
        left = top & _POSITION
        if ranks[left] != top >> 32:
            size -= 1
            heap[0] = heap[size]
            _sift_down(heap, size, np.intp(0))
            continue
        right = following[left]
        after = following[right]
        symbols[left] = merged[ranks[left]]
        symbols[right] = -1
        ranks[right] = NO_RANK
        ranks[left] = NO_RANK
        following[left] = after
        if after < count:
            preceding[after] = left
            ranks[left] = pair_rank(symbols[left], symbols[after], pairs, shift)
        if ranks[left] != NO_RANK:
            heap[0] = ranks[left] << 32 | left
        else:
            size -= 1
            heap[0] = heap[size]
        _sift_down(heap, size, np.intp(0))
        before = preceding[left]
        if before >= 0:
            ranks[before] = pair_rank(symbols[before], symbols[left], pairs, shift)
            if ranks[before] != NO_RANK:
                _sift_up(heap, size, ranks[before] << 32 | before)
                size += 1
    kept = np.intp(0)
    for i in range(count):
        if symbols[i] >= 0:
            symbols[kept] = symbols[i]
            kept += 1
    return kept


@cpu_kernel
def _pack(keys, ranks, merged_of_slot, pairs, shift, merged):
    """Fill ``pairs`` and ``merged``; return False where a rank has two results."""
    mask = (np.uint64(1) << np.uint64(64 - shift)) - np.uint64(1)
    low = np.uint64(MOST_ID)
    for i in range(keys.size):
        if keys[i] == _EMPTY:
            continue
        rank = np.uint64(ranks[i])
        if merged[ranks[i]] >= 0 and merged[ranks[i]] != merged_of_slot[i]:
            return False
        merged[ranks[i]] = merged_of_slot[i]
        key = (keys[i] >> np.uint64(32)) << _20 | (keys[i] & low)
        slot = (key * _MIX) >> np.uint64(shift)
        while pairs[np.intp(slot)] != _EMPTY:
            slot = (slot + _1) & mask
        pairs[np.intp(slot)] = key << _24 | rank
    return True


def pack_pairs(table: PairTable) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a table of merges as ``pairs`` and ``merged``, or None where it does not fit.

    Returns
    -------
    pairs : uint64 array, shape (power of two,)
    merged : int32 array, shape (ranks,)
    """
    used = table.keys != _EMPTY
    keys, ranks, merged = table.keys[used], table.ranks[used], table.merged[used]
    if keys.size and (
        int(ranks.max()) >= NO_RANK
        or int((keys >> np.uint64(32)).max()) > MOST_ID
        or int((keys & np.uint64(0xFFFFFFFF)).max()) > MOST_ID
    ):
        return None
    bits = max(3, (2 * keys.size).bit_length())
    pairs = np.full(1 << bits, _EMPTY, np.uint64)
    by_rank = np.full(int(ranks.max(initial=-1)) + 2, -1, np.int32)
    if not _pack(keys, ranks, merged, pairs, 64 - bits, by_rank):
        return None
    return read_only(pairs), read_only(by_rank)


def rank_byte_pairs(table: PairTable, strings: StringTable, byte_ids: np.ndarray) -> np.ndarray:
    """Return what is known of two neighbouring bytes: uint32, shape (65536,).

    Entry ``first << 8 | second`` is their rank if they merge, ``NO_RANK`` if a merge joins
    something that ends with the first to something that begins with the second, else ``NEVER``.
    Empty where the vocabulary lacks a byte or a token its bytes: then bytes do not tell.

    Parameters
    ----------
    table : PairTable
    strings : StringTable
        The tokens' bytes.
    byte_ids : int32 array, shape (256,)
    """
    used = table.keys != _EMPTY
    lefts = (table.keys[used] >> np.uint64(32)).astype(np.int64)
    rights = (table.keys[used] & np.uint64(_POSITION)).astype(np.int64)
    lengths = np.diff(strings.offsets)
    if (byte_ids < 0).any() or not (lengths[lefts].all() and lengths[rights].all()):
        return read_only(np.empty(0, np.uint32))
    lasts = strings.values[strings.offsets[1:][lefts] - 1].astype(np.int64)
    firsts = strings.values[strings.offsets[:-1][rights]].astype(np.int64)
    ranks = np.full(1 << 16, NEVER, np.uint32)
    ranks[lasts << 8 | firsts] = NO_RANK
    single = (byte_ids[lasts] == lefts) & (byte_ids[firsts] == rights)
    ranks[(lasts << 8 | firsts)[single]] = table.ranks[used][single]
    return read_only(ranks)
