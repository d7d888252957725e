"""Which texts Unicode's form NFC may change: a quick check, before anything is normalized."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.tokenization.unicode_classes import PAGES
from numbatch.kernels.words import bytes_between, pointer_to, trailing_zeros

__all__ = ["UNSURE", "composition_table", "is_unsure", "rows_to_normalize"]

UNSURE = 255
"""In place of a combining class: composition may change the character or what is before it."""
_FIRST_BYTE = 0xCC
"""No character that begins with a lower byte, none below U+0300, is changed by composition."""
_BLOCK = np.intp(64)
_ASSIGNED = (range(0x80, 0x20000), range(0x2F800, 0x2FA20))
"""Where characters lie that have a combining class or a decomposition."""


@cpu_device
def _class_of(text, at, size, table):
    """Return the entry of the character at a place; 0 where none begins."""
    first = np.intp(text[at])
    if first < 0xC0:
        return np.intp(0)
    if at + 3 >= size and at + (2 if first < 0xE0 else 3 if first < 0xF0 else 4) > size:
        return np.intp(UNSURE)  # no UTF-8
    if first < 0xE0:
        code = (first & 0x1F) << 6 | np.intp(text[at + 1] & 0x3F)
    elif first < 0xF0:
        code = (first & 0x0F) << 12 | np.intp(text[at + 1] & 0x3F) << 6
        code |= np.intp(text[at + 2] & 0x3F)
    else:
        code = (first & 0x07) << 18 | np.intp(text[at + 1] & 0x3F) << 12
        code |= np.intp(text[at + 2] & 0x3F) << 6 | np.intp(text[at + 3] & 0x3F)
    if code >> 8 >= PAGES:
        return np.intp(UNSURE)
    return np.intp(table[PAGES + (np.intp(table[code >> 8]) << 8) + (code & 255)])


@cpu_device
def is_unsure(text, at, size, table):
    """Return whether form NFC may change the character at a place: Unicode's quick check.

    UAX #15, section 9: it may where its property says so, or where combining classes decrease.
    """
    here = _class_of(text, at, size, table)
    if here == 0 or here == UNSURE:
        return here == UNSURE
    before = at - 1
    while before > 0 and text[before] & 0xC0 == 0x80:
        before -= 1
    return before >= 0 and _class_of(text, before, size, table) > here


@cpu_device
def _may_change(text, begin, end, size, table):
    """Return whether form NFC may change ``text[begin:end]``; ``text`` has ``size`` bytes."""
    data = pointer_to(text)
    at = begin
    while at < end:
        if at + _BLOCK <= size:
            leads = bytes_between(data, at, 0, _FIRST_BYTE, 0x100 - _FIRST_BYTE)
            if leads == np.uint64(0):
                at += _BLOCK
                continue
            at += trailing_zeros(leads)
            if at >= end:
                return False
        if text[at] >= _FIRST_BYTE and is_unsure(text, at, size, table):
            return True
        at += 1
    return False


@cpu_kernel
def _flag_rows(text, offsets, table, flags):
    """Set the flag of each row that form NFC may change. No error check."""
    for row in range(flags.size):
        flags[row] = _may_change(text, offsets[row], offsets[row + 1], text.size, table)


def rows_to_normalize(text: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rows that form NFC may change, and few others: int64, ascending.

    Parameters
    ----------
    text : uint8 array
        Valid UTF-8.
    offsets : int64 array, shape (rows + 1,)
        Row ``i`` is ``text[offsets[i]:offsets[i + 1]]``.
    """
    flags = np.zeros(offsets.size - 1, np.bool_)
    _flag_rows(read_only(text), read_only(offsets), composition_table(), flags)
    return np.flatnonzero(flags)


@functools.cache
def composition_table() -> np.ndarray:
    """Return the combining class of each code point, or ``UNSURE``: uint8, in two steps.

    The entry of code point ``c`` is ``table[PAGES + (table[c >> 8] << 8) + (c & 255)]``. A code
    point is unsure if form NFC is not itself, or if it composes with one before it.
    """
    pages = np.zeros(PAGES << 8, np.uint8)
    unsure = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]  # vowels and finals of Hangul
    for code in (code for codes in _ASSIGNED for code in codes):
        text = chr(code)
        if 0xD800 <= code < 0xE000:
            continue
        pages[code] = unicodedata.combining(text)
        parts = unicodedata.decomposition(text).split()
        if not parts or parts[0].startswith("<"):
            continue
        if unicodedata.normalize("NFC", text) != text:
            unsure.append(code)
        elif len(parts) == 2:
            unsure.append(int(parts[1], 16))
    pages[unsure] = UNSURE
    distinct: dict[bytes, int] = {}
    index = [distinct.setdefault(page.tobytes(), len(distinct)) for page in pages.reshape(-1, 256)]
    return read_only(np.frombuffer(bytes(index) + b"".join(distinct), np.uint8))
