"""Merging of several short pieces side by side.

A merge is a chain of steps that wait for each other: the least rank, the neighbours, what they
merge to, the least rank again. A CPU that works on one piece mostly waits. Here each piece of a
group is taken one merge further in turn, with no branch in between, so that the chains overlap.

A piece has a record of ``RECORD`` words: the ranks of up to 16 symbols in the lanes of a vector,
the symbols with one place before and some behind them, the least rank, a bit for each symbol that
is left, and what its owner keeps there. Bit ``i + 1`` stands for symbol ``i``; the bit below the
first and the one behind the last stand for symbols that merge with nothing.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.rank_lanes import load_16, put_where, smallest, store
from numbatch.kernels.tokenization.merge_lanes import NO_RANK
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge
from numbatch.kernels.words import (
    count_ones,
    leading_zeros,
    trailing_zeros,
    uint32_pointer,
    uint64_pointer,
)

__all__ = ["GROUP", "GROUP_WORDS", "OWN", "RECORD", "add_piece", "merge_group", "write_merged"]

GROUP = np.intp(16)
"""Pieces in a group: so many chains keep a core busy, and their records stay in its first cache."""
RECORD = 32
GROUP_WORDS = int(GROUP) * (RECORD + 1)
"""Words that a group takes: its records, and the list of those that have merges left."""
OWN = 20
"""The first word of a record that is its owner's: up to the end."""
_LANES = np.intp(16)
_SYMBOLS, _SPARE = np.intp(17), np.intp(17 + 17)  # in numbers of 32 bits
_LEAST, _ALIVE = 18, 19
_BYTES = np.intp(8 * RECORD)
_ALL, _1, _2, _6 = (np.uint64(n) for n in (0xFFFFFFFFFFFFFFFF, 1, 2, 6))
_LANE = np.uint64(63)
_NONE = np.uint64(NOTHING << 6)


@cpu_device
def add_piece(text, at, count, byte_pairs, nothing, group, member):
    """Make a piece of 1 to 15 bytes a member of the group. No error check.

    Reads 17 bytes. ``nothing`` is a number that merges with nothing; every byte has an id.
    """
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    first = np.intp(text[at])
    for i in range(_LANES):  # always 16: a branch on the length would be guessed wrong
        second = np.intp(text[at + i + 1])
        numbers[i] = np.uint32(byte_pairs[first << 8 | second]) << np.uint32(6) | np.uint32(i)
        numbers[_SYMBOLS + i] = first
        first = second
    numbers[_SYMBOLS - 1] = nothing
    numbers[_SYMBOLS + count] = nothing
    numbers[_SPARE] = 0
    words[_ALIVE] = (_1 << np.uint64(count + 2)) - _1


@cpu_device
def _begin(group, member):
    """Find the first merge of a piece; return whether there is one."""
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    behind = ~(words[_ALIVE] >> np.uint64(3))  # the last symbol has no pair
    ranks = put_where(load_16(numbers, 0), behind, np.uint64(NO_RANK))
    store(ranks, numbers, 0)
    words[_LEAST] = smallest(ranks)
    return words[_LEAST] < _NONE


@cpu_device
def _merge_once(group, member, pairs, shift):
    """Merge the pair of the least rank; return whether another one follows."""
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    lane, number, alive = words[_LEAST] & _LANE, words[_LEAST] >> _6, words[_ALIVE]
    above = alive & (_ALL << (lane + _2))
    right = np.uint64(trailing_zeros(above))
    after = trailing_zeros(above & (above - _1))
    before = 63 - leading_zeros(alive & ((_2 << lane) - _1))
    words[_ALIVE] = alive ^ _1 << right
    numbers[_SYMBOLS + np.intp(lane)] = number
    with_after = find_merge(number, numbers[_SYMBOLS - 1 + after], pairs, shift)
    with_before = find_merge(numbers[_SYMBOLS - 1 + before], number, pairs, shift)
    ranks = put_where(load_16(numbers, 0), _1 << right >> _1, np.uint64(NO_RANK))
    ranks = put_where(ranks, _1 << lane, with_after << _6 | lane)
    ranks = put_where(
        ranks, _1 << np.uint64(before) >> _1, with_before << _6 | np.uint64(before - 1)
    )
    store(ranks, numbers, 0)
    words[_LEAST] = smallest(ranks)
    return words[_LEAST] < _NONE


@cpu_device
def merge_group(group, members, pairs, shift):
    """Merge all members of a group."""
    left = uint64_pointer(group, GROUP * _BYTES)
    count = np.intp(0)
    for member in range(members):
        left[count] = member
        count += _begin(group, member)
    while count > 0:
        kept = np.intp(0)
        for i in range(count):
            member = left[i]
            left[kept] = member
            kept += _merge_once(group, np.intp(member), pairs, shift)
        count = kept


@cpu_device
def write_merged(group, member, ids):
    """Write the ids of a merged piece over its ranks; return their number, and where they lie.

    Behind the last, up to the fourth, stand ids that mean nothing.
    """
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    alive = (words[_ALIVE] & ~_1) >> _1
    alive ^= _1 << np.uint64(63 - leading_zeros(alive))  # what stands behind the last symbol
    count = count_ones(alive)
    for i in range(4):
        numbers[i] = ids[numbers[_SYMBOLS + min(trailing_zeros(alive), _SPARE - _SYMBOLS)]]
        alive &= alive - _1
    at = np.intp(4)
    while alive:
        numbers[at] = ids[numbers[_SYMBOLS + trailing_zeros(alive)]]
        alive &= alive - _1
        at += 1
    return count, numbers
