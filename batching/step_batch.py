"""The chunks of a step as arrays, and as smaller steps."""

from __future__ import annotations

import numpy as np

from numbatch.batching.forward import Batch
from numbatch.batching.scheduler import Chunk

__all__ = ["halves", "make_batch"]


def make_batch(chunks: list[Chunk], block_size: int) -> Batch:
    """Lay out the tokens of chunks one after another."""
    longest = max(len(chunk.sequence.blocks) for chunk in chunks)
    tables = np.zeros((len(chunks), longest), np.int64)
    for row, chunk in enumerate(chunks):
        tables[row, : len(chunk.sequence.blocks)] = chunk.sequence.blocks
    counts = np.array([chunk.length for chunk in chunks])
    starts = np.array([chunk.start for chunk in chunks])
    rows = np.repeat(np.arange(len(chunks)), counts)
    begins = np.cumsum(counts) - counts
    positions = np.arange(len(rows)) - np.repeat(begins - starts, counts)
    tokens = np.concatenate([c.sequence.tokens[c.start : c.start + c.length] for c in chunks])
    blocks = tables[rows, positions // block_size]
    slots = blocks * block_size + positions % block_size
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
