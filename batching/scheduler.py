"""Which sequences run in a step, and how many tokens of each."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from numbatch.batching.kv_pool import KVPool
from numbatch.batching.sequence import Sequence

__all__ = ["Chunk", "Scheduler"]


class Chunk(NamedTuple):
    """Tokens ``start`` to ``start + length - 1`` of a sequence, to be run in one step."""

    sequence: Sequence
    start: int
    length: int


class Scheduler:
    """First come, first served, within one budget of tokens a step.

    A sequence is admitted when the pool can hold it to its end, so nothing that runs ever has to
    give its blocks back. Sequences that generate (one token behind) come before prompts, which fill
    what is left of the budget in chunks.

    Parameters
    ----------
    pool : KVPool
    max_sequences : int
        The most sequences that run at a time.
    token_budget : int
        The most tokens in a step.
    """

    def __init__(self, pool: KVPool, max_sequences: int, token_budget: int) -> None:
        self.pool = pool
        self.max_sequences = max_sequences
        self.token_budget = token_budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def schedule(self) -> list[Chunk]:
        """Choose the chunks of the next step, admitting from the queue what fits."""
        chunks = []
        budget = self.token_budget
        for sequence in sorted(self.running, key=lambda each: each.behind):
            if budget > 0:
                chunks.append(Chunk(sequence, sequence.computed, min(budget, sequence.behind)))
                budget -= chunks[-1].length
        while self.waiting and budget > 0 and len(self.running) < self.max_sequences:
            blocks = self.pool.allocate(self.waiting[0].cached_tokens)
            if blocks is None:
                break
            sequence = self.waiting.popleft()
            sequence.blocks = blocks
            self.running.append(sequence)
            chunks.append(Chunk(sequence, 0, min(budget, sequence.behind)))
            budget -= chunks[-1].length
        return chunks

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out and give its blocks back."""
        self.running.remove(sequence)
        self.pool.release(sequence.blocks)
