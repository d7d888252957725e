"""Turn token ids into the bytes that they stand for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import copy_bytes, pointer_to, store_word

__all__ = ["TokenBytes", "bytes_of_rows", "bytes_of_tokens", "pad_tokens"]


_SHORT = np.intp(15)
_56 = np.uint64(56)


@cpu_device
def _length_of(row, heads, offsets):
    """Return how many bytes a token has, and the second word of its head."""
    head = heads[2 * row + 1]
    length = np.intp(head >> _56)
    if length > _SHORT:
        length = offsets[row + 1] - offsets[row]
    return length, head


@cpu_kernel
def _measure(ids, heads, offsets, tokens):
    """Return how many bytes the ids stand for, or ``-1 - i`` where ``ids[i]`` is out of range."""
    total = np.intp(0)
    words, places = pointer_to(heads), pointer_to(offsets)
    for i in range(ids.size):
        if ids[i] >= tokens:
            return -1 - i
        total += _length_of(np.intp(ids[i]), words, places)[0]
    return total


@cpu_kernel
def _measure_rows(ids, rows, heads, offsets, ends):
    """Write where the bytes of each row of ids end. No error check."""
    total = np.intp(0)
    words, places = pointer_to(heads), pointer_to(offsets)
    for row in range(rows.size - 1):
        for i in range(rows[row], rows[row + 1]):
            total += _length_of(np.intp(ids[i]), words, places)[0]
        ends[row] = total


@cpu_kernel
def _gather(ids, heads, values, offsets, out):
    """Copy each token's bytes after those before it. No error check.

    Sixteen bytes at a time: ``out`` has as many behind its last. Nearly all tokens are in their
    heads, so that one look into memory serves.
    """
    words, source = pointer_to(heads), pointer_to(values)
    places, target = pointer_to(offsets), pointer_to(out)
    total = np.intp(0)
    for i in range(ids.size):
        row = np.intp(ids[i])
        length, head = _length_of(row, words, places)
        store_word(target, total, words[2 * row])
        store_word(target, total + 8, head)
        if length > _SHORT:
            copy_bytes(target, total, source, places[row], length)
        total += length


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
    ids = read_only(np.ascontiguousarray(ids, np.uint32))
    known = tokens.offsets.size - 1
    total = int(_measure(ids, tokens.heads, tokens.offsets, known))
    if total < 0:
        raise ValueError(f"id {ids[-1 - total]} at {-1 - total} is not one of {known} tokens")
    out = np.empty(total + 16, np.uint8)
    _gather(ids, tokens.heads, tokens.values, tokens.offsets, out)
    return out[:total]


def bytes_of_rows(ids: Ragged, tokens: TokenBytes) -> Ragged:
    """Return the bytes of each row of a Ragged of uint32, with no id out of range."""
    values = read_only(np.ascontiguousarray(ids.values, np.uint32))
    offsets = np.zeros(len(ids) + 1, np.int64)
    _measure_rows(values, read_only(ids.offsets), tokens.heads, tokens.offsets, offsets[1:])
    out = np.empty(offsets[-1] + 16, np.uint8)
    _gather(values, tokens.heads, tokens.values, tokens.offsets, out)
    return Ragged(out[: offsets[-1]], offsets)
