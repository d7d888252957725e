"""Turn token ids into the bytes that they stand for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import copy_bytes, pointer_to, prefetch, store_word

__all__ = ["TokenBytes", "bytes_of_rows", "bytes_of_tokens", "pad_tokens"]


_SHORT = np.intp(15)
_WRITTEN = 16
"""Bytes that are written at once, of which not all may count."""
_AHEAD = 48
"""So many tokens ahead their heads are asked for."""
_USUAL = 6
"""Bytes of a token, on average at most; where they are more, room is made."""
_56 = np.uint64(56)


@cpu_kernel
def _gather(ids, rows, first, heads, values, offsets, out, ends, total):
    """Write the bytes of rows of ids, from row ``first`` on; return the first without room.

    No error check. Returns the number of rows where there was room for all.

    Sixteen bytes at a time: ``out`` has as many behind its last. Nearly all tokens are in their
    heads, so that one look into memory serves. ``ends[i]`` is where the bytes of row ``i`` end.
    """
    words, source = pointer_to(heads), pointer_to(values)
    places, target = pointer_to(offsets), pointer_to(out)
    room, last = out.size - _WRITTEN, ids.size - 1
    for row in range(first, ends.size):
        stop = rows[row + 1]
        # Room for short tokens is looked for once a row, for others where they come.
        if total + _SHORT * (stop - rows[row]) > room:
            return row
        for i in range(rows[row], stop):
            token = np.intp(ids[i])
            prefetch(words, 16 * np.intp(ids[min(i + _AHEAD, last)]))
            head = words[2 * token + 1]
            length = np.intp(head >> _56)
            store_word(target, total, words[2 * token])
            store_word(target, total + 8, head)
            if length > _SHORT:
                length = places[token + 1] - places[token]
                if total + length + _SHORT * (stop - i - 1) > room:
                    return row
                copy_bytes(target, total, source, places[token], length)
            total += length
        ends[row] = total
    return ends.size


@cpu_kernel
def _write_heads(values, offsets, heads):
    """Write the first 15 bytes of each token and its length; for longer ones, 255."""
    for row in range(offsets.size - 1):
        length = offsets[row + 1] - offsets[row]
        for i in range(min(length, _SHORT)):
            byte = np.uint64(values[offsets[row] + i])
            heads[2 * row + (i >> 3)] |= byte << np.uint64(8 * (i & 7))
        heads[2 * row + 1] |= np.uint64(length if length <= _SHORT else 255) << _56


class TokenBytes(NamedTuple):
    """The bytes of every token; made by :func:`pad_tokens`."""

    heads: np.ndarray
    """uint64, shape (2 * tokens,): of each the first 15 bytes, and its length (255 if longer)."""
    values: np.ndarray
    """uint8"""
    offsets: np.ndarray
    """int64, shape (tokens + 1,)"""


def pad_tokens(tokens: Ragged) -> TokenBytes:
    """Return the rows of a Ragged of uint8 as :func:`bytes_of_tokens` reads them."""
    heads = np.zeros(2 * len(tokens), np.uint64)
    values, offsets = read_only(tokens.values), read_only(tokens.offsets)
    _write_heads(values, offsets, heads)
    return TokenBytes(read_only(heads), values, offsets)


def bytes_of_tokens(ids: np.ndarray, tokens: TokenBytes) -> np.ndarray:
    """Return the bytes of a sequence of tokens, one after another: uint8.

    Parameters
    ----------
    ids : uint32 array, shape (n,)
    tokens : TokenBytes

    Raises
    ------
    ValueError
        If an id is out of range.
    """
    ids = np.ascontiguousarray(ids, np.uint32)
    known = tokens.offsets.size - 1
    if ids.size and int(ids.max()) >= known:
        bad = int(np.argmax(ids >= known))
        raise ValueError(f"id {ids[bad]} at {bad} is not one of {known} tokens")
    return bytes_of_rows(Ragged(ids, np.array([0, ids.size])), tokens).values


def bytes_of_rows(ids: Ragged, tokens: TokenBytes) -> Ragged:
    """Return the bytes of each row of a Ragged of uint32, with no id out of range."""
    values = read_only(np.ascontiguousarray(ids.values, np.uint32))
    rows = read_only(ids.offsets)
    offsets = np.zeros(len(ids) + 1, np.int64)
    longest = int(ids.lengths.max(initial=0))
    out = np.empty(_USUAL * values.size + int(_SHORT) * longest + _WRITTEN, np.uint8)
    done = 0
    while True:
        total = int(offsets[done])
        done = int(
            _gather(
                values, rows, done, tokens.heads, tokens.values, tokens.offsets, out, offsets[1:],
                total,
            )
        )  # fmt: skip
        if done == len(ids):
            return Ragged(out[: offsets[-1]], offsets)
        more = np.empty(2 * out.size, np.uint8)
        more[: offsets[done]] = out[: offsets[done]]
        out = more
