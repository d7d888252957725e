"""Merges of byte-level vocabularies as the encoder reads them.

Tokens are renumbered: a byte is itself, a merged token 256 and how many merge before it. So a
number is its rank as well, and the lowest number is what merges first. What two neighbours become
is looked up in the table of merge_slots.py.

Of all divisions of a token into two, one is kept: the one by which the token comes about when its
own bytes are merged. What is merged within a token depends on nothing outside it (as long as
nothing merges across its ends, and then it would not come about), so it never comes about in
another way; and a token that its own bytes do not merge to never does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.merge_slots import MOST_ID, NOTHING, find_merge, merge_slots
from numbatch.kernels.tokenization.tables import PairTable, StringTable, find_pair, read_only

__all__ = [
    "BYTES",
    "NEVER",
    "PackedMerges",
    "pack_merges",
    "pair_holds",
]

BYTES = np.intp(256)
NEVER = 0xFFFFFFFF
"""In its place for two bytes: no merge joins what ends with the one to what begins with the other.
"""
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_NOTHING = np.uint64(NOTHING)
_1 = np.uint64(1)


class PackedMerges(NamedTuple):
    """The merges of a vocabulary; see :func:`pack_merges`."""

    pairs: np.ndarray
    """uint64, from ``merge_slots.merge_slots``."""
    halves: np.ndarray
    """uint64, shape (numbers,): ``left << 32 | right``; of a byte, itself twice."""
    ids: np.ndarray
    """int32, shape (numbers + 1,): the vocabulary's ids, -1 for a byte that it lacks; last the id
    for what is unknown, whose number merges with nothing."""
    byte_pairs: np.ndarray
    """uint32, shape (65536,): what two bytes, ``first << 8 | second``, merge to, or ``NOTHING``,
    or ``NEVER``. It does not tell what becomes of bytes that the vocabulary lacks."""
    rivals: np.ndarray
    """uint32, shape (2, 65536): the lowest number that a byte can become together with what is
    before it and ends with another byte, ``before << 8 | byte``; and together with what is behind
    it, ``byte << 8 | behind``. ``NEVER`` if there is none."""
    in_order: bool
    """Whether each token merges after its two parts. BPE as it is trained gives such vocabularies;
    in others a merge that is sure to come may not be made early, as one that it makes possible
    would then come too early as well."""


@cpu_device
def pair_holds(left, right, pairs, shift, halves):
    """Return whether the bytes of two tokens, merged together, become these two again.

    Looks from the latest merge back to the earliest for one across the boundary that would have
    come before it. Source: the crate ``bpe`` of GitHub's rust-gems, "is_valid_token_pair".
    """
    left, right = np.uint64(left), np.uint64(right)
    limit = _EMPTY
    low = np.uint64(0xFFFFFFFF)
    while True:
        merged = find_merge(left, right, pairs, shift)
        if merged != _NOTHING and merged < limit:
            return False
        if left > right:
            limit = left
            left = halves[np.intp(left)] & low
            if left == limit:
                limit = right + _1
                right = halves[np.intp(right)] >> np.uint64(32)
                if right + _1 == limit:
                    return True
        else:
            limit = right + _1
            right = halves[np.intp(right)] >> np.uint64(32)
            if right + _1 == limit:
                limit = left
                left = halves[np.intp(left)] & low
                if left == limit:
                    return True


@cpu_device
def _last_merge(strings, row, byte_ids, table, symbols, slots):
    """Return the slot of the merge that makes a token of its two parts, or -1."""
    count = np.intp(0)
    for i in range(strings.offsets[row], strings.offsets[row + 1]):
        symbols[count] = byte_ids[strings.values[i]]
        if symbols[count] < 0:
            return np.intp(-1)
        count += 1
    for i in range(count - 1):
        slots[i] = find_pair(symbols[i], symbols[i + 1], table)
    last = np.intp(-1)
    while count > 1:
        at: Any = np.intp(-1)
        for i in range(count - 1):
            if slots[i] >= 0 and (at < 0 or table.ranks[slots[i]] < table.ranks[slots[at]]):
                at = i
        if at < 0:
            return np.intp(-1)
        last = np.intp(slots[at])
        symbols[at] = table.merged[last]
        count -= 1
        for i in range(at + 1, count):
            symbols[i] = symbols[i + 1]
            slots[i - 1] = slots[i]
        if at > 0:
            slots[at - 1] = find_pair(symbols[at - 1], symbols[at], table)
        if at + 1 < count:
            slots[at] = find_pair(symbols[at], symbols[at + 1], table)
    return last if last >= 0 and table.merged[last] == row else np.intp(-1)


@cpu_kernel(allocates=True)
def _last_merges(rows, strings, byte_ids, table, longest, out):
    """Write the slot of the last merge of each token, -1 where it does not come about."""
    symbols, slots = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for i in range(rows.size):
        out[i] = _last_merge(strings, rows[i], byte_ids, table, symbols, slots)


def pack_merges(
    table: PairTable, strings: StringTable, byte_ids: np.ndarray, unknown_id: int
) -> PackedMerges | None:
    """Return the merges renumbered, or None where that does not give the same tokens.

    Parameters
    ----------
    table : PairTable
        Merges by the vocabulary's ids.
    strings : StringTable
        The tokens' bytes.
    byte_ids : int32 array, shape (256,)
        The id of each single byte, or -1.
    unknown_id : int
        The id for bytes without one, or -1.
    """
    used = table.keys != _EMPTY
    lefts = (table.keys[used] >> np.uint64(32)).astype(np.int64)
    rights = (table.keys[used] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    lengths = np.diff(strings.offsets)
    merged = table.merged[used]
    if (
        (unknown_id >= 0 and ((lefts == unknown_id) | (rights == unknown_id)).any())
        or not (lengths[lefts].all() and lengths[rights].all() and lengths[merged].all())
        or (lengths[byte_ids[byte_ids >= 0]] != 1).any()
    ):
        return None
    rows = np.flatnonzero(np.bincount(merged))
    slots = np.empty(rows.size, np.int64)
    longest = int(lengths[rows].max(initial=1))
    _last_merges(rows, strings, byte_ids, table, longest, slots)
    rows, slots = rows[slots >= 0], slots[slots >= 0]
    order = np.argsort(table.ranks[slots], kind="stable")
    rows, slots = rows[order], slots[order]
    if rows.size + BYTES > MOST_ID or (np.diff(table.ranks[slots]) == 0).any():
        return None
    return _renumbered(rows, table.keys[slots], strings, byte_ids, unknown_id)


def _renumbered(
    rows: np.ndarray,
    keys: np.ndarray,
    strings: StringTable,
    byte_ids: np.ndarray,
    unknown_id: int,
) -> PackedMerges:
    numbers = np.zeros(strings.offsets.size, np.int64)
    has_id = byte_ids >= 0
    numbers[byte_ids[has_id]] = np.flatnonzero(has_id)
    numbers[rows] = BYTES + np.arange(rows.size)
    lefts, rights = numbers[(keys >> np.uint64(32))], numbers[keys & np.uint64(0xFFFFFFFF)]
    every_byte = np.arange(BYTES)
    halves = np.concatenate([every_byte, lefts]) << 32 | np.concatenate([every_byte, rights])
    return PackedMerges(
        merge_slots(lefts, rights, int(BYTES)),
        read_only(halves.astype(np.uint64)),
        read_only(np.concatenate([byte_ids, rows, [unknown_id]]).astype(np.int32)),
        *_byte_pairs(lefts, rights, strings, rows),
        bool((np.maximum(lefts, rights) < BYTES + np.arange(rows.size)).all()),
    )


def _byte_pairs(
    lefts: np.ndarray, rights: np.ndarray, strings: StringTable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``byte_pairs`` and ``rivals`` of :class:`PackedMerges`."""
    every_byte = np.arange(BYTES)
    firsts = np.concatenate([every_byte, strings.values[strings.offsets[:-1][rows]]])
    lasts = np.concatenate([every_byte, strings.values[strings.offsets[1:][rows] - 1]])
    merged = BYTES + np.arange(rows.size)
    boundaries = lasts[lefts] << 8 | firsts[rights]
    known = np.full(1 << 16, NEVER, np.uint32)
    known[boundaries] = NOTHING
    rivals = np.full((2, 1 << 16), NEVER, np.uint32)
    for single, rival in ((rights < BYTES, rivals[0]), (lefts < BYTES, rivals[1])):
        np.minimum.at(rival, boundaries[single], merged[single].astype(np.uint32))
    both = (lefts < BYTES) & (rights < BYTES)
    known[boundaries[both]] = merged[both]
    return read_only(known), read_only(rivals)
