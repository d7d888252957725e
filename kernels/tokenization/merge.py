"""Byte-pair encoding of pieces of text: initial symbols, then merges by rank.

Each piece is a linked list of symbols; a binary heap of ``rank << 32 | position`` gives the next
merge, lowest rank first and leftmost among equals. An entry that a merge has made stale is
dropped when it comes up. O(n log n) in the length of the piece, whatever the text.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import (
    PairTable,
    StringTable,
    find_pair,
    find_string,
    read_only,
)

__all__ = ["MergeTables", "encode_pieces"]

_POSITION = np.int64(0xFFFFFFFF)


class MergeTables(NamedTuple):
    """All that encoding a piece needs, in flat read-only arrays."""

    pairs: PairTable
    strings: StringTable
    """The tokens' bytes as they occur in a piece; a row is an id."""
    byte_ids: np.ndarray
    """int32, shape (256,): the id of each single byte, or -1."""
    by_character: bool
    """True: the first symbols are characters, and bytes only where a character is no token."""
    whole_pieces: bool
    """True: a piece that is a token is that token, whatever the merges would make of it."""
    unknown_id: int
    """The id for what has no other, or -1: it is left out."""
    fuse_unknown: bool
    """True: a run of unknown characters is one unknown id."""


# np.intp(0) where a plain 0 would do: Numba types a plain 0 as a constant of its own, and would
# compile the functions that it is given to a second time.


@cpu_device
def _initial_symbols(text, start, stop, tables, symbols):
    """Write the symbols that merging starts from; return their number. No error check."""
    count = np.intp(0)
    after_unknown = False
    at = start
    while at < stop:
        end, symbol = at + 1, -1
        if tables.by_character:
            while end < stop and text[end] & 0xC0 == 0x80:
                end += 1
            symbol = find_string(text, at, end, tables.strings)
        begin = count
        if symbol >= 0:
            symbols[count] = symbol
            count += 1
        else:
            for i in range(at, end):
                if tables.byte_ids[text[i]] < 0:
                    count = begin  # all bytes of a character or none
                    break
                symbols[count] = tables.byte_ids[text[i]]
                count += 1
        unknown = count == begin
        if unknown and tables.unknown_id >= 0 and not (after_unknown and tables.fuse_unknown):
            symbols[count] = tables.unknown_id
            count += 1
        after_unknown = unknown
        at = end
    return count


@cpu_device
def _push(heap, size, key):
    at = size
    while at > 0 and heap[(at - 1) >> 1] > key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return size + 1


@cpu_device
def _pop(heap, size):
    """Remove the top of the heap; return the new size."""
    size -= 1
    key = heap[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return size


@cpu_device
def _push_pair(symbols, left, right, pairs, heap, size):
    slot = find_pair(symbols[left], symbols[right], pairs)
    if slot < 0:
        return size
    return _push(heap, size, (np.int64(pairs.ranks[slot]) << 32) | np.int64(left))


@cpu_device
def _merge_symbols(symbols, count, following, preceding, heap, pairs):
    """Merge ``symbols[:count]`` in place; return how many are left. No error check."""
    size = np.intp(0)
    for i in range(count):
        following[i] = i + 1
        preceding[i] = i - 1
        if i + 1 < count:
            size = _push_pair(symbols, i, i + 1, pairs, heap, size)
    while size > 0:
        top = heap[0]
        size = _pop(heap, size)
        left = np.intp(top & _POSITION)
        right = np.intp(following[left])
        if symbols[left] < 0 or right >= count:
            continue
        slot = find_pair(symbols[left], symbols[right], pairs)
        if slot < 0 or pairs.ranks[slot] != top >> 32:
            continue  # one of the two has changed since
        symbols[left] = pairs.merged[slot]
        symbols[right] = -1
        after = np.intp(following[right])
        following[left] = after
        if after < count:
            preceding[after] = left
            size = _push_pair(symbols, left, after, pairs, heap, size)
        before = np.intp(preceding[left])
        if before >= 0:
            size = _push_pair(symbols, before, left, pairs, heap, size)
    kept = 0
    for i in range(count):
        if symbols[i] >= 0:
            symbols[kept] = symbols[i]
            kept += 1
    return kept


@cpu_device
def _encode_piece(text, start, stop, tables, symbols, following, preceding, heap):
    if tables.whole_pieces:
        row = find_string(text, start, stop, tables.strings)
        if row >= 0:
            symbols[0] = row
            return 1
    count = _initial_symbols(text, start, stop, tables, symbols)
    return _merge_symbols(symbols, count, following, preceding, heap, tables.pairs)


@cpu_kernel
def _encode(text, offsets, fixed, tables, symbols, following, preceding, heap, out, ends):
    """Write each piece's ids after those before it, and where they end. No error check."""
    total = 0
    for piece in range(fixed.size):
        if fixed[piece] >= 0:
            out[total] = fixed[piece]
            total += 1
        elif offsets[piece + 1] > offsets[piece]:
            count = _encode_piece(
                text, offsets[piece], offsets[piece + 1], tables,
                symbols, following, preceding, heap,
            )  # fmt: skip
            for i in range(count):
                out[total + i] = symbols[i]
            total += count
        ends[piece] = total


def encode_pieces(pieces: Ragged, fixed: np.ndarray, tables: MergeTables) -> Ragged:
    """Turn pieces of text into token ids.

    Parameters
    ----------
    pieces : Ragged of uint8
        Valid UTF-8, each piece encoded by itself.
    fixed : int32 array, shape (pieces,)
        The id of a piece that stands for one token (its bytes are not read), else -1.
    tables : MergeTables

    Returns
    -------
    Ragged of uint32
        A row a piece; an empty piece has an empty row.

    Raises
    ------
    ValueError
        If there is not one fixed id a piece, or a piece is of 2 GiB or more.

    Notes
    -----
    Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword
    Units", ACL 2016; order of merges as in tiktoken, SentencePiece and tokenizers.
    """
    fixed = np.ascontiguousarray(fixed, np.int32)
    if fixed.shape != (len(pieces),):
        raise ValueError(f"fixed is of shape {fixed.shape}, should be ({len(pieces)},)")
    longest = int(pieces.lengths.max(initial=0))
    if longest >= 2**31:
        raise ValueError(f"a piece has {longest} bytes, should have less than {2**31}")
    text = read_only(pieces.values)
    symbols, following, preceding = (np.empty(longest + 1, np.int32) for _ in range(3))
    # Each merge takes one entry off and puts at most two on, and each leaves one symbol less.
    heap = np.empty(2 * longest + 2, np.int64)
    out = np.empty(text.size + fixed.size, np.uint32)
    offsets = np.zeros(fixed.size + 1, np.int64)
    _encode(
        text, read_only(pieces.offsets), read_only(fixed), tables,
        symbols, following, preceding, heap, out, offsets[1:],
    )  # fmt: skip
    return Ragged(out[: offsets[-1]].copy(), offsets)
