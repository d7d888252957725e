"""Find strings of a fixed set (added tokens) in a text, leftmost first, longest at each place."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.tables import (
    HASH_START,
    StringTable,
    extend_hash,
    find_hashed_string,
    read_only,
)
from numbatch.kernels.words import bytes_between, pointer_to, trailing_zeros

__all__ = ["find_literals", "find_literals_in_rows", "longest_by_first_byte"]

_FEW = 3
"""So many first bytes are looked for in 64 bytes at once."""


@cpu_device
def _longest_at(text, start, reach, end, table):
    """Return the row of the longest literal that starts at ``start``, or -1."""
    found = -1
    state = HASH_START
    for stop in range(start + 1, min(start + reach, end) + 1):
        state = extend_hash(state, text[stop - 1])
        row = find_hashed_string(state, text, start, stop, table)
        if row >= 0:
            found = row
    return found


@cpu_device
def _next_first_byte(data, size, at, end, firsts, reach):
    """Return the next place before ``end`` that has the first byte of a literal, or ``end``."""
    while firsts >= 0 and at < end and at + 64 <= size:
        found = bytes_between(data, at, 0, firsts & 255, 1)
        found |= bytes_between(data, at, 0, firsts >> 8 & 255, 1)
        found |= bytes_between(data, at, 0, firsts >> 16 & 255, 1)
        if found:
            return min(at + trailing_zeros(found), end)
        at += 64
    while at < end and reach[data[at]] == 0:
        at += 1
    return min(at, end)


@cpu_kernel
def _find(text, offsets, table, reach, firsts, seconds, starts, literals, rows):
    """Write each match's start, literal and row of text while there is room; return their number.

    No error check. ``firsts`` has the literals' first bytes, one in each of its three lowest bytes;
    it is negative where they are more. ``seconds`` tells which bytes stand second in one, or could
    stand behind one of a single byte.
    """
    count = 0
    data, reaches = pointer_to(text), pointer_to(reach)
    for row in range(offsets.size - 1):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            i = _next_first_byte(data, text.size, i, end, firsts, reaches)
            if i == end:
                break
            found = np.intp(-1)
            if i + 1 == end or seconds[text[i + 1]]:  # few get so far
                found = _longest_at(text, i, reach[text[i]], end, table)
            if found < 0:
                i += 1
                continue
            if count < starts.size:
                starts[count] = i
                literals[count] = found
                rows[count] = row
            count += 1
            i += table.offsets[found + 1] - table.offsets[found]
    return count


def _first_bytes(reach: np.ndarray) -> int:
    """Return up to three bytes with which literals begin in one number, or -1."""
    firsts = np.flatnonzero(reach).tolist()
    if not 0 < len(firsts) <= _FEW:
        return -1
    first, second, third = (firsts * _FEW)[:_FEW]
    return int(first | second << 8 | third << 16)


def _second_bytes(table: StringTable) -> np.ndarray:
    """Return which bytes may follow the first one of a literal: bool, shape (256,)."""
    lengths = np.diff(table.offsets)
    seconds = np.full(256, bool((lengths == 1).any()))
    seconds[table.values[table.offsets[:-1][lengths > 1] + 1]] = True
    return seconds


def longest_by_first_byte(table: StringTable) -> np.ndarray:
    """Return the length of the longest literal that starts with each byte: int64, shape (256,)."""
    reach = np.zeros(256, np.int64)
    lengths = np.diff(table.offsets)
    filled = lengths > 0
    np.maximum.at(reach, table.values[table.offsets[:-1][filled]], lengths[filled])
    return read_only(reach)


def find_literals(
    text: np.ndarray, table: StringTable, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where literals occur in a text, without overlap.

    Parameters
    ----------
    text : uint8 array, shape (bytes,)
    table : StringTable
        The literals, none of them empty.
    reach : int64 array, shape (256,)
        From :func:`longest_by_first_byte`.

    Returns
    -------
    starts : int64 array, shape (matches,)
        First byte of each match, ascending.
    rows : int32 array, shape (matches,)
        The literal that matched.
    """
    text = np.ascontiguousarray(text, np.uint8)
    offsets = np.array([0, text.size], np.int64)
    return find_literals_in_rows(text, offsets, table, reach)[:2]


def find_literals_in_rows(
    text: np.ndarray, offsets: np.ndarray, table: StringTable, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where literals occur in each of several texts.

    Parameters
    ----------
    text : uint8 array, shape (bytes,)
    offsets : int64 array, shape (texts + 1,)
        Text ``i`` is ``text[offsets[i]:offsets[i + 1]]``.
    table, reach
        As in :func:`find_literals`.

    Returns
    -------
    starts : int64 array, shape (matches,)
        First byte of each match in ``text``, ascending.
    literals : int32 array, shape (matches,)
    rows : int64 array, shape (matches,)
        The text of each match.
    """
    text, offsets = read_only(text), read_only(offsets)
    firsts, seconds = _first_bytes(reach), _second_bytes(table)
    room = 64
    while True:
        starts, literals = np.empty(room, np.int64), np.empty(room, np.int32)
        rows = np.empty(room, np.int64)
        count = int(_find(text, offsets, table, reach, firsts, seconds, starts, literals, rows))
        if count <= room:
            return starts[:count], literals[:count], rows[:count]
        room = count
