"""Turn token ids into the bytes that they stand for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import load_word, pointer_to, store_word

__all__ = ["TokenBytes", "bytes_of_rows", "bytes_of_tokens", "pad_tokens"]


@cpu_kernel
def _measure(ids, offsets, tokens):
    """Return how many bytes the ids stand for, or ``-1 - i`` where ``ids[i]`` is out of range."""
    total = np.intp(0)
    for i in range(ids.size):
        if ids[i] >= tokens:
            return -1 - i
        total += offsets[ids[i] + 1] - offsets[ids[i]]
    return total


@cpu_kernel
def _measure_rows(ids, rows, offsets, ends):
    """Write where the bytes of each row of ids end. No error check."""
    total = np.intp(0)
    for row in range(rows.size - 1):
        for i in range(rows[row], rows[row + 1]):
            total += offsets[ids[i] + 1] - offsets[ids[i]]
        ends[row] = total


@cpu_kernel
def _gather(ids, values, offsets, out):
    """Copy each token's bytes after those before it. No error check.

    Sixteen bytes at a time: ``values`` and ``out`` have as many behind their last.
    """
    source, places, target = pointer_to(values), pointer_to(offsets), pointer_to(out)
    total = np.intp(0)
    for i in range(ids.size):
        begin = places[ids[i]]
        length = places[ids[i] + 1] - begin
        store_word(target, total, load_word(source, begin))
        store_word(target, total + 8, load_word(source, begin + 8))
        for j in range(16, length):
            target[total + j] = source[begin + j]
        total += length


class TokenBytes(NamedTuple):
    """The bytes of every token, with 16 more behind them; made by :func:`pad_tokens`."""

    values: np.ndarray
    offsets: np.ndarray


def pad_tokens(tokens: Ragged) -> TokenBytes:
    """Return the rows of a Ragged of uint8 as :func:`bytes_of_tokens` reads them."""
    values = np.zeros(tokens.values.size + 16, np.uint8)
    values[:-16] = tokens.values
    return TokenBytes(read_only(values), read_only(tokens.offsets))


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
    total = int(_measure(ids, tokens.offsets, known))
    if total < 0:
        raise ValueError(f"id {ids[-1 - total]} at {-1 - total} is not one of {known} tokens")
    out = np.empty(total + 16, np.uint8)
    _gather(ids, tokens.values, tokens.offsets, out)
    return out[:total]


def bytes_of_rows(ids: Ragged, tokens: TokenBytes) -> Ragged:
    """Return the bytes of each row of a Ragged of uint32, with no id out of range."""
    values = read_only(np.ascontiguousarray(ids.values, np.uint32))
    offsets = np.zeros(len(ids) + 1, np.int64)
    _measure_rows(values, read_only(ids.offsets), tokens.offsets, offsets[1:])
    out = np.empty(offsets[-1] + 16, np.uint8)
    _gather(values, tokens.values, tokens.offsets, out)
    return Ragged(out[: offsets[-1]], offsets)
