"""Turn token ids into the bytes that they stand for."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.tables import read_only

__all__ = ["bytes_of_tokens"]


@cpu_kernel
def _gather(ids, values, offsets, out, ends):
    """Copy each token's bytes after those before it. No error check."""
    total = 0
    for i in range(ids.size):
        for j in range(offsets[ids[i]], offsets[ids[i] + 1]):
            out[total] = values[j]
            total += 1
        ends[i] = total


def bytes_of_tokens(ids: np.ndarray, tokens: Ragged) -> Ragged:
    """Return the bytes of each token of a sequence.

    Parameters
    ----------
    ids : integer array, shape (n,)
    tokens : Ragged of uint8
        Row ``i`` is the bytes of token ``i``.

    Returns
    -------
    Ragged of uint8
        Row ``i`` is the bytes of ``ids[i]``.

    Raises
    ------
    ValueError
        If an id is out of range.
    """
    ids = np.ascontiguousarray(ids, np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < len(tokens):
        raise ValueError(f"ids run from {ids.min()} to {ids.max()}, of {len(tokens)} tokens")
    offsets = np.zeros(ids.size + 1, np.int64)
    room = int(tokens.lengths[ids].sum()) if ids.size else 0
    out = np.empty(room, np.uint8)
    _gather(read_only(ids), read_only(tokens.values), read_only(tokens.offsets), out, offsets[1:])
    return Ragged(out, offsets)
