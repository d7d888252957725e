"""What two neighbouring tokens merge to: a table in which no two pairs share a slot.

A slot is ``left << 44 | right << 24 | merged``. Where it lies follows from the pair's hash and a
displacement, chosen for all pairs whose hashes begin alike so that each finds a slot of its own.
So a look-up is two loads and no branch: in a table with probing, most of the time went into
guessing wrong whether the first slot answers. Three quarters of the slots are full, so that the
table stays in a core's own cache.

Source: Belazzougui, Botelho and Dietzfelbinger, "Hash, displace, and compress", ESA 2009.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.tables import read_only

__all__ = ["MOST_ID", "NOTHING", "find_merge", "merge_slots"]

MOST_ID = (1 << 20) - 1
NOTHING = (1 << 24) - 1
"""In place of a merged token: the two do not merge."""
_HASH, _SPREAD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_VALUE = np.uint64(NOTHING)
_1, _2, _3, _4, _20, _24, _40 = (np.uint64(n) for n in (1, 2, 3, 4, 20, 24, 40))
_DISPLACEMENT = np.uint64(0xFFFF)
_FIRST_BITS = 6


@cpu_device
def find_merge(left, right, pairs, shift):
    """Return what two numbers merge to, ``NOTHING`` if they do not. No error check.

    ``shift`` is 64 less the bits of a slot's place. Behind the slots lie the displacements, four
    in a word, one for each four slots.
    """
    key = np.uint64(left) << _20 | np.uint64(right)
    mixed = key * _HASH
    group = mixed >> (np.uint64(shift) + _2)
    word = pairs[np.intp((_EMPTY >> np.uint64(shift)) + _1 + (group >> _2))]
    mixed ^= word >> ((group & _3) << _4) & _DISPLACEMENT
    found = pairs[np.intp((mixed * _SPREAD) >> np.uint64(shift))]
    # All ones where the keys, of 40 bits, are the same, else 0. LLVM would make a branch of an if.
    same = ((found >> _24 ^ key) - _1) >> _40
    return ((found ^ _VALUE) & same) ^ _VALUE


@cpu_kernel(allocates=True)
def _fill(keys, order, firsts, shift, pairs):
    """Enter the keys; return whether each group found a displacement. No error check.

    ``order`` are the groups, those of most keys first; the keys of group ``g`` are
    ``keys[firsts[g]:firsts[g + 1]]``, each ``left << 20 | right`` and what it merges to.
    """
    places = np.empty(keys.shape[0] + 1, np.int64)
    slots = np.int64(_EMPTY >> np.uint64(shift)) + 1
    for i in range(order.size):
        group = order[i]
        begin, end = firsts[group], firsts[group + 1]
        displacement = 0
        while begin < end:
            placed = 0
            for k in range(begin, end):
                mixed = (keys[k, 0] * _HASH) ^ np.uint64(displacement)
                place = np.int64((mixed * _SPREAD) >> np.uint64(shift))
                if pairs[place] != _EMPTY:
                    break
                pairs[place] = keys[k, 0] << _24 | keys[k, 1]
                places[placed] = place
                placed += 1
            if placed == end - begin:
                break
            for k in range(placed):
                pairs[places[k]] = _EMPTY
            displacement += 1
            if displacement > 0xFFFF:
                return False
        pairs[slots + (group >> 2)] |= np.uint64(displacement) << np.uint64(16 * (group & 3))
    return True


def merge_slots(lefts: np.ndarray, rights: np.ndarray, first_merged: int) -> np.ndarray:
    """Return the table for :func:`find_merge`: uint64, shape (slots and a sixteenth more,).

    Parameters
    ----------
    lefts, rights : int64 arrays, shape (merges,)
        Merge ``i``, of numbers below ``MOST_ID``, makes number ``first_merged + i``. No pair
        stands twice.
    first_merged : int
    """
    keys = np.empty((lefts.size, 2), np.uint64)
    keys[:, 0] = lefts.astype(np.uint64) << _20 | rights.astype(np.uint64)
    keys[:, 1] = np.arange(first_merged, first_merged + lefts.size)
    bits = max(_FIRST_BITS, (lefts.size + lefts.size // 4).bit_length())
    while True:
        slots = 1 << bits
        groups = ((keys[:, 0] * _HASH) >> np.uint64(66 - bits)).astype(np.int64)
        sizes = np.bincount(groups, minlength=slots // 4)
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        pairs = np.zeros(slots + slots // 16, np.uint64)
        pairs[:slots] = _EMPTY
        # NumPy sorts numbers of 16 bits by radix, seven times as fast.
        narrow = groups.astype(np.min_scalar_type(slots // 4))
        by_group = read_only(np.ascontiguousarray(keys[np.argsort(narrow, kind="stable")]))
        order = np.argsort(-sizes, kind="stable")
        if _fill(by_group, read_only(order), read_only(firsts), 64 - bits, pairs):
            return read_only(pairs)
        bits += 1
