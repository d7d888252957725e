"""Draws the next token of each generating sequence from its row of logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np

from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError
from numbatch.kernels.scoring.logit_tiles import BOUND
from numbatch.kernels.scoring.processors import CompiledFunction, compile_processor
from numbatch.kernels.scoring.sampling import (
    NO_LOGITS,
    PROCESSOR_RAISED,
    ROW,
    sample_rows,
    sampling_scratch,
)
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["Sampler", "describe_logits", "request_seed"]


def request_seed(request: Request, engine_seed: int) -> int:
    """Return the request's own seed, or one made from the engine's seed and the request's id."""
    if request.params is not None and request.params.seed is not None:
        return int(request.params.seed) % 2**64
    words = f"{engine_seed} {type(request.id).__name__} {request.id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


class Sampler:
    """Samples rows of logits on a team of threads.

    Parameters
    ----------
    team : ThreadTeam
    vocabulary : int
    seed : int
        For requests that name no seed.
    """

    def __init__(self, team: ThreadTeam, vocabulary: int, seed: int) -> None:
        self.team = team
        self.seed = seed
        self._scratch = sampling_scratch(team.threads, vocabulary)
        self._processors: dict[Any, CompiledFunction] = {}

    def prepare(self, params: SamplingParams) -> None:
        """Compile the user's function that a request brings, unless it was compiled before.

        Raises
        ------
        InputError
            If it does not compile.
        """
        function = params.logits_processor
        if function is not None and function not in self._processors:
            try:
                self._processors[function] = compile_processor(function)
            except ValueError as error:
                raise InputError(f"logits_processor {error}") from error

    def sample(
        self, logits: np.ndarray, sequences: Rows[Sequence]
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Append a token to each sequence; return the tokens, and what went wrong where it did.

        Parameters
        ----------
        logits : float32 array, shape (len(sequences), vocabulary)
            Modified in place.
        sequences : sequence of Sequence
            Each must have room for a token; their parameters were given to :meth:`prepare`.

        Returns
        -------
        chosen : int64 array, shape (len(sequences),)
            Negative where there is no token.
        failures : dict of int to str
            Why, by the place in ``sequences``.
        """
        n = len(sequences)
        rows = np.empty(n, ROW)
        history, offsets = [np.empty(0, np.int64)], np.zeros(n + 1, np.int64)
        for i, sequence in enumerate(sequences):
            rows[i] = self._row(sequence)
            past = 0
            if sequence.params is not None and sequence.params.has_penalties:
                history.append(sequence.tokens[: sequence.length])
                past = sequence.length
            offsets[i + 1] = offsets[i] + past
        wanted = max(sequence.top_ids.shape[1] for sequence in sequences)
        chosen, logprob = np.empty(n, np.int64), np.empty(n, np.float32)
        top_ids, top_values = np.empty((n, wanted), np.int64), np.empty((n, wanted), np.float32)
        args = (logits, rows, np.concatenate(history), offsets)
        outputs = (chosen, logprob, top_ids, top_values)
        self.team.run(Call(sample_rows, n, (*args, *outputs), self._scratch))
        failures: dict[int, str] = {}
        drawn = zip(sequences, chosen.tolist(), logprob.tolist(), strict=True)
        for i, (sequence, token, value) in enumerate(drawn):
            if token < 0:
                failures[i] = self._failure(token, logits[i], sequence)
                continue
            if own := sequence.top_ids.shape[1]:
                sequence.top_ids[sequence.length] = top_ids[i, :own]
                sequence.top_logprobs[sequence.length] = top_values[i, :own]
            sequence.append(token, value)
        return chosen, failures

    def _row(self, sequence: Sequence) -> tuple[float | int, ...]:
        params = sequence.params
        if params is None:
            raise ValueError(f"request {sequence.request.id!r} is scored, not sampled")
        if sequence.seed is None:
            sequence.seed = request_seed(sequence.request, self.seed)
        function = params.logits_processor
        return (
            params.temperature,
            params.top_p,
            params.min_p,
            max(params.top_k, 0),
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
            sequence.prompt_length,
            sequence.seed,
            sequence.length - sequence.prompt_length,
            0 if function is None else self._processors[function].address,
            params.logits_processor_arg,
        )

    def _failure(self, code: int, logits: np.ndarray, sequence: Sequence) -> str:
        """Say why no token was drawn from a row of logits."""
        params = sequence.params
        if code == PROCESSOR_RAISED and params is not None and params.logits_processor is not None:
            position = sequence.length - sequence.prompt_length
            return _raised(params.logits_processor, logits, params.logits_processor_arg, position)
        where = "the model's logits" if code == NO_LOGITS else "logits after the logits_processor"
        return f"{where} are no numbers to draw from: {describe_logits(logits)}"


def describe_logits(logits: np.ndarray) -> str:
    """Say what is wrong with a row of logits."""
    bad = np.flatnonzero(np.isnan(logits))
    if len(bad):
        return f"that of token {bad[0]} is NaN ({len(bad)} of {len(logits)} are)"
    best = int(np.argmax(logits))
    if np.isneginf(logits[best]):
        return "all are -inf, so every token is banned"
    return f"the largest, that of token {best}, is {logits[best]}, beyond {BOUND:.0f} either way"


def _raised(function: Any, logits: np.ndarray, argument: int, position: int) -> str:
    """Call a user's function again, from Python, to learn the text of what it raises."""
    try:
        function(logits, argument, position)
    except Exception as error:
        return f"logits_processor raised {type(error).__name__}: {error}"
    return "logits_processor raised an exception"
