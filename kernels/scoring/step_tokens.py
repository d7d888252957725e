"""The tokens of a step's sequences, one after another."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_kernel

__all__ = ["place_tokens"]


@cpu_kernel
def place_tokens(chunks, tables, block_size, tokens, positions, rows, slots):
    """Write what a step has to know of each of its tokens. No error check.

    Parameters
    ----------
    chunks : int64 array, shape (sequences, 3)
        Address of a sequence's tokens (int64), the first of them that is run, and how many are.
    tables : int64 array, shape (sequences, blocks)
        The blocks of each sequence, in order.
    block_size : int
    tokens, positions, rows, slots : int64 arrays, shape (tokens,)
        Overwritten: ids, places in their sequences, rows of ``tables``, and where keys and values
        go (``block * block_size + place``).
    """
    at = 0
    for row in range(len(chunks)):
        address, start, length = chunks[row]
        known = array_at(address, (start + length,), np.int64)
        for position in range(start, start + length):
            tokens[at], positions[at], rows[at] = known[position], position, row
            block, place = divmod(position, block_size)
            slots[at] = tables[row, block] * block_size + place
            at += 1
