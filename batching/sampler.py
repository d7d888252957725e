"""Draws the next token of each generating sequence from its row of logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Rows
from typing import Any, NamedTuple

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

__all__ = ["Drawn", "Sampler", "describe_logits", "request_seed"]

_NONE = np.empty(0, np.int64)


def request_seed(request: Request, engine_seed: int) -> int:
    """Return the request's own seed, or one made from the engine's seed and the request's id."""
    if request.params is not None and request.params.seed is not None:
        return int(request.params.seed) % 2**64
    words = f"{engine_seed} {type(request.id).__name__} {request.id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


class Drawn(NamedTuple):
    """Tokens drawn from rows of logits.

    Parameters
    ----------
    tokens : int64 array, shape (n,)
        Negative where there is none; see :meth:`Sampler.failure`.
    logprobs : float32 array, shape (n,)
    top_ids, top_logprobs : int64 and float32 arrays, shape (n, most)
        The likeliest tokens, as many as one of the sequences wants.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


def _room_for(rows: int, likeliest: int) -> Drawn:
    return Drawn(
        tokens=np.empty(rows, np.int64),
        logprobs=np.empty(rows, np.float32),
        top_ids=np.empty((rows, likeliest), np.int64),
        top_logprobs=np.empty((rows, likeliest), np.float32),
    )


class _Rows:
    """What rows of some sequences are sampled with: in most steps those of the step before."""

    def __init__(self, sequences: list[Sequence], fields: list[tuple[float | int, ...]]) -> None:
        self.sequences = sequences
        self.fields = np.array(fields, ROW)
        self.positions = self.fields["position"]
        self.have_history = any(each.params and each.params.has_penalties for each in sequences)
        self.are_greedy = not self.have_history and all(map(_is_greedy, sequences))
        self.no_offsets = np.zeros(len(sequences) + 1, np.int64)
        likeliest = max((each.top_ids.shape[1] for each in sequences), default=0)
        self.drawn = _room_for(len(sequences), likeliest)


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
        self._rows = _Rows([], [])

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
        self, logits: np.ndarray, places: Rows[tuple[Sequence, int]], states: np.ndarray
    ) -> Drawn:
        """Draw a token from each row; what is returned is valid until the next call.

        Parameters
        ----------
        logits : float32 array, shape (len(places), vocabulary)
            Modified in place.
        places : sequence of (Sequence, int)
            Whose row it is, and at which of its places the token is to stand: the tokens before it
            are there. Their parameters were given to :meth:`prepare`.
        states : float32 array
            Of the tiles of logits, from ``ForwardPass.logits_to_draw``; modified in place.
        """
        n, sequences = len(places), [sequence for sequence, _ in places]
        rows = self._rows
        if sequences != rows.sequences:
            rows = self._rows = _Rows(sequences, [self._row(sequence) for sequence in sequences])
        rows.positions[:] = [place - sequence.prompt_length for sequence, place in places]
        past = _history(places) if rows.have_history else (_NONE, rows.no_offsets)
        args = (logits, states, rows.fields, *past, *rows.drawn)
        # The likeliest token alone is found in 2 us a row: less than it takes to begin a thread.
        self.team.run(Call(sample_rows, n, args, self._scratch, n if rows.are_greedy else 1))
        return rows.drawn

    def _row(self, sequence: Sequence) -> tuple[float | int, ...]:
        """Return the fields of ``ROW``, of a request that has drawn nothing yet."""
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
            0,
            0 if function is None else self._processors[function].address,
            params.logits_processor_arg,
        )

    def failure(self, code: int, logits: np.ndarray, sequence: Sequence) -> str:
        """Say why no token was drawn from a row of logits; ``code`` stands in its place."""
        params = sequence.params
        if code == PROCESSOR_RAISED and params is not None and params.logits_processor is not None:
            position = sequence.length - sequence.prompt_length
            return _raised(params.logits_processor, logits, params.logits_processor_arg, position)
        where = "the model's logits" if code == NO_LOGITS else "logits after the logits_processor"
        return f"{where} are no numbers to draw from: {describe_logits(logits)}"


def _history(places: Rows[tuple[Sequence, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens that penalties look at, and where those of each row begin."""
    past = [
        sequence.tokens[:place] if sequence.params and sequence.params.has_penalties else _NONE
        for sequence, place in places
    ]
    offsets = np.zeros(len(places) + 1, np.int64)
    np.cumsum([len(each) for each in past], out=offsets[1:])
    return np.concatenate(past), offsets


def _is_greedy(sequence: Sequence) -> bool:
    """Return whether the likeliest token of the model's own logits is all that is wanted."""
    params = sequence.params
    return params is not None and params.temperature == 0 and params.logits_processor is None


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
