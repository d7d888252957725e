"""The engine on a GPU: decode steps run ahead of the host."""

from __future__ import annotations

from typing import Any

from numbatch.batching.cuda.decode import Decode
from numbatch.batching.engine import Engine
from numbatch.batching.results import Result
from numbatch.batching.scheduler import Chunk
from numbatch.batching.sequence import Sequence

__all__ = ["CudaEngine"]

AHEAD = 16
"""Decode steps between two looks at the queue; fewer where a sequence ends."""

SHORT_AHEAD = 4
"""The same where a target for the time of a step is set."""


class CudaEngine(Engine):
    """Runs requests on a GPU; parameters as for :class:`Engine`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sequences = self.scheduler.max_sequences
        forward: Any = self.forward
        draws: Any = self.sampler
        self._draws = draws
        self._decode = Decode(self.backend.gpu, forward, draws, sequences)
        self._ahead = SHORT_AHEAD if self.sizer.target is not None else AHEAD
        self._steps = 1

    def _run(self, chunks: list[Chunk]) -> list[tuple[Sequence, Result]]:
        self._steps = 1
        if any(not _decodes(chunk) for chunk in chunks):
            return super()._run(chunks)
        sequences = [chunk.sequence for chunk in chunks]
        steps = self._room(sequences)
        try:
            self._decode.begin(sequences, steps)
        except MemoryError:
            return super()._run(chunks)
        return self._run_ahead(sequences, steps)

    def _learn(self, chunks: list[Chunk], guesses: int, seconds: float) -> None:
        super()._learn(chunks, guesses, seconds / self._steps)

    def _room(self, sequences: list[Sequence]) -> int:
        """Lend blocks for several steps; return for how many."""
        pool = self.scheduler.pool

        def missing(sequence: Sequence, steps: int) -> int:
            end = min(sequence.computed + steps, sequence.capacity)
            return max(0, pool.blocks_for(end) - len(sequence.blocks))

        longest = max(sequence.capacity - sequence.length for sequence in sequences)
        steps = max(1, min(self._ahead, longest))
        while steps > 1 and sum(missing(s, steps) for s in sequences) > pool.free_blocks:
            steps //= 2
        for sequence in sequences:
            sequence.blocks += pool.lend(missing(sequence, steps)) or []
        return steps

    def _run_ahead(self, sequences: list[Sequence], steps: int) -> list[tuple[Sequence, Result]]:
        """Run steps until one is done with a sequence, always one ahead of the host."""
        finished: list[tuple[Sequence, Result]] = []
        launched = done = 0
        live = set(sequences)
        while launched < steps and not finished:
            self._decode.launch()
            launched += 1
            if launched - done > 1:
                finished += self._take(sequences, live)
                done += 1
        while done < launched:
            finished += self._take(sequences, live)
            done += 1
        self._steps = launched
        for sequence, _ in finished:
            self.scheduler.finish(sequence)
        return finished

    def _take(
        self, sequences: list[Sequence], live: set[Sequence]
    ) -> list[tuple[Sequence, Result]]:
        """Note the tokens of a step; return the sequences that they ended."""
        record = self._decode.wait()
        rows = [i for i, sequence in enumerate(sequences) if sequence in live]
        own = [sequences[i] for i in rows]
        tokens = self._draws.take(record[rows], self._decode.wanted, own)
        finished: list[tuple[Sequence, Result]] = []
        advanced: list[Chunk] = []
        for sequence, token in zip(own, tokens, strict=True):
            advanced.append(Chunk(sequence, sequence.computed, 1))
            result = self._outputs.after_token(sequence, int(token))
            if result is not None:
                live.discard(sequence)
                finished.append((sequence, result))
        self.scheduler.advance(advanced)
        return finished


def _decodes(chunk: Chunk) -> bool:
    """Whether a chunk is the one token that a generating sequence is behind."""
    sequence, start, length = chunk
    return sequence.params is not None and length == 1 and start + 1 == sequence.wanted
