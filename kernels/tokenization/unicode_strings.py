"""UTF-8 of CPython's strings, read where they lie.

Since PEP 393 a string object holds its characters behind its header, one, two or four bytes each.
Reading them needs no call a string, and no copy but into the array that the kernels work on.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.utf8_lanes import COMPRESSES, store_ascii, store_utf8
from numbatch.kernels.words import (
    copy_bytes,
    pointer_to,
    uint8_at,
    uint8_pointer,
    uint16_at,
    uint32_at,
)

__all__ = ["copy_utf8", "has_compact_characters", "utf8_bounds", "utf8_sizes", "write_utf8"]

# Places in PyASCIIObject, the same from Python 3.11 to 3.13.
_LENGTH, _STATE = 16, 32
_COMPACT, _ASCII = 32, 64
_RUN = 32


@cpu_device
def _header(address):
    """Return the length and the bits that say how the characters are kept."""
    length = np.intp(uint32_at(address + _LENGTH)[0])
    length |= np.intp(uint32_at(address + _LENGTH + 4)[0]) << 32
    return length, np.intp(uint32_at(address + _STATE)[0])


@cpu_device
def _size_of(characters, length):
    """Return the number of bytes in UTF-8, or -1 where there is a surrogate."""
    size = np.intp(0)
    surrogates = np.intp(0)
    for i in range(length):
        code = np.uint32(characters[i])
        size += 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
        surrogates += (code & 0xFFFFF800) == 0xD800
    return -1 if surrogates else size


@cpu_device
def _write_code(code, out, at):
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            out[at] = 0xE0 | code >> 12
        else:
            out[at] = 0xF0 | code >> 18
            at += 1
            out[at] = 0x80 | (code >> 12 & 0x3F)
        at += 1
        out[at] = 0x80 | (code >> 6 & 0x3F)
    out[at + 1] = 0x80 | (code & 0x3F)
    return at + 2


@cpu_device
def _write(characters, length, out, at):
    """Write characters as UTF-8, runs of ASCII at once."""
    i = np.intp(0)
    while i < length:
        if i + _RUN <= length:
            every = np.uint32(0)
            for j in range(_RUN):
                every |= np.uint32(characters[i + j])
            if every < 0x80:
                for j in range(_RUN):
                    out[at + j] = characters[i + j]
                i += _RUN
                at += _RUN
                continue
        for _ in range(min(8, length - i)):
            at = _write_code(np.intp(characters[i]), out, at)
            i += 1
    return np.intp(at)


@cpu_device
def _copy(characters, length, out):
    """Write characters as UTF-8; return the size, -1 where there is a surrogate.

    Writes up to 64 bytes more.
    """
    if not COMPRESSES:
        return (
            _write(characters, length, out, np.intp(0))
            if _size_of(characters, length) >= 0
            else np.intp(-1)
        )
    i, at = np.intp(0), np.intp(0)
    while i + 32 <= length:
        if store_ascii(characters, i, out, at):
            i += 32
            at += 32
            continue
        for _ in range(2):
            size = store_utf8(characters, i, out, at)
            if size < 0:
                return np.intp(-1)
            i += 16
            at += size
    for j in range(i, length):
        code = np.intp(characters[j])
        if code & 0xFFFFF800 == 0xD800:
            return np.intp(-1)
        at = _write_code(code, out, at)
    return at


@cpu_device
def has_compact_characters(address):
    """Return whether a string has its characters behind its header."""
    return np.intp(uint32_at(address + _STATE)[0]) & _COMPACT != 0


@cpu_device
def copy_utf8(address, ascii_header, compact_header, out):
    """Write a string's UTF-8 to ``out``; return its size, -1 where it has none.

    No error check. Writes up to 64 bytes more.
    """
    length, state = _header(address)
    if state & _ASCII:
        copy_bytes(out, 0, uint8_at(address + ascii_header), 0, length)
        return length
    data, kind = address + compact_header, state >> 2 & 7
    if kind == 1:
        return _copy(uint8_at(data), length, out)
    if kind == 2:
        return _copy(uint16_at(data), length, out)
    return _copy(uint32_at(data), length, out)


@cpu_kernel
def utf8_bounds(addresses, offsets):
    """Write to ``offsets[1:]``, added up, how many bytes each string's UTF-8 has at most.

    No error check. Returns whether each string has its characters behind its header.
    """
    compact = np.intp(_COMPACT)
    for i in range(addresses.size):
        length, state = _header(addresses[i])
        compact &= state
        each = np.intp(1) if state & _ASCII else min(np.intp(4), (state >> 2 & 7) + 1)
        offsets[i + 1] = offsets[i] + each * length
    return compact != 0


@cpu_kernel
def utf8_sizes(addresses, compact_header, offsets):
    """Write where each string's UTF-8 ends; return the first string that has none, or -1.

    No error check. ``addresses`` are those of str objects that live on; ``offsets`` is int64 of
    shape (strings + 1,) and begins with 0. A string has none if it holds a surrogate.
    """
    for i in range(addresses.size):
        length, state = _header(addresses[i])
        data = addresses[i] + compact_header
        kind = state >> 2 & 7
        if not state & _COMPACT:
            return i
        size = length
        if not state & _ASCII:
            if kind == 1:
                size = _size_of(uint8_at(data), length)
            elif kind == 2:
                size = _size_of(uint16_at(data), length)
            else:
                size = _size_of(uint32_at(data), length)
        if size < 0:
            return i
        offsets[i + 1] = offsets[i] + size
    return -1


@cpu_kernel
def write_utf8(addresses, ascii_header, compact_header, offsets, out):
    """Write the strings' UTF-8 from ``out[offsets[i]]`` on, in order. No error check.

    ``out`` has room for 64 bytes more.
    """
    target = pointer_to(out)
    for i in range(addresses.size):
        copy_utf8(addresses[i], ascii_header, compact_header, uint8_pointer(target, offsets[i]))
