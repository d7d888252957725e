"""Where tokens lie in a text, and rows of tokens cut short."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.gather import rows_on_characters
from numbatch.kernels.tokenization.tables import read_only

__all__ = ["byte_spans", "first_tokens"]


def first_tokens(ids: Ragged, most: int, tokens: Ragged) -> Ragged:
    """Return at most ``most`` ids of each row, fewer where a character would be cut.

    Parameters
    ----------
    ids : Ragged of uint32
    most : int
    tokens : Ragged of uint8
        Row ``i`` is the bytes of token ``i``.
    """
    ends = np.empty(len(ids), np.int64)
    rows_on_characters(
        read_only(ids.values), read_only(ids.offsets), most,
        read_only(tokens.values), read_only(tokens.offsets), ends,
    )  # fmt: skip
    lengths = ends - ids.offsets[:-1]
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    shifts = np.repeat(ids.offsets[:-1] - offsets[:-1], lengths)
    return Ragged(ids.values[np.arange(offsets[-1]) + shifts], offsets)


def byte_spans(ids: np.ndarray, tokens: Ragged) -> np.ndarray:
    """Return the first byte of each token and the one behind its last: int64, shape (ids, 2)."""
    ends = np.cumsum(tokens.lengths[ids])
    return np.stack([ends - tokens.lengths[ids], ends], axis=1)
