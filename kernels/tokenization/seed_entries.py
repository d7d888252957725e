"""The entries that a cache of pieces starts with: the vocabulary's short tokens."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.tokenization.encode_bytes import encode_new
from numbatch.kernels.tokenization.piece_cache import (
    CACHED_TOKENS,
    ENTRY,
    SHORT_BYTES,
    pack_tokens,
    piece_key,
    write_entry,
)
from numbatch.kernels.tokenization.piece_state import (
    HAS_ALL,
    ByteTables,
    cache_in,
    new_state,
    pointers_to,
)
from numbatch.kernels.tokenization.tables import read_only
from numbatch.kernels.words import pointer_to

__all__ = ["seed_entries"]


@cpu_kernel(allocates=True)
def _seed(state, text, starts, stops, tables, seeds):
    """Encode pieces of up to 15 bytes and write their entries; return how many there are."""
    pointers = pointers_to(tables)
    memory, data = pointer_to(state), pointer_to(text)
    out = np.empty(64, np.uint32)
    tokens = pointer_to(out)
    masks = cache_in(state, tables.seeds, pointers, np.uint64(tables.ids.size - 1)).masks
    state[HAS_ALL] = np.uint64(0)
    size, zero = np.intp(0), np.intp(0)
    for i in range(starts.size):
        count = encode_new(data, starts[i], stops[i], pointers, memory, tokens, zero)
        if count <= CACHED_TOKENS:
            low, high = piece_key(data, starts[i], stops[i] - starts[i], masks)
            first, second = pack_tokens(tokens, zero, count)
            write_entry(pointer_to(seeds), size, low, high, first, second)
            size += ENTRY
    out[0] = 0  # the array lives as long as the pointer to it
    return size


def seed_entries(tables: ByteTables) -> np.ndarray:
    """Return the entries of all tokens of up to 15 bytes, each encoded as a piece: uint64."""
    lengths = np.diff(tables.offsets)
    rows = np.flatnonzero((lengths > 0) & (lengths <= SHORT_BYTES))
    starts, stops = tables.offsets[:-1][rows], tables.offsets[1:][rows]
    seeds = np.empty(rows.size * ENTRY, np.uint64)
    size = _seed(new_state(8), tables.values, starts, stops, tables, seeds)
    return read_only(seeds[:size].copy())
