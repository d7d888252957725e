"""From GPT-2's visible spelling of bytes, as UTF-8, to the bytes."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only

__all__ = ["CODES", "read_spelled"]

CODES = 1 << 11
"""Characters of one or two bytes of UTF-8, among which are all that spell a byte."""


@cpu_kernel
def _read_spelled(values, offsets, raw, keeps, byte_of, out, ends):
    """Write each row's bytes and where they end. No error check: the rows are valid UTF-8."""
    total = np.intp(0)
    for row in range(raw.size):
        begin, at, stop = total, offsets[row], offsets[row + 1]
        spells = not raw[row]
        while spells and at < stop:
            code = np.intp(values[at])
            at += 1
            if code >= 0x80 and code < 0xE0:
                code = (code & 0x1F) << 6 | np.intp(values[at] & 0x3F)
                at += 1
            elif code >= 0xE0:
                code = np.intp(0x80)  # no more than two bytes spell one; nor does this
            spells = byte_of[code] >= 0
            out[total] = np.uint8(byte_of[code])
            total += 1
        if not spells:
            total = begin
            if keeps:
                for i in range(offsets[row], stop):
                    out[total] = values[i]
                    total += 1
        ends[row] = total


def read_spelled(texts: Ragged, raw: np.ndarray, byte_of: np.ndarray, *, keeps: bool) -> Ragged:
    """Return the bytes that each row spells.

    Parameters
    ----------
    texts : Ragged of uint8
        Valid UTF-8.
    raw : bool array, shape (rows,)
        Rows that spell nothing, as those with a character that spells no byte.
    byte_of : int16 array, shape (CODES,)
        The byte that a character spells, or -1, as for U+0080.
    keeps : bool
        Whether such rows stay as they are; otherwise they become empty.
    """
    out = np.empty(texts.values.size, np.uint8)
    offsets = np.zeros(len(texts) + 1, np.int64)
    values, begins = read_only(texts.values), read_only(texts.offsets)
    _read_spelled(values, begins, read_only(raw), keeps, read_only(byte_of), out, offsets[1:])
    return Ragged(out[: offsets[-1]], offsets)
