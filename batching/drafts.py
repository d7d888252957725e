"""Tokens that are guessed ahead and checked by the model in one step (speculative decoding).

A step reads all weights, whether it has one row or twenty, so a row more costs a fraction of it.
Guesses are run as rows of their own behind the token that is known; the sampler draws a token from
each row, and draws are kept up to the first that is not the one guessed. What is kept is what would
have been drawn without guesses, to the same bits: a row does not depend on others, and the coin of
a draw only on its place.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.batching.batch_sizer import WARM_UP
from numbatch.batching.scheduler import Chunk, Scheduler
from numbatch.batching.sequence import Sequence
from numbatch.batching.step_time import StepTime
from numbatch.errors import InputError
from numbatch.kernels.scoring.drafts import guess_tokens

__all__ = ["DEFAULT_TOKENS", "Drafter"]

DEFAULT_TOKENS = 15
"""With the known token a row of tiles, 16."""

LEARN = 0.2
"""A guess changes a sequence's rate of right ones by so much of the difference."""

LOWEST, HIGHEST = 0.02, 0.98
"""Bounds of the rate: it can recover, and guesses end."""

UNKNOWN_WORTH = 0.3
"""Least probability of a guess that is run, until it is known how long steps take."""


class Drafter:
    """Adds guesses to the chunks of sequences that generate, as many as are worth their time.

    The ``i``-th guess is right with a probability of about ``rate ** i``, where ``rate`` is how
    many guesses of the sequence were right lately. It is run where that is more than what its row
    costs, as a share of what a token costs in a step of its own.

    Parameters
    ----------
    most : int
        Guesses of a sequence in a step; 0: none.
    time : StepTime
        What steps were seen to take.

    Raises
    ------
    InputError
        If ``most`` is less than 0.
    """

    def __init__(self, most: int, time: StepTime) -> None:
        if most < 0:
            raise InputError(f"num_speculative_tokens is {most}, should be at least 0")
        self._time = time
        self._guess = np.empty(most, np.int64)
        self._guesses: list[tuple[Sequence, int, np.ndarray]] = []

    def extend(self, chunks: list[Chunk], scheduler: Scheduler) -> list[Chunk]:
        """Return the chunks with guesses behind those of sequences that are one token behind."""
        self._guesses = []
        drawing = [chunk for chunk in chunks if len(self._guess) and _may_guess(chunk)]
        if not drawing:
            return chunks
        worth = math.log(self._worth(len(drawing)))
        longer = {}
        for chunk in drawing:
            sequence = chunk.sequence
            if guess_tokens(sequence.tokens, sequence.length, self._guess):
                room = sequence.capacity - sequence.length - 1
                guess = self._guess[:room].copy()
                self._guesses.append((sequence, sequence.length, guess))
                wanted = min(int(worth / math.log(sequence.guess_rate)), len(guess))
                count = scheduler.lengthen(sequence, wanted)
                if count:
                    sequence.tokens[sequence.length : sequence.length + count] = guess[:count]
                    longer[sequence] = chunk._replace(length=1 + count)
        return [longer.get(chunk.sequence, chunk) for chunk in chunks]

    def learn(self) -> None:
        """Learn from the tokens that the step gave, also of guesses that were not run."""
        for sequence, length, guess in self._guesses:
            drawn = sequence.tokens[length : min(sequence.length, length + len(guess))]
            wrong = np.flatnonzero(drawn != guess[: len(drawn)])
            rate = sequence.guess_rate
            for _ in range(wrong[0] if len(wrong) else len(drawn)):
                rate += LEARN * (1 - rate)
            if len(wrong):
                rate -= LEARN * rate
            sequence.guess_rate = min(max(rate, LOWEST), HIGHEST)

    def _worth(self, sequences: int) -> float:
        """Return the least probability with which a guess is worth its row.

        A right guess saves its sequence's share of what a step costs as such; its row is not lost.
        """
        if self._time.observations < WARM_UP:
            return UNKNOWN_WORTH
        fixed, token, sequence, _ = self._time.coefficients
        row, saved = token + sequence, fixed / sequences
        return min(max(row / (saved + row), LOWEST), HIGHEST) if row > 0 else UNKNOWN_WORTH


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
