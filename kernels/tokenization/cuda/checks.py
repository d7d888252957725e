"""What a text must not hold for its ids to be found on the device.

Added tokens, and characters that a normalizer may change.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.tables import (
    HASH_START,
    StringTable,
    extend_hash,
    find_hashed_string,
)
from numbatch.kernels.tokenization.unicode_classes import PAGES

__all__ = ["UNSURE", "composition_table", "count_literals", "count_unsure", "insert_start"]

UNSURE = 255
"""In place of a combining class: composition may change the character or what is before it."""


@cpu_device
def _literal_at(text, at, size, reach, slots, values, offsets):
    """Return whether a literal begins at a place."""
    table = StringTable(slots, values, offsets)
    state = HASH_START
    for stop in range(at + 1, min(at + reach[text[at]], size) + 1):
        state = extend_hash(state, text[stop - 1])
        if find_hashed_string(state, text, at, stop, table) >= 0:
            return True
    return False


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
def _is_unsure(text, at, size, table):
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


literal_at = shared_body(_literal_at)
is_unsure = shared_body(_is_unsure)


@cuda_kernel
def count_literals(text, size, reach, slots, values, offsets, counters):
    """Raise ``counters[0]`` for each place where a literal begins, across texts too.

    No error check. ``reach`` (int64, shape (256,)) is the length of the longest by its first byte.
    """
    at = cuda.grid(1)
    if (
        at < size
        and reach[text[at]] > 0
        and literal_at(text, at, size, reach, slots, values, offsets)
    ):
        cuda.atomic.add(counters, 0, 1)


@cuda_kernel
def count_unsure(text, size, table, counters):
    """Raise ``counters[0]`` for each character that form NFC may change; no error check."""
    at = cuda.grid(1)
    if at < size and text[at] >= 0xC0 and is_unsure(text, at, size, table):
        cuda.atomic.add(counters, 0, 1)


@cuda_kernel
def insert_start(ids, offsets, start, out, out_offsets):
    """Copy each row with ``start`` before it, a block a row; no error check."""
    row = cuda.blockIdx.x
    low, high = offsets[row], offsets[row + 1]
    base = low + row
    i = cuda.threadIdx.x
    if i == 0:
        out[base] = start
        out_offsets[row + 1] = high + row + 1
        if row == 0:
            out_offsets[0] = 0
    while i < high - low:
        out[base + 1 + i] = ids[low + i]
        i += cuda.blockDim.x


@functools.cache
def composition_table() -> np.ndarray:
    """Return the combining class of each code point, or ``UNSURE``: uint8, in two steps.

    The entry of code point ``c`` is ``table[PAGES + (table[c >> 8] << 8) + (c & 255)]``. A code
    point is unsure if form NFC is not itself, or if it composes with one before it.
    """
    pages = np.zeros(PAGES << 8, np.uint8)
    unsure = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]  # vowels and finals of Hangul
    for code in range(0x80, PAGES << 8):
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
    return np.frombuffer(bytes(index) + b"".join(distinct), np.uint8)
