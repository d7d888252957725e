"""Where pieces begin in up to 64 bytes, by masks instead of a loop.

Bit ``i`` of a mask stands for character ``i`` of the block. In ASCII that is byte ``i``; elsewhere
the bits of the bytes that begin a character are pressed together, and spread again at the end. The
block begins at the start of a piece, so nothing before it matters, and no carries go from block to
block. What the block's end leaves open is not answered: the next block begins at the last start
that is sure.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.split_rules import (
    APART,
    CASED,
    CONTRACTIONS,
    ONE_DIGIT,
    SPACED,
    STYLE,
    THREE_DIGITS,
)
from numbatch.kernels.tokenization.split_scalar import character_class, contraction_end
from numbatch.kernels.words import (
    bytes_between,
    count_ones,
    deposit_bits,
    extract_bits,
    leading_zeros,
    trailing_zeros,
)

__all__ = ["piece_starts", "piece_starts_wide"]

_0, _1, _2, _3 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@cpu_device
def _below(bit):
    """Return the mask of the bits below ``bit``, which is from 0 to 64."""
    return _ALL if bit >= 64 else (_1 << np.uint64(bit)) - _1


@cpu_device
def _number_starts(digits, rules):
    first = digits & ~(digits << _1)
    if rules & ONE_DIGIT:
        return digits
    if rules & THREE_DIGITS:
        fourth = digits & (digits << _1)
        fourth &= fourth << _1
        fourth &= digits << _3  # a digit with three before it
        more = (first << _3) & fourth
        while more:
            first |= more
            more = (more << _3) & fourth
    return first


@cpu_device
def _without_blank_lines(starts, spaces, newlines):
    """Take out the spaces after a line end that run into another line end."""
    left = starts
    while left:
        at = np.uint64(trailing_zeros(left))
        behind = trailing_zeros(~spaces >> at)
        if behind < 64 and (newlines >> at) >> np.uint64(behind) & _1:
            starts ^= _1 << at
        left &= left - _1
    return starts


@cpu_device
def _space_starts(spaces, newlines, absorbed):
    """Return the starts of white space in the styles PREFIXED and CASED.

    A run of white space is a piece up to its last line end, then one up to its last character,
    which goes with what follows. Signs before the run have absorbed its first line ends.
    """
    white = (spaces | newlines) & ~absorbed
    first = white & ~(white << _1)
    last = spaces & ~((spaces | newlines) >> _1)
    indents = spaces & ((newlines & ~absorbed) << _1)
    if (spaces + indents) & ~spaces & newlines:
        indents = _without_blank_lines(indents, spaces, newlines)
    return first | last | indents


@cpu_device
def _apply_contractions(text, at, end, valid, leads, starts, apostrophes, letters, rules):
    """Return the starts corrected for contractions, and how many bits of them are sure."""
    style = rules & STYLE
    candidates = apostrophes
    if style == CASED:
        candidates &= letters << _1  # the end of a word
    else:
        candidates &= starts
    taken = np.intp(0)
    while candidates:
        bit = trailing_zeros(candidates)
        candidates &= candidates - _1
        if style == CASED and bit == taken and taken > 0:
            continue  # what stands before it is a contraction already
        if bit + 3 > valid:
            return starts, (bit if style == CASED else bit + 1)
        place = at + bit
        if leads != _ALL:
            place = at + trailing_zeros(deposit_bits(_1 << np.uint64(bit), leads))
        size = contraction_end(text, place, end, rules) - place
        if size > 0:
            # The long s is a character of two bytes.
            after = bit + (size if text[place + 1] < 0x80 else 2)
            inside = _below(after) & ~_below(bit if style == CASED else bit + 1)
            starts = (starts & ~inside) | _1 << np.uint64(after)
            taken = after
    return starts, valid


@cpu_device
def _spaced_starts(letters, digits, blanks, white, signs, rules):
    """Return the starts in the style SPACED, those of numbers apart."""
    joined = blanks << _1
    words = letters & ~(letters << _1) & ~joined
    marks = signs & ~(signs << _1) & ~joined
    nothing = white | (digits if rules & APART else _0)
    return words | marks | (white & ~(white << _1)) | (white & ~(nothing >> _1))


@cpu_device
def _prefixed_starts(letters, small, blanks, white, newlines, slashes, signs, rules):
    """Return the starts in the styles PREFIXED and CASED, those of numbers apart."""
    after_signs = (signs << _1) & newlines
    more = newlines
    if rules & STYLE == CASED:
        more |= slashes
    absorbed = (more & ~(more + after_signs)) | after_signs
    spaces = white & ~newlines
    marks = signs & ~absorbed & (~((signs | blanks) << _1) | (absorbed << _1))
    words = letters & ~((letters | spaces | marks) << _1)
    if rules & STYLE == CASED:
        words |= (letters & ~small) & (small << _1)
    return words | marks | _space_starts(spaces, newlines, absorbed)


@cpu_device
def _known_starts(
    text, at, end, valid, leads, letters, small, digits, blanks, white, newlines, slashes,
    apostrophes, rules,
):  # fmt: skip
    """Return the mask of the starts among the first ``valid`` characters, as far as sure."""
    signs = _below(valid) & ~(letters | digits | white)
    starts = _number_starts(digits, rules)
    if rules & STYLE == SPACED:
        if not rules & ONE_DIGIT:
            starts &= ~(blanks << _1)
        starts |= _spaced_starts(letters, digits, blanks, white, signs, rules)
    else:
        starts |= _prefixed_starts(letters, small, blanks, white, newlines, slashes, signs, rules)
    starts |= _1
    sure = np.intp(valid)
    if apostrophes and rules & CONTRACTIONS:
        starts, sure = _apply_contractions(
            text, at, end, valid, leads, starts, apostrophes, letters, rules
        )
    # White space at the end of what is known: only its first start is sure.
    trailing = leading_zeros(~(white << np.uint64(64 - valid)))
    if trailing > 0:
        sure = min(sure, valid - trailing + 1)
    return (starts & _below(sure)) | _1


@cpu_device
def piece_starts(text, at, end, valid, rules):
    """Return the mask of the starts of pieces from ``at`` on, as far as they are sure.

    No error check. ``at`` is the start of a piece; ``text`` has at least 64 bytes from there on,
    of which the first ``valid`` are ASCII and before ``end``. Bit 0 is always set.
    """
    known = _below(valid)
    letters = bytes_between(text, at, 0x20, 0x61, 26) & known
    small = bytes_between(text, at, 0, 0x61, 26) & known
    digits = bytes_between(text, at, 0, 0x30, 10) & known
    blanks = bytes_between(text, at, 0, 0x20, 1) & known
    white = (bytes_between(text, at, 0, 0x09, 5) & known) | blanks
    newlines = bytes_between(text, at, 0, 0x0A, 1) | bytes_between(text, at, 0, 0x0D, 1)
    slashes = bytes_between(text, at, 0, 0x2F, 1) & known
    apostrophes = bytes_between(text, at, 0, 0x27, 1) & known
    return _known_starts(
        text, at, end, valid, _ALL, letters, small, digits, blanks, white, newlines & known,
        slashes, apostrophes, rules,
    )  # fmt: skip


@cpu_device
def _whole_characters(text, at, valid):
    """Return the mask of the bytes that begin a character which ends before ``valid``."""
    leads = ~bytes_between(text, at, 0, 0x80, 0x40) & _below(valid)
    last = 63 - leading_zeros(leads)
    first = text[at + last]
    size = 1 + np.intp(first >= 0xC0) + np.intp(first >= 0xE0) + np.intp(first >= 0xF0)
    if last + size > valid:
        leads ^= _1 << np.uint64(last)
    return leads


@cpu_device
def piece_starts_wide(text, at, end, others, rules, classes):
    """Return what ``piece_starts`` does, of any text, in the styles SPACED and PREFIXED.

    No error check. ``text`` has at least 64 bytes from ``at`` on; ``others`` is the mask of those
    that are not ASCII. Needs ``extract_bits`` and ``deposit_bits``.
    """
    leads = _whole_characters(text, at, min(np.intp(64), end - at))
    letters = bytes_between(text, at, 0x20, 0x61, 26)
    digits = bytes_between(text, at, 0, 0x30, 10)
    blanks = bytes_between(text, at, 0, 0x20, 1)
    white = bytes_between(text, at, 0, 0x09, 5) | blanks
    newlines = bytes_between(text, at, 0, 0x0A, 1) | bytes_between(text, at, 0, 0x0D, 1)
    apostrophes = extract_bits(bytes_between(text, at, 0, 0x27, 1), leads)
    others &= leads
    while others:
        place = trailing_zeros(others)
        others &= others - _1
        kind = np.uint64(character_class(text, at + place, classes))
        letters |= (kind & _1) << np.uint64(place)
        digits |= (kind >> _1 & _1) << np.uint64(place)
        white |= (kind >> _2 & _1) << np.uint64(place)
    letters, digits = extract_bits(letters, leads), extract_bits(digits, leads)
    blanks, white = extract_bits(blanks, leads), extract_bits(white, leads)
    newlines = extract_bits(newlines, leads)
    starts = _known_starts(
        text, at, end, count_ones(leads), leads, letters, _0, digits, blanks, white, newlines, _0,
        apostrophes, rules,
    )  # fmt: skip
    return deposit_bits(starts, leads)
