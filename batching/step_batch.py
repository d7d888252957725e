"""The chunks of a step as arrays, and as smaller steps."""

from __future__ import annotations

from operator import is_

import numpy as np

from numbatch.batching.forward import Batch
from numbatch.batching.scheduler import Chunk
from numbatch.kernels.scoring.step_tokens import place_tokens

__all__ = ["BatchMaker", "halves"]


class BatchMaker:
    """Lays out the tokens of chunks one after another.

    Parameters
    ----------
    block_size : int
        Tokens in a block of the KV pool.
    """

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._held: list[list[int]] = []
        self._counts: list[int] = []
        self._tables = np.empty((0, 0), np.int64)

    def make(self, chunks: list[Chunk]) -> Batch:
        """Return the batch of a step."""
        tables = self._tables_of([chunk.sequence.blocks for chunk in chunks])
        places = np.array([(sequence.address, start, length) for sequence, start, length in chunks])
        tokens, positions, rows, slots = np.empty((4, sum([c.length for c in chunks])), np.int64)
        place_tokens(places, tables, self._size, tokens, positions, rows, slots)
        return Batch(tokens, positions, rows, slots, tables)

    def _tables_of(self, held: list[list[int]]) -> np.ndarray:
        """Return lists of blocks as rows: the last step's where none is another or grew since."""
        counts = [*map(len, held)]
        if counts != self._counts or not all(map(is_, held, self._held)):
            self._tables = np.zeros((len(held), max(counts)), np.int64)
            for row, blocks in enumerate(held):
                self._tables[row, : len(blocks)] = blocks
            self._held, self._counts = held, counts
        return self._tables


def halves(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Split chunks into two lists of about equal length, or return one that cannot be split."""
    if len(chunks) > 1:
        middle = len(chunks) // 2
        return [chunks[:middle], chunks[middle:]]
    sequence, start, length = chunks[0]
    if length == 1:
        return [chunks]
    half = length // 2
    return [[Chunk(sequence, start, half)], [Chunk(sequence, start + half, length - half)]]
