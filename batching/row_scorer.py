"""Scores texts that want whole rows of logits: likeliest tokens, or a function of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.forward import ForwardPass
from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError
from numbatch.kernels.scoring.processors import CompiledFunction, compile_scorer
from numbatch.kernels.scoring.row_scores import row_scratch, score_rows
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["RowScorer", "ScoredPart"]

ROWS = 32
"""Rows of logits that are held at a time."""


@dataclass(slots=True)
class ScoredPart:
    """Tokens of one text that a step's hidden states tell of.

    Parameters
    ----------
    sequence : Sequence
    tokens : slice
        Their places in the text.
    places : int64 array
        The hidden states that tell of them, in order.
    error : str, optional
        Why they could not be scored.
    """

    sequence: Sequence
    tokens: slice
    places: np.ndarray
    error: str | None = None

    @property
    def wants_rows(self) -> bool:
        """Whether more than log-probabilities is wanted."""
        request = self.sequence.request
        return bool(request.wanted_prompt_logprobs) or request.scorer is not None


class RowScorer:
    """Scores tokens from rows of logits, a few at a time, on a team of threads.

    Parameters
    ----------
    forward : ForwardPass
    team : ThreadTeam
    vocabulary : int
    """

    def __init__(self, forward: ForwardPass, team: ThreadTeam, vocabulary: int) -> None:
        self._forward, self._team = forward, team
        self._scratch = row_scratch(team.threads, vocabulary)
        self._scorers: dict[Any, CompiledFunction] = {}

    def prepare(self, function: Any) -> None:
        """Compile a scorer, unless it was compiled before.

        Raises
        ------
        InputError
            If it does not compile.
        """
        if function not in self._scorers:
            try:
                self._scorers[function] = compile_scorer(function)
            except ValueError as error:
                raise InputError(f"scorer {error}") from error

    def score(self, parts: list[ScoredPart], hidden: np.ndarray) -> None:
        """Fill in what the parts' sequences want; ``error`` where a scorer raised."""
        for part in parts:
            for begin in range(0, len(part.places), ROWS):
                if part.error is None:
                    self._score(part, begin, min(begin + ROWS, len(part.places)), hidden)

    def _score(self, part: ScoredPart, begin: int, end: int, hidden: np.ndarray) -> None:
        sequence, n = part.sequence, end - begin
        logits = self._forward.logits(hidden[part.places[begin:end]])
        at = slice(part.tokens.start + begin, part.tokens.start + end)
        positions = np.arange(at.start, at.stop)
        function = sequence.request.scorer
        address = 0 if function is None else self._scorers[function].address
        inputs = (logits, sequence.tokens[at], positions, np.full(n, address))
        logprobs, greedy = np.empty(n, np.float32), np.empty(n, np.bool_)
        tops = sequence.prompt_top_ids[at], sequence.prompt_top_logprobs[at]
        scores, raised = np.empty(n), np.empty(n, np.bool_)
        outputs = (logprobs, greedy, *tops, scores, raised)
        self._team.run(Call(score_rows, n, (*inputs, *outputs), self._scratch))
        if sequence.logprobs is not None:
            sequence.logprobs[at], sequence.greedy[at] = logprobs, greedy
        if function is not None:
            sequence.scores[at] = scores
            if raised.any():
                row = int(np.argmax(raised))
                arguments = (int(sequence.tokens[at][row]), int(positions[row]))
                part.error = _raised(function, logits[row], *arguments)


def _raised(function: Any, logits: np.ndarray, target: int, position: int) -> str:
    """Call a user's function again, from Python, to learn the text of what it raises."""
    try:
        function(logits, target, position)
    except Exception as error:
        return f"scorer raised {type(error).__name__} at token {position}: {error}"
    return f"scorer raised an exception at token {position}"
