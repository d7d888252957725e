"""Where a piece ends: one character after another, for any text.

The patterns are in ``models/tokenizers/split_patterns.py``; each function here is one of their
alternatives. A piece that has begun at ``at`` depends on nothing before ``at``, so a text can be
divided from any start of a piece on.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.tokenization.split_rules import (
    APART,
    CASED,
    CONTRACTIONS,
    END_SPACES,
    ONE_DIGIT,
    SPACED,
    STYLE,
    THREE_DIGITS,
)
from numbatch.kernels.tokenization.unicode_classes import (
    LETTER,
    LOWER,
    NEWLINE,
    NUMBER,
    PAGES,
    SPACE,
    UPPER,
)

__all__ = ["character_class", "contraction_end", "piece_end"]

WORD = LETTER | NUMBER | SPACE  # what is none of these is a sign


@cpu_device
def _character(text, at, classes):
    """Return the class of the character at ``at`` and where the next one begins."""
    first = np.intp(text[at])
    if first < 0x80:
        return np.intp(classes[PAGES + (np.intp(classes[0]) << 8) + first]), at + 1
    if first < 0xE0:
        code = (first & 0x1F) << 6 | (text[at + 1] & 0x3F)
        after = at + 2
    elif first < 0xF0:
        code = (first & 0x0F) << 12 | (text[at + 1] & 0x3F) << 6 | (text[at + 2] & 0x3F)
        after = at + 3
    else:
        code = (first & 0x07) << 18 | (text[at + 1] & 0x3F) << 12
        code |= (text[at + 2] & 0x3F) << 6 | (text[at + 3] & 0x3F)
        after = at + 4
    return np.intp(classes[PAGES + (np.intp(classes[code >> 8]) << 8) + (code & 255)]), after


@cpu_device
def character_class(text, at, classes):
    """Return the class of the character at ``at``, which is not ASCII; reads four bytes.

    With few branches: scripts are mixed, and what comes next is guessed wrong often.
    """
    first, second = np.intp(text[at]), np.intp(text[at + 1]) & 0x3F
    third = np.intp(text[at + 2]) & 0x3F
    code = (first & 0x0F) << 12 | second << 6 | third
    if first < 0xE0:
        code = (first & 0x1F) << 6 | second
    if first >= 0xF0:
        code = (first & 0x07) << 18 | second << 12 | third << 6 | (np.intp(text[at + 3]) & 0x3F)
    return np.intp(classes[PAGES + (np.intp(classes[code >> 8]) << 8) + (code & 255)])


@cpu_device
def _run_end(text, at, end, mask, most, classes):
    """Return where a run of at most ``most`` characters of these classes ends."""
    while at < end and most > 0:
        kind, after = _character(text, at, classes)
        if not kind & mask:
            break
        at = after
        most -= 1
    return at


@cpu_device
def contraction_end(text, at, end, rules):
    """Return where the contraction at the apostrophe ``at`` ends; ``at`` if there is none."""
    small_only = rules & STYLE == SPACED
    if at + 1 >= end:
        return at
    first = text[at + 1] if small_only else text[at + 1] | 0x20
    if first == 0x73 or first == 0x64 or first == 0x6D or first == 0x74:
        return at + 2
    if at + 2 >= end:
        return at
    second = text[at + 2] if small_only else text[at + 2] | 0x20
    double_l = first == 0x6C and second == 0x6C
    if double_l or (second == 0x65 and (first == 0x76 or first == 0x72)):
        return at + 3
    # (?i:s) also matches the long s, U+017F.
    if not small_only and text[at + 1] == 0xC5 and text[at + 2] == 0xBF:
        return at + 3
    return at


@cpu_device
def _cased_word_end(text, at, end, classes):
    """Return where ``UPPER* LOWER+`` ends; ``at`` where it does not match."""
    i = at
    both = at
    kind = np.intp(0)
    while i < end:
        kind, after = _character(text, i, classes)
        if not kind & UPPER:
            break
        i = after
        if kind & LOWER:
            both = i
    if i < end and kind & LOWER:
        return _run_end(text, i, end, LOWER, end, classes)
    return both  # UPPER* gives back what is LOWER too


@cpu_device
def _cased_end(text, at, kind, after, end, rules, classes):
    """Return where a word with capitals ends; ``at`` if none begins here."""
    prefixed = not kind & (LETTER | NUMBER | NEWLINE) and after < end
    stop = after
    if prefixed:
        stop = _cased_word_end(text, after, end, classes)
    if stop == after or not prefixed:
        stop = _cased_word_end(text, at, end, classes)
        if stop == at and prefixed:
            stop = _run_end(text, after, end, UPPER, end, classes)
            if stop == after:
                stop = at
        if stop == at:
            stop = _run_end(text, at, end, UPPER, end, classes)
    if stop > at and rules & CONTRACTIONS and stop < end and text[stop] == 0x27:
        stop = contraction_end(text, stop, end, rules)
    return stop


@cpu_device
def _spaces_end(text, at, end, rules, classes):
    """Return where the piece of white space at ``at`` ends."""
    i = at
    last = at
    after_newline = at
    kind = np.intp(0)
    while i < end:
        kind, after = _character(text, i, classes)
        if not kind & SPACE:
            break
        last = i
        i = after
        if kind & NEWLINE:
            after_newline = i
    if rules & STYLE == SPACED:
        if i == end or (rules & APART and kind & NUMBER):
            return i
    else:
        if i == end and rules & END_SPACES:
            return i
        if after_newline > at:
            return after_newline
        if i == end:
            return i
    return last if last > at else i  # the last one goes with what follows


@cpu_device
def _signs_end(text, at, end, rules, classes):
    """Return where a run of signs ends, with the line ends that belong to it."""
    while at < end:
        kind, after = _character(text, at, classes)
        if kind & WORD:
            break
        at = after
    if rules & STYLE != SPACED:
        slash = 0x2F if rules & STYLE == CASED else 0x0A
        while at < end and (text[at] == 0x0A or text[at] == 0x0D or text[at] == slash):
            at += 1
    return at


@cpu_device
def _spaced_end(text, at, end, rules, classes):
    """Return where a piece of style SPACED ends."""
    kind, after = _character(text, at, classes)
    start = at
    if text[at] == 0x20 and after < end:
        next_kind, _ = _character(text, after, classes)
        if not next_kind & (SPACE | NUMBER if rules & APART else SPACE):
            start, kind = after, next_kind
    if kind & SPACE:
        return _spaces_end(text, at, end, rules, classes)
    if kind & NUMBER:
        most = np.intp(1) if rules & ONE_DIGIT else end
        return _run_end(text, start, end, NUMBER, most, classes)
    if kind & LETTER:
        return _run_end(text, start, end, LETTER, end, classes)
    return _signs_end(text, start, end, rules, classes)


@cpu_device
def _prefixed_end(text, at, end, rules, classes):
    """Return where a piece of style PREFIXED or CASED ends."""
    kind, after = _character(text, at, classes)
    if rules & STYLE == CASED:
        stop = _cased_end(text, at, kind, after, end, rules, classes)
        if stop > at:
            return stop
    elif kind & LETTER:
        return _run_end(text, after, end, LETTER, end, classes)
    elif not kind & (NUMBER | NEWLINE):
        stop = _run_end(text, after, end, LETTER, end, classes)
        if stop > after:
            return stop
    if kind & NUMBER:
        most = np.intp(3) if rules & THREE_DIGITS else np.intp(1)
        return _run_end(text, at, end, NUMBER, most, classes)
    if not kind & SPACE:
        return _signs_end(text, at, end, rules, classes)
    if text[at] == 0x20 and after < end:
        next_kind, _ = _character(text, after, classes)
        if not next_kind & WORD:
            return _signs_end(text, after, end, rules, classes)
    return _spaces_end(text, at, end, rules, classes)


@cpu_device
def piece_end(text, at, end, rules, classes):
    """Return where the piece that begins at ``at`` ends.

    Parameters
    ----------
    text : uint8 array
        Valid UTF-8.
    at, end : int
        Start of the piece and end of the text.
    rules : int
        A family, see :mod:`~numbatch.kernels.tokenization.split_rules`.
    classes : uint8 array
        From :func:`~numbatch.kernels.tokenization.unicode_classes.class_table`.
    """
    style = rules & STYLE
    if text[at] == 0x27 and rules & CONTRACTIONS and style != CASED:
        stop = contraction_end(text, at, end, rules)
        if stop > at:
            return stop
    if style == SPACED:
        return _spaced_end(text, at, end, rules, classes)
    return _prefixed_end(text, at, end, rules, classes)
