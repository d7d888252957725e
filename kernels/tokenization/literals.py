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

__all__ = ["find_literals", "longest_by_first_byte"]


@cpu_device
def _longest_at(text, start, reach, table):
    """Return the row of the longest literal that starts at ``start``, or -1."""
    found = -1
    state = HASH_START
    for stop in range(start + 1, min(start + reach, text.size) + 1):
        state = extend_hash(state, text[stop - 1])
        row = find_hashed_string(state, text, start, stop, table)
        if row >= 0:
            found = row
    return found


@cpu_kernel
def _find(text, table, reach, starts, rows):
    """Write each match's start and row while there is room; return their number.

    No error check.
    """
    count = 0
    i = np.intp(0)
    while i < text.size:
        row = -1
        if reach[text[i]] > 0:
            row = _longest_at(text, i, reach[text[i]], table)
        if row < 0:
            i += 1
            continue
        if count < starts.size:
            starts[count] = i
            rows[count] = row
        count += 1
        i += table.offsets[row + 1] - table.offsets[row]
    return count


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
    text = read_only(np.ascontiguousarray(text, np.uint8))
    room = 64
    while True:
        starts, rows = np.empty(room, np.int64), np.empty(room, np.int32)
        count = int(_find(text, table, reach, starts, rows))
        if count <= room:
            return starts[:count], rows[:count]
        room = count
