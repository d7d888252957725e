"""The engine on a GPU: the host prepares a step while the one before runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numbatch.batching.cuda.decode import Decode
from numbatch.batching.engine import Engine
from numbatch.batching.scheduler import Chunk
from numbatch.batching.sequence import Sequence
from numbatch.batching.step_outputs import Finished, scored

__all__ = ["CudaEngine"]

AHEAD = 16
"""Decode steps between two looks at the queue; fewer where a sequence ends."""

SHORT_AHEAD = 4
"""The same where a target for the time of a step is set."""


@dataclass(frozen=True, slots=True)
class _LateStep:
    """A step that was started: its chunks, the texts that it completes, and what waits for it."""

    chunks: list[Chunk]
    complete: list[Sequence]
    finish: Callable[[], Finished]
    begin: Any
    end: Any


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
        self._late: _LateStep | None = None

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return super().has_work or self._late is not None

    def _run(self, chunks: list[Chunk]) -> Finished:
        self._steps = 1
        if all(chunk.sequence.params is None for chunk in chunks):
            return self._run_scoring(chunks)
        late = self._take_late()
        chunks = _live(chunks)
        return late + self._run_sampling(chunks) if chunks else late

    def _run_scoring(self, chunks: list[Chunk]) -> Finished:
        """Start a step that only scores; return the results of the one before it.

        What comes next does not depend on scores, so the host reads them when the next step runs.
        """
        gpu = self.backend.gpu
        gpu.use()
        try:
            begin = gpu.mark()
            hidden = self.forward.run(self._batches.make(chunks))
            finish = self._outputs.begin_scoring(chunks, hidden)
            end = gpu.mark()
        except MemoryError:
            late = self._take_late()
            chunks = _live(chunks)
            return late + super()._run(chunks) if chunks else late
        late = self._take_late()
        live = _live(chunks)
        self.scheduler.advance(live)
        complete = [chunk.sequence for chunk in live if chunk.sequence.behind == 0]
        for sequence in complete:
            self.scheduler.finish(sequence)  # what comes to its blocks next comes after this step
        self._late = _LateStep(chunks, complete, finish, begin, end)
        self._steps = 0
        return late

    def _take_late(self) -> Finished:
        """Wait for the scores of the step that was started last; return what it finished."""
        late, self._late = self._late, None
        if late is None:
            return []
        # Who is done but not complete was cancelled, or failed before.
        failed = {
            sequence: result
            for sequence, result in late.finish()
            if not sequence.is_done or sequence in late.complete
        }
        for sequence in failed:
            if not sequence.is_done:
                self.scheduler.finish(sequence)
        super()._learn(late.chunks, 0, self.backend.gpu.seconds_between(late.begin, late.end))
        whole = [(each, scored(each)) for each in late.complete if each not in failed]
        return [*failed.items(), *whole]

    def _run_sampling(self, chunks: list[Chunk]) -> Finished:
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
        if self._steps:
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

    def _run_ahead(self, sequences: list[Sequence], steps: int) -> Finished:
        """Run steps until one is done with a sequence, always one ahead of the host."""
        finished: Finished = []
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

    def _take(self, sequences: list[Sequence], live: set[Sequence]) -> Finished:
        """Note the tokens of a step; return the sequences that they ended."""
        record = self._decode.wait()
        rows = [i for i, sequence in enumerate(sequences) if sequence in live]
        own = [sequences[i] for i in rows]
        tokens = self._draws.take(record[rows], self._decode.wanted, own)
        finished: Finished = []
        advanced: list[Chunk] = []
        for sequence, token in zip(own, tokens, strict=True):
            advanced.append(Chunk(sequence, sequence.computed, 1))
            result = self._outputs.after_token(sequence, int(token))
            if result is not None:
                live.discard(sequence)
                finished.append((sequence, result))
        self.scheduler.advance(advanced)
        return finished


def _live(chunks: list[Chunk]) -> list[Chunk]:
    """Return the chunks of sequences that are not finished."""
    return [chunk for chunk in chunks if not chunk.sequence.is_done]


def _decodes(chunk: Chunk) -> bool:
    """Whether a chunk is the one token that a generating sequence is behind."""
    sequence, start, length = chunk
    return sequence.params is not None and length == 1 and start + 1 == sequence.wanted
