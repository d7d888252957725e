"""The merges that a vocabulary implies by itself, where no list of merges is given."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.tokenization.tables import StringTable, find_string

__all__ = ["pairs_of_tokens"]


@cpu_kernel
def _split_tokens(tokens, table, lefts, rights, whole):
    """Write every split of every token into two tokens; return their number. No error check."""
    count = 0
    for i in range(tokens.size):
        start, stop = table.offsets[tokens[i]], table.offsets[tokens[i] + 1]
        for middle in range(start + 1, stop):
            left = find_string(table.values, start, middle, table)
            if left < 0:
                continue
            right = find_string(table.values, middle, stop, table)
            if right < 0:
                continue
            lefts[count], rights[count], whole[count] = left, right, tokens[i]
            count += 1
    return count


def pairs_of_tokens(
    tokens: np.ndarray, table: StringTable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every pair of tokens whose concatenation is a token.

    Both tiktoken and SentencePiece merge the neighbours whose concatenation ranks best, however
    it divides into two. So the list of all divisions, each with the whole's rank, is exact for
    any vocabulary; a list of one division a token would be exact only where each token is
    reached through tokens that rank before it.

    Parameters
    ----------
    tokens : integer array, shape (n,)
        Rows of the table that may be the result of a merge.
    table : StringTable
        The tokens' bytes.

    Returns
    -------
    lefts, rights, whole : int32 arrays, shape (pairs,)

    Raises
    ------
    ValueError
        If a token is not a row of the table.
    """
    tokens = np.ascontiguousarray(tokens, np.int32)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < table.offsets.size - 1:
        raise ValueError(f"tokens run from {tokens.min()} to {tokens.max()}, past the table's rows")
    lengths = np.diff(table.offsets)[tokens]
    room = int(np.maximum(lengths - 1, 0).sum())
    lefts, rights, whole = (np.empty(room, np.int32) for _ in range(3))
    count = int(_split_tokens(tokens, table, lefts, rights, whole))
    return lefts[:count], rights[:count], whole[:count]
