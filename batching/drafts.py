"""Tokens that are guessed ahead and checked by the model in one step (speculative decoding).

A step reads all weights, whether it has one row or twenty, so a row more costs a fraction of it.
Guesses are run as rows of their own behind the token that is known; the sampler draws a token from
each row, and draws are kept up to the first that is not the one guessed. What is kept is what would
have been drawn without guesses, to the same bits: a row does not depend on others, and the coin of
a draw only on its place.
"""

from __future__ import annotations

import numpy as np

from numbatch.batching.batch_sizer import WARM_UP
from numbatch.batching.scheduler import Chunk, Scheduler
from numbatch.batching.sequence import Sequence
from numbatch.batching.step_time import StepTime
from numbatch.errors import InputError
from numbatch.kernels.scoring.drafts import choose_guesses, guess_tokens, learn_rates

__all__ = ["DEFAULT_TOKENS", "Drafter"]

DEFAULT_TOKENS = 15
"""With the known token a row of tiles, 16."""

MOST_SEQUENCES = 128
"""Beyond it a step as such costs next to nothing a token, and guesses gain nothing."""

FIRST_RATES = (0.3, 0.5)
"""How many guesses are right where nothing is known yet: of sampled and of greedy tokens."""

FOLLOW = 0.02
"""What is usual follows the sequences of a step by so much."""

UNKNOWN = (20.0, 1.0)
"""Time of a step as such and of a row, until it is known: a row costs a twentieth of a step."""


class Drafter:
    """Adds guesses to the chunks of sequences that generate: as many as give most for their time.

    Parameters
    ----------
    most : int
        Guesses of a sequence in a step; 0: none.
    time : StepTime
        What steps were seen to take.
    tile : int
        Products take so many rows at a time.

    Attributes
    ----------
    added : int
        How many guesses the chunks of the last step have.

    Raises
    ------
    InputError
        If ``most`` is less than 0.
    """

    def __init__(self, most: int, time: StepTime, tile: int = 1) -> None:
        if most < 0:
            raise InputError(f"num_speculative_tokens is {most}, should be at least 0")
        self._most, self._time, self._tile = most, time, tile
        self.added = 0
        self._usual = list(FIRST_RATES)
        self._drawing: list[Sequence] = []  # those of the step that runs
        self._looked_at: tuple[np.ndarray, ...] = ()  # addresses, lengths, guesses, found

    def extend(self, chunks: list[Chunk], scheduler: Scheduler) -> list[Chunk]:
        """Return the chunks with guesses behind those of sequences that are one token behind."""
        self.added = 0
        if not self._most:
            return chunks
        drawing = [chunk.sequence for chunk in chunks if _may_guess(chunk)]
        self._drawing = drawing if len(drawing) <= MOST_SEQUENCES else []
        if not self._drawing:
            return chunks
        n = len(drawing)
        places = np.array([(each.address, each.length, each.capacity) for each in drawing])
        # Rows of their own: of columns Numba compiles a form for one sequence and one for more.
        addresses, lengths, capacities = places.T.copy()
        guesses, found = np.empty((n, self._most), np.int64), np.empty(n, np.bool_)
        self._looked_at = addresses, lengths, guesses, found
        guess_tokens(*self._looked_at)
        if not found.any():
            return chunks
        rooms = np.minimum(capacities - lengths - 1, self._most)
        rates, chances = np.array([self._rate(each) for each in drawing]), np.empty(n)
        before, counts = sum(chunk.length for chunk in chunks), np.empty(n, np.int64)
        costs = (*self._costs(), before, self._tile)
        choose_guesses(found, rooms, rates, *costs, chances, counts)
        longer = {}
        for i in np.flatnonzero(counts).tolist():
            sequence = drawing[i]
            count = scheduler.lengthen(sequence, int(counts[i]))
            sequence.tokens[sequence.length : sequence.length + count] = guesses[i, :count]
            longer[sequence] = 1 + count
            self.added += count
        return [
            chunk._replace(length=longer[chunk.sequence]) if chunk.sequence in longer else chunk
            for chunk in chunks
        ]

    def learn(self) -> None:
        """Learn from the tokens that the step gave, also of guesses that were not run."""
        if self._drawing and self._looked_at[-1].any():
            ends = np.array([sequence.length for sequence in self._drawing])
            rates = np.array([self._rate(sequence) for sequence in self._drawing])
            addresses, lengths, guesses, found = self._looked_at
            learn_rates(addresses, lengths, ends, guesses, found, rates)
            for i in np.flatnonzero(found).tolist():
                sequence, rate = self._drawing[i], float(rates[i])
                sequence.guess_rate, kind = rate, _is_greedy(sequence)
                self._usual[kind] += FOLLOW * (rate - self._usual[kind])
        self._drawing = []  # an engine that waits holds no sequences

    def _rate(self, sequence: Sequence) -> float:
        """Return how many of a sequence's guesses were right; of one that had none, the usual."""
        rate = sequence.guess_rate
        return self._usual[_is_greedy(sequence)] if rate is None else rate

    def _costs(self) -> tuple[float, float]:
        """Return the time of a step as such, and of a row with its logits."""
        if self._time.observations < WARM_UP:
            return UNKNOWN
        fixed, token, row, _ = self._time.coefficients
        return (fixed, token + row) if token + row > 0 else UNKNOWN


def _is_greedy(sequence: Sequence) -> bool:
    return sequence.params is not None and sequence.params.temperature == 0


def _may_guess(chunk: Chunk) -> bool:
    """Whether a chunk is the one token that a generating sequence is behind.

    A user's function may count its calls, so it is called for no draw that is dropped.
    """
    sequence, start, length = chunk
    params = sequence.params
    return (
        params is not None
        and params.logits_processor is None
        and length == 1
        and start + 1 == sequence.wanted
    )
