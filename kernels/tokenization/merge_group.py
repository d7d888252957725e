"""Merging of several short pieces side by side.

A merge is a chain of steps that wait for each other: the least rank, the neighbours, what they
merge to, the least rank again. A CPU that works on one piece mostly waits. Here each piece of a
group is taken one merge further in turn, with no branch in between, so that the chains overlap.

A piece has a record of ``RECORD`` words: the ranks of up to 32 symbols in the lanes of a vector,
the symbols with one place before and some behind them, the least rank, a bit for each symbol that
is left, and what its owner keeps there. Bit ``i + 1`` stands for symbol ``i``; the bit below the
first and the one behind the last stand for symbols that merge with nothing. Pieces of up to 15
bytes go together in narrow groups, whose vectors have 16 lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.rank_lanes import load_16, load_32, put_where, smallest, store
from numbatch.kernels.tokenization.merge_lanes import NO_RANK
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge
from numbatch.kernels.words import (
    count_ones,
    leading_zeros,
    trailing_zeros,
    uint32_pointer,
    uint64_pointer,
)

__all__ = [
    "GROUP",
    "GROUP_WORDS",
    "NARROW",
    "OWN",
    "RECORD",
    "WIDE",
    "add_piece",
    "merge_narrow",
    "merge_wide",
    "merged_tokens",
    "write_merged",
]

GROUP = np.intp(16)
"""Pieces in a group: so many chains keep a core busy, and their records stay in its first cache."""
RECORD = 48
GROUP_WORDS = int(GROUP) * (RECORD + 1)
"""Words that a group takes: its records, and the list of those that have merges left."""
NARROW, WIDE = np.intp(16), np.intp(32)
"""Lanes of a group; a narrow one takes pieces of one byte less, for its owner's sake."""
OWN = 40
"""The first word of a record that is its owner's: up to the end."""
_SYMBOLS, _SPARE = np.intp(33), np.intp(33 + 33)  # in numbers of 32 bits
_LEAST, _ALIVE = 36, 37
_BYTES = np.intp(8 * RECORD)
_ALL, _1, _2, _6, _32, _60 = (np.uint64(n) for n in (0xFFFFFFFFFFFFFFFF, 1, 2, 6, 32, 60))
_LANE, _TOKEN = np.uint64(63), np.uint64((1 << 28) - 1)
_NONE = np.uint64(NOTHING << 6)


@cpu_device
def add_piece(text, at, count, lanes, byte_pairs, nothing, group, member):
    """Make a piece of 1 to ``lanes`` bytes a member of the group. No error check.

    Reads one byte more than there are lanes. ``nothing`` is a number that merges with nothing;
    every byte has an id.
    """
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    first = np.intp(text[at])
    for i in range(lanes):  # always all: a branch on the length would be guessed wrong
        second = np.intp(text[at + i + 1])
        numbers[i] = np.uint32(byte_pairs[first << 8 | second]) << np.uint32(6) | np.uint32(i)
        numbers[_SYMBOLS + i] = first
        first = second
    numbers[_SYMBOLS - 1] = nothing
    numbers[_SYMBOLS + count] = nothing
    numbers[_SPARE] = 0
    words[_ALIVE] = (_1 << np.uint64(count + 2)) - _1


@cpu_device
def _keep_ranks(ranks, words, numbers):
    """Write the ranks back, and the least of them; return whether there is a merge."""
    store(ranks, numbers, 0)
    words[_LEAST] = smallest(ranks)
    return words[_LEAST] < _NONE


@cpu_device
def _merge_once(ranks, words, numbers, pairs, shift):
    """Merge the pair of the least rank; return whether another one follows."""
    lane, number, alive = words[_LEAST] & _LANE, words[_LEAST] >> _6, words[_ALIVE]
    above = alive & (_ALL << (lane + _2))
    right = np.uint64(trailing_zeros(above))
    after = trailing_zeros(above & (above - _1))
    before = 63 - leading_zeros(alive & ((_2 << lane) - _1))
    words[_ALIVE] = alive ^ _1 << right
    numbers[_SYMBOLS + np.intp(lane)] = number
    with_after = find_merge(number, numbers[_SYMBOLS - 1 + after], pairs, shift)
    with_before = find_merge(numbers[_SYMBOLS - 1 + before], number, pairs, shift)
    ranks = put_where(ranks, _1 << right >> _1, np.uint64(NO_RANK))
    ranks = put_where(ranks, _1 << lane, with_after << _6 | lane)
    ranks = put_where(
        ranks, _1 << np.uint64(before) >> _1, with_before << _6 | np.uint64(before - 1)
    )
    return _keep_ranks(ranks, words, numbers)


def _merger(load: Any) -> Any:
    """Make the function that merges the groups of so many lanes."""

    @cpu_device
    def merge(group, members, pairs, shift):
        """Merge all members of a group."""
        left = uint64_pointer(group, GROUP * _BYTES)
        count = np.intp(0)
        for member in range(members):
            words = uint64_pointer(group, member * _BYTES)
            numbers = uint32_pointer(group, member * _BYTES)
            behind = ~(words[_ALIVE] >> np.uint64(3))  # the last symbol has no pair
            ranks = put_where(load(numbers, 0), behind, np.uint64(NO_RANK))
            left[count] = member
            count += _keep_ranks(ranks, words, numbers)
        while count > 0:
            kept = np.intp(0)
            for i in range(count):
                place = np.intp(left[i])
                words = uint64_pointer(group, place * _BYTES)
                numbers = uint32_pointer(group, place * _BYTES)
                left[kept] = place
                kept += _merge_once(load(numbers, 0), words, numbers, pairs, shift)
            count = kept

    return merge


merge_narrow, merge_wide = _merger(load_16), _merger(load_32)


@cpu_device
def _symbols_left(words):
    """Return the mask of a piece's symbols."""
    alive = words[_ALIVE] >> _1
    return alive ^ _1 << np.uint64(63 - leading_zeros(alive))  # what stands behind the last one


@cpu_device
def merged_tokens(group, member, ids):
    """Return how many tokens a merged piece has, and four of them as a cache's entry has them.

    What stands for a token that is not there means nothing.
    """
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    alive = _symbols_left(words)
    count = count_ones(alive)
    first, second = np.uint64(count) << _60, np.uint64(0)
    for i in range(4):
        symbol = numbers[_SYMBOLS + min(trailing_zeros(alive), _SPARE - _SYMBOLS)]
        token = (np.uint64(ids[symbol]) & _TOKEN) << (_32 if i & 1 else np.uint64(0))
        alive &= alive - _1
        if i < 2:
            first |= token
        else:
            second |= token
    return count, first, second


@cpu_device
def write_merged(group, member, ids):
    """Write the ids of a merged piece over its ranks; return where they lie."""
    words, numbers = uint64_pointer(group, member * _BYTES), uint32_pointer(group, member * _BYTES)
    alive, at = _symbols_left(words), np.intp(0)
    while alive:
        numbers[at] = ids[numbers[_SYMBOLS + trailing_zeros(alive)]]
        alive &= alive - _1
        at += 1
    return numbers
