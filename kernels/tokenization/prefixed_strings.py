"""Byte strings that lie one behind the other, each behind its length in 8 bytes."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import load_word, pointer_to

__all__ = ["read_prefixed"]


@cpu_kernel
def _read_prefixed(data, at, ends, out):
    """Write where strings end once they lie side by side, and their bytes if ``out`` has room.

    Returns where the last ends in ``data``, or ``-1 - i`` where string ``i`` ends beyond it.
    """
    pointer, total = pointer_to(data), np.intp(0)
    for i in range(ends.size):
        if at + 8 > data.size:
            return -1 - i
        length = load_word(pointer, at)
        at += 8
        if length > np.uint64(data.size - at):
            return -1 - i
        stop = at + np.intp(length)
        if out.size:
            for source in range(at, stop):
                out[total + source - at] = data[source]
        total += stop - at
        at = stop
        ends[i] = total
    return at


def read_prefixed(data: np.ndarray, at: int, count: int) -> tuple[Ragged, int]:
    """Return strings and where the last of them ends.

    Parameters
    ----------
    data : uint8 array
    at : int
        Where the first string's length begins; lengths are little-endian.
    count : int
        How many strings there are, no more than ``data`` has room for.

    Raises
    ------
    IndexError
        If a string ends beyond the data; its argument is the byte up to which the data should go.
    """
    offsets = np.zeros(count + 1, np.int64)
    data, ends = read_only(data), offsets[1:]
    stop = int(_read_prefixed(data, at, ends, np.empty(0, np.uint8)))
    if stop < 0:
        broken = -1 - stop
        begin = at + 8 * (broken + 1) + int(offsets[broken])
        length = int.from_bytes(data[begin - 8 : begin].tobytes(), "little")
        raise IndexError(begin + (length if begin <= data.size else 0))
    out = np.empty(int(offsets[-1]), np.uint8)
    _read_prefixed(data, at, ends, out)
    return Ragged(out, offsets), stop
