"""A vocabulary on the device: whole pieces by their bytes, merges by their pairs.

Pieces of up to 15 bytes are two words, the bytes and behind them their number; an entry is those
two, the id and a word of filling, 32 bytes, so that one look costs one sector of memory. Longer
ones are found as on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.byte_pairs import pack_merges
from numbatch.kernels.tokenization.merge import MergeTables, encode_pieces
from numbatch.kernels.tokenization.merge_slots import MOST_ID
from numbatch.kernels.tokenization.tables import build_string_table
from numbatch.kernels.tokenization.unicode_classes import PAGES, class_table

__all__ = ["ENTRY", "KEY_BYTES", "DeviceTables", "build_device_tables", "find_key", "key_words"]

KEY_BYTES = 15
"""Longest piece that is found by two words."""
ENTRY = 4
_M1, _M2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_BITS, _3, _7, _8, _64 = (np.uint64(n) for n in (56, 3, 7, 8, 64))
_0, _1 = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@cpu_device
def key_words(words, at, length):
    """Return the two words of a piece of 1 to 15 bytes. No error check.

    ``words`` are the text as uint64, with at least two more behind the piece.
    """
    word = at >> 3
    shift = (np.uint64(at) & _7) << _3
    low, middle = words[word], words[word + 1]
    high = _0
    if length > 8:
        high = middle
    if shift > _0:
        low = low >> shift | middle << (_64 - shift)
        if length > 8:
            high = middle >> shift | words[word + 2] << (_64 - shift)
    if length < 8:
        low &= _ALL >> (_64 - (np.uint64(length) << _3))
    if length > 8:
        high &= _ALL >> (_64 - (np.uint64(length - 8) << _3))
    else:
        high = _0
    return low, high | np.uint64(length) << _BITS


@cpu_device
def _first_entry(low, high, shift):
    mixed = (low * _M1) ^ (high * _M2)
    mixed ^= mixed >> np.uint64(32)
    return np.intp((mixed * _M1) >> np.uint64(shift))


@cpu_device
def find_key(low, high, entries, shift):
    """Return the id of a piece, or -1. No error check."""
    mask = (np.intp(1) << (64 - shift)) - 1
    slot = _first_entry(low, high, shift)
    while entries[ENTRY * slot + 1] != _0:
        if entries[ENTRY * slot + 1] == high and entries[ENTRY * slot] == low:
            return np.intp(entries[ENTRY * slot + 2])
        slot = (slot + 1) & mask
    return np.intp(-1)


@cpu_kernel
def _insert(words, starts, lengths, ids, entries, shift):
    """Write the entries of pieces, no two alike. No error check."""
    mask = (np.intp(1) << (64 - shift)) - 1
    for i in range(starts.size):
        low, high = key_words(words, starts[i], lengths[i])
        slot = _first_entry(low, high, shift)
        while entries[ENTRY * slot + 1] != _0:
            slot = (slot + 1) & mask
        entries[ENTRY * slot] = low
        entries[ENTRY * slot + 1] = high
        entries[ENTRY * slot + 2] = np.uint64(ids[i])


def _whole_tokens(tables: MergeTables) -> np.ndarray:
    """Return the ids of the tokens whose bytes, as a piece, become that one token."""
    found = tables.strings.slots[tables.strings.slots >= 0]
    rows = np.sort(found).astype(np.int64)
    rows = rows[np.diff(tables.strings.offsets)[rows] > 0]
    if tables.whole_pieces or not rows.size:
        return rows
    lengths = np.diff(tables.strings.offsets)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(tables.strings.offsets[rows] - offsets[:-1], lengths)
    values = tables.strings.values[places + np.arange(offsets[-1])]
    encoded = encode_pieces(Ragged(values, offsets), np.full(rows.size, -1, np.int32), tables)
    single = np.flatnonzero(encoded.lengths == 1)
    return rows[single[encoded.values[encoded.offsets[single]] == rows[single]]]


def _padded_classes() -> np.ndarray:
    """Return the table of classes with room behind: bytes that are no UTF-8 may look there."""
    table = class_table()
    return np.concatenate([table, np.zeros(PAGES + (1 << 16) - table.size, np.uint8)])


def short_entries(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, ids: np.ndarray):
    """Return the entries of pieces of up to 15 bytes: uint64, shape (slots * ENTRY,), and a shift.

    The entry of a piece is sought from ``hash >> shift`` on.
    """
    bits = max(3, (2 * starts.size).bit_length())
    entries = np.zeros(ENTRY << bits, np.uint64)
    padded = np.zeros(values.size // 8 + 4, np.uint64)
    padded.view(np.uint8)[: values.size] = values
    _insert(padded, starts, lengths, ids, entries, 64 - bits)
    return entries, 64 - bits


@dataclass(frozen=True)
class DeviceTables:
    """The arrays on the device that the kernels read."""

    entries: Any
    """uint64: pieces of up to 15 bytes, see :func:`short_entries`."""
    entry_shift: int
    slots: Any
    """int32: longer tokens, a string table."""
    values: Any
    offsets: Any
    pairs: Any
    """uint64: merges, as :class:`~numbatch.kernels.tokenization.byte_pairs.PackedMerges` has them;
    tokens are numbered as there."""
    pair_shift: int
    numbered_ids: Any
    """int32, shape (numbers + 1,): the vocabulary's ids."""
    byte_pairs: Any
    """uint32, shape (65536,): what two bytes merge to; one element where a byte has no id."""
    classes: Any
    rules: int
    longest: int
    """Bytes of the longest token."""
    unknown: int
    """The number of what has no other, or -1."""
    fuse_unknown: bool
    host: MergeTables
    """The same vocabulary on the host, for what is left to it."""


def build_device_tables(gpu: Gpu, tables: MergeTables, rules: int) -> DeviceTables | None:
    """Copy a byte-level vocabulary to the device; None where its kernels cannot serve it.

    Parameters
    ----------
    gpu : Gpu
    tables : MergeTables
    rules : int
        A family, see :mod:`~numbatch.kernels.tokenization.split_rules`.
    """
    if tables.by_character or tables.strings.offsets.size > MOST_ID:
        return None
    strings = tables.strings
    merges = pack_merges(tables.pairs, strings, tables.byte_ids, tables.unknown_id)
    if merges is None:
        return None
    rows = _whole_tokens(tables)
    lengths = np.diff(strings.offsets)[rows]
    short, long = rows[lengths <= KEY_BYTES], rows[lengths > KEY_BYTES]
    entries, shift = short_entries(
        strings.values, strings.offsets[short], lengths[lengths <= KEY_BYTES], short
    )
    table, _ = build_string_table(Ragged(strings.values, strings.offsets), long)
    # Where a byte is left out, those on its two sides become neighbours.
    complete = bool((tables.byte_ids >= 0).all())
    return DeviceTables(
        entries=gpu.upload(entries),
        entry_shift=shift,
        slots=gpu.upload(table.slots),
        values=gpu.upload(table.values),
        offsets=gpu.upload(table.offsets),
        pairs=gpu.upload(merges.pairs),
        pair_shift=65 - merges.pairs.size.bit_length(),
        numbered_ids=gpu.upload(merges.ids),
        byte_pairs=gpu.upload(merges.byte_pairs if complete else np.zeros(1, np.uint32)),
        classes=gpu.upload(_padded_classes()),
        rules=int(rules),
        longest=int(lengths.max(initial=0)),
        unknown=merges.ids.size - 1 if tables.unknown_id >= 0 else -1,
        fuse_unknown=bool(tables.fuse_unknown),
        host=tables,
    )
