"""The chunks of a step as arrays, and as smaller steps."""

from __future__ import annotations

import numpy as np

from numbatch.batching.forward import Batch
from numbatch.batching.scheduler import Chunk
from numbatch.kernels.scoring.step_tokens import place_tokens

__all__ = ["halves", "make_batch"]


def make_batch(chunks: list[Chunk], block_size: int) -> Batch:
    """Lay out the tokens of chunks one after another."""
    longest = max(len(chunk.sequence.blocks) for chunk in chunks)
    tables = np.zeros((len(chunks), longest), np.int64)
    for row, chunk in enumerate(chunks):
        tables[row, : len(chunk.sequence.blocks)] = chunk.sequence.blocks
    places = np.array([(sequence.address, start, length) for sequence, start, length in chunks])
    tokens, positions, rows, slots = np.empty((4, sum(c.length for c in chunks)), np.int64)
    place_tokens(places, tables, block_size, tokens, positions, rows, slots)
    return Batch(tokens, positions, rows, slots, tables)


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
