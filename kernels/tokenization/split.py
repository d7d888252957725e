"""Divide text into the pieces that merges stay within, by a compiled family of patterns."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.split_block import piece_starts, piece_starts_wide
from numbatch.kernels.tokenization.split_rules import CASED, STYLE
from numbatch.kernels.tokenization.split_scalar import piece_end
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.tokenization.unicode_classes import class_table
from numbatch.kernels.utf8_lanes import COMPRESSES, store_places, widen_places
from numbatch.kernels.words import (
    bytes_from_0x80,
    count_ones,
    leading_zeros,
    pointer_to,
    trailing_zeros,
)

__all__ = ["BLOCK", "MARGIN", "split_pieces", "split_some"]

BLOCK = 64
MARGIN = 2 * BLOCK
"""How many bytes behind what is split can be read."""
_1 = np.uint64(1)
_WORTH = 8
"""A block with fewer bytes of ASCII at its start is left to the loop over characters."""


@cpu_device
def _write_places(mask, at, places, out, count):
    """Write ``at`` plus the place of each bit; return how many there are.

    Eight by eight: a branch guessed wrong costs more than a few numbers that are overwritten.
    ``places`` has room for 64 bytes.
    """
    ones = count_ones(mask)
    if COMPRESSES:
        store_places(mask, places, 0)
        for i in range(0, ones, 8):
            widen_places(places, i, at, out, count + i)
        return ones
    while mask:
        for i in range(8):
            out[count + i] = at + trailing_zeros(mask)
            mask &= mask - _1
        count += 8
    return ones


@cpu_device
def split_some(text, at, stop, end, rules, classes, places, ends, room):
    """Write the ends of pieces from ``at`` on; return their number and where the last one ends.

    No error check. ``text`` can be read up to ``stop + MARGIN``. ``stop`` is where a piece ends or
    the text does (``end``). Ends early where ``ends`` has not room for 64 more pieces. ``places``
    has room for 64 bytes.
    """
    count = np.intp(0)
    while at < stop and count + BLOCK < room:
        others, valid = bytes_from_0x80(text, at), end - at
        starts = np.uint64(0)
        if COMPRESSES and others and rules & STYLE != CASED:
            starts = piece_starts_wide(text, at, end, others, rules, classes)
        else:
            valid = min(trailing_zeros(others), valid)
            if valid >= _WORTH:
                starts = piece_starts(text, at, end, valid, rules)
        starts &= starts - _1
        if starts:
            count += _write_places(starts, at, places, ends, count)
            at += BLOCK - 1 - leading_zeros(starts)
        else:
            at = piece_end(text, at, end, rules, classes)
            ends[count] = at
            count += 1
    while count > 0 and at > stop:  # a block may have run past the part that was asked for
        count -= 1
        at = ends[count - 1] if count > 0 else stop
    return count, at


@cpu_kernel
def _split(text, at, end, rules, classes, places, ends):
    """Write the ends of pieces while there is room; return what ``split_some`` does."""
    return split_some(
        pointer_to(text), at, end, end, rules, pointer_to(classes), pointer_to(places),
        pointer_to(ends), ends.size,
    )  # fmt: skip


def split_pieces(text: np.ndarray, rules: int) -> np.ndarray:
    """Return where the pieces of a text end: int64, shape (pieces,).

    Parameters
    ----------
    text : uint8 array, shape (bytes,)
        Valid UTF-8.
    rules : int
        A family, see :mod:`~numbatch.kernels.tokenization.split_rules`.
    """
    size = text.size
    padded = np.zeros(size + MARGIN, np.uint8)
    padded[:size] = text
    padded = read_only(padded)
    places, ends = np.empty(BLOCK, np.uint8), np.empty(4096, np.int64)
    parts, at = [], 0
    while at < size:
        count, at = _split(padded, at, size, rules, class_table(), places, ends)
        parts.append(ends[:count].copy())
    return np.concatenate([np.empty(0, np.int64), *parts])
