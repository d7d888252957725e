"""Places at which a piece surely begins, whatever stands before, and checks of UTF-8.

A device cuts one text at many such places at once. The rule looks at two characters alone, for
every compiled family of patterns: after a letter comes no letter, after a number no number, or
after a line end no white space.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.tokenization.split_rules import CASED, STYLE
from numbatch.kernels.tokenization.split_scalar import _character as character
from numbatch.kernels.tokenization.unicode_classes import (
    LETTER,
    LOWER,
    NEWLINE,
    NUMBER,
    SPACE,
    UPPER,
    class_table,
)

__all__ = ["find_invalid", "first_boundary", "first_invalid", "is_boundary", "sure_starts"]


@cpu_device
def _divides(before, here, byte, rules):
    """Return whether a piece begins between two characters of these classes.

    In style CASED marks belong to words, and an apostrophe may go on with one; a slash goes with
    the line ends before it.
    """
    cased = rules & STYLE == CASED
    if before & LETTER:
        if cased:
            return not here & (UPPER | LOWER) and byte != 0x27
        return not here & LETTER
    if before & NUMBER:
        return not here & NUMBER
    if before & NEWLINE:
        return not here & SPACE and not (cased and byte == 0x2F)
    return False


@cpu_device
def is_boundary(text, begin, at, rules, classes):
    """Return whether a piece surely begins at the character ``at``, after ``begin``."""
    before = at - 1
    while before > begin and text[before] & 0xC0 == 0x80:
        before -= 1
    kind, _ = character(text, before, classes)
    here, _ = character(text, at, classes)
    return _divides(kind, here, np.intp(text[at]), rules)


@cpu_device
def first_boundary(text, begin, low, high, rules, classes):
    """Return the first place in ``low`` to ``high - 1`` where a piece surely begins, else -1.

    No error check. The text begins at ``begin`` and goes on to ``high`` at least.
    """
    if low == begin:
        return low
    at = low
    while at < high and text[at] & 0xC0 == 0x80:
        at += 1
    if at >= high:
        return np.intp(-1)
    before = at - 1
    while before > begin and text[before] & 0xC0 == 0x80:
        before -= 1
    kind, _ = character(text, before, classes)
    while at < high:
        here, after = character(text, at, classes)
        if _divides(kind, here, np.intp(text[at]), rules):
            return at
        kind, at = here, after
    return np.intp(-1)


@cpu_device
def _lead_size(byte):
    """Return how many bytes a character has that begins with this one; 0 where none does."""
    if byte < 0x80:
        return 1
    if byte < 0xC2 or byte > 0xF4:
        return 0
    return 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)


@cpu_device
def _character_is_valid(text, at, end):
    first = np.intp(text[at])
    size = _lead_size(first)
    if size == 0 or at + size > end:
        return False
    for i in range(1, size):
        if text[at + i] & 0xC0 != 0x80:
            return False
    second = np.intp(text[at + 1]) if size > 2 else 0x80
    if first == 0xE0:
        return second >= 0xA0
    if first == 0xED:
        return second < 0xA0
    if first == 0xF0:
        return second >= 0x90
    return first != 0xF4 or second < 0x90


@cpu_device
def first_invalid(text, begin, end, low, high):
    """Return the first byte in ``low`` to ``high - 1`` that is no UTF-8, else -1. No error check.

    Unicode 16, table 3-7. Looks at bytes of the text, ``begin`` to ``end - 1``, alone.
    """
    at = low
    while at < high:
        if text[at] < 0x80:
            at += 1
        elif text[at] >= 0xC0:
            if not _character_is_valid(text, at, end):
                return at
            at += _lead_size(np.intp(text[at]))
        else:
            lead = at - 1
            while lead >= begin and lead > at - 3 and text[lead] & 0xC0 == 0x80:
                lead -= 1
            if lead < begin or text[lead] < 0xC0 or lead + _lead_size(np.intp(text[lead])) <= at:
                return at
            at += 1
    return np.intp(-1)


@cpu_kernel
def _mark(text, rules, classes, marks):
    at = np.intp(0)
    while at < text.size:
        found = first_boundary(text, np.intp(0), at, np.intp(text.size), rules, classes)
        if found < 0:
            break
        marks[found] = True
        at = found + 1


def sure_starts(text: np.ndarray, rules: int) -> np.ndarray:
    """Return at which bytes of a text a piece surely begins: bool, shape (bytes,).

    Parameters
    ----------
    text : uint8 array, shape (bytes,)
        Valid UTF-8.
    rules : int
        A family, see :mod:`~numbatch.kernels.tokenization.split_rules`.
    """
    marks = np.zeros(text.size, np.bool_)
    _mark(np.ascontiguousarray(text, np.uint8), rules, class_table(), marks)
    return marks


@cpu_kernel
def _find_invalid(text, cut):
    end = np.intp(text.size)
    found = first_invalid(text, np.intp(0), end, np.intp(0), np.intp(cut))
    return found if found >= 0 else first_invalid(text, np.intp(0), end, np.intp(cut), end)


def find_invalid(text: bytes, cut: int) -> int:
    """Return the first byte that is no UTF-8, or -1; a text looked at in two parts, as threads do.

    Parameters
    ----------
    text : bytes
    cut : int
        Where the second part begins.
    """
    return int(_find_invalid(np.frombuffer(text, np.uint8), cut))
