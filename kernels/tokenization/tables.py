"""Open-addressing tables in flat arrays: byte strings to rows, pairs of ids to merges.

Linear probing over a power-of-two number of slots, at most half of them filled. The tables are
read-only once built, so that one compiled specialisation of each kernel serves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import Ragged

__all__ = [
    "PairTable",
    "StringTable",
    "build_pair_table",
    "build_string_table",
    "extend_hash",
    "find_hashed_string",
    "find_pair",
    "find_string",
    "read_only",
    "rows_of",
]

HASH_START = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)


class StringTable(NamedTuple):
    """Byte strings and where to find each: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    slots: np.ndarray
    """int32, shape (power of two,): a row, or -1 where empty."""
    values: np.ndarray
    """uint8, shape (bytes,)."""
    offsets: np.ndarray
    """int64, shape (rows + 1,)."""


class PairTable(NamedTuple):
    """Merges: what two neighbouring ids become, and how early."""

    keys: np.ndarray
    """uint64, shape (power of two,): ``left << 32 | right``, or all ones where empty."""
    ranks: np.ndarray
    """int32, shape (power of two,): lower merges first."""
    merged: np.ndarray
    """int32, shape (power of two,): the id that the pair becomes."""


@cpu_device
def extend_hash(state, byte):
    """Return the FNV-1a state after one more byte; start from ``HASH_START``."""
    return (state ^ np.uint64(byte)) * _FNV_PRIME


@cpu_device
def _first_slot(hashed, size):
    """Return the slot where probing starts; FNV's and a key's low bits alone would cluster."""
    mixed = hashed * _MIX
    return np.intp((mixed ^ (mixed >> _SHIFT)) & np.uint64(size - 1))


@cpu_device
def _hash_of(text, start, stop):
    state = HASH_START
    for i in range(start, stop):
        state = extend_hash(state, text[i])
    return state


@cpu_device
def _equal(text, start, length, values, begin, end):
    if end - begin != length:
        return False
    for i in range(length):
        if text[start + i] != values[begin + i]:
            return False
    return True


@cpu_device
def _probe_string(hashed, text, start, length, slots, values, offsets):
    """Return the slot that holds the string, or the empty slot where it would go."""
    slot = _first_slot(hashed, slots.size)
    while slots[slot] >= 0:
        row = slots[slot]
        if _equal(text, start, length, values, offsets[row], offsets[row + 1]):
            break
        slot = (slot + 1) & (slots.size - 1)
    return slot


@cpu_device
def find_hashed_string(hashed, text, start, stop, table):
    """Return the row of ``text[start:stop]``, whose hash is given, or -1. No error check."""
    slot = _probe_string(
        hashed, text, start, stop - start, table.slots, table.values, table.offsets
    )
    return table.slots[slot]


@cpu_device
def find_string(text, start, stop, table):
    """Return the row of ``text[start:stop]`` or -1. No error check."""
    return find_hashed_string(_hash_of(text, start, stop), text, start, stop, table)


@cpu_device
def _pair_key(left, right):
    return (np.uint64(left) << _SHIFT) | np.uint64(right)


@cpu_device
def find_pair(left, right, table):
    """Return the slot of a pair of ids or -1. No error check: ids are not negative."""
    key = _pair_key(left, right)
    slot = _first_slot(key, table.keys.size)
    while table.keys[slot] != key:
        if table.keys[slot] == _NO_KEY:
            return -1
        slot = (slot + 1) & (table.keys.size - 1)
    return slot


@cpu_kernel
def _insert_strings(rows, values, offsets, slots):
    """Fill ``slots``; return the first row whose string was there already, or -1.

    No error check.
    """
    for i in range(rows.size):
        start, stop = offsets[rows[i]], offsets[rows[i] + 1]
        hashed = _hash_of(values, start, stop)
        slot = _probe_string(hashed, values, start, stop - start, slots, values, offsets)
        if slots[slot] >= 0:
            return rows[i]
        slots[slot] = rows[i]
    return -1


@cpu_kernel
def _find_strings(text, starts, stops, table, rows):
    """Fill ``rows``. No error check."""
    for i in range(rows.size):
        rows[i] = find_string(text, starts[i], stops[i], table)


@cpu_kernel
def _insert_pairs(lefts, rights, pair_ranks, pair_merged, keys, ranks, merged):
    """Fill the table; of equal pairs the last one stays. No error check."""
    for i in range(lefts.size):
        key = _pair_key(lefts[i], rights[i])
        slot = _first_slot(key, keys.size)
        while keys[slot] != _NO_KEY and keys[slot] != key:
            slot = (slot + 1) & (keys.size - 1)
        keys[slot] = key
        ranks[slot] = pair_ranks[i]
        merged[slot] = pair_merged[i]


def _slots_for(entries: int) -> int:
    return 1 << max(3, (2 * entries).bit_length())


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written, of the one type that the kernels are compiled for."""
    view = array.view()
    view.flags.writeable = False
    return view


def build_string_table(strings: Ragged, rows: np.ndarray) -> tuple[StringTable, int]:
    """Index some rows of a Ragged of bytes.

    Parameters
    ----------
    strings : Ragged of uint8
        The strings; the table keeps a view of them.
    rows : integer array, shape (indexed,)
        The rows that can be found.

    Returns
    -------
    table : StringTable
    duplicate : int
        The first row whose string an earlier row has already, or -1. The table is of use only
        where it is -1.

    Raises
    ------
    ValueError
        If a row is out of range or the values are not bytes.
    """
    rows = np.ascontiguousarray(rows, np.int32)
    if strings.values.dtype != np.uint8:
        raise ValueError(f"strings are of {strings.values.dtype}, should be of uint8")
    if rows.size and not 0 <= rows.min() <= rows.max() < len(strings):
        raise ValueError(f"rows run from {rows.min()} to {rows.max()} of {len(strings)} strings")
    slots = np.full(_slots_for(rows.size), -1, np.int32)
    values, offsets = read_only(strings.values), read_only(strings.offsets)
    duplicate = int(_insert_strings(rows, values, offsets, slots))
    return StringTable(read_only(slots), values, offsets), duplicate


def rows_of(
    text: np.ndarray, starts: np.ndarray, stops: np.ndarray, table: StringTable
) -> np.ndarray:
    """Return the row of each string ``text[starts[i]:stops[i]]``, or -1, int32. No error check.

    Parameters
    ----------
    text : uint8 array
    starts, stops : int64 arrays, shape (strings,)
    table : StringTable
    """
    rows = np.empty(starts.size, np.int32)
    _find_strings(read_only(text), read_only(starts), read_only(stops), table, rows)
    return rows


def build_pair_table(
    lefts: np.ndarray, rights: np.ndarray, ranks: np.ndarray, merged: np.ndarray
) -> PairTable:
    """Index merges by their pair of ids; of equal pairs the last one counts.

    Parameters
    ----------
    lefts, rights, ranks, merged : int32 arrays, shape (merges,)
        Ids of the two parts, the order of merging (lower first), and the id of the whole.

    Raises
    ------
    ValueError
        If the arrays differ in length or hold negative numbers.
    """
    columns = [np.ascontiguousarray(c, np.int32) for c in (lefts, rights, ranks, merged)]
    if len({column.size for column in columns}) != 1:
        raise ValueError(f"columns of merges differ in length: {[c.size for c in columns]}")
    if any(column.size and column.min() < 0 for column in columns):
        raise ValueError("merges hold a negative number")
    size = _slots_for(columns[0].size)
    table = PairTable(
        np.full(size, _NO_KEY, np.uint64), np.zeros(size, np.int32), np.zeros(size, np.int32)
    )
    _insert_pairs(*columns, *table)
    return PairTable(*(read_only(array) for array in table))
