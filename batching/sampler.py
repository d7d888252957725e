"""Draws the next token of each generating sequence from its row of logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Rows

import numpy as np

from numbatch.batching.request import Request
from numbatch.batching.sequence import Sequence
from numbatch.kernels.scoring.sampling import ROW, sample_rows, sampling_scratch
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["Sampler", "request_seed"]


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

    def sample(self, logits: np.ndarray, sequences: Rows[Sequence]) -> np.ndarray:
        """Append a token to each sequence; return the tokens, -1 where the logits were NaN.

        Parameters
        ----------
        logits : float32 array, shape (len(sequences), vocabulary)
            Modified in place.
        sequences : sequence of Sequence
            Each must have room for a token.
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
        for i, sequence in enumerate(sequences):
            if chosen[i] >= 0:
                own = sequence.top_ids.shape[1]
                sequence.top_ids[sequence.length] = top_ids[i, :own]
                sequence.top_logprobs[sequence.length] = top_values[i, :own]
                sequence.append(int(chosen[i]), float(logprob[i]))
        return chosen

    def _row(self, sequence: Sequence) -> tuple[float | int, ...]:
        params = sequence.params
        if params is None:
            raise ValueError(f"request {sequence.request.id!r} is scored, not sampled")
        return (
            params.temperature,
            params.top_p,
            params.min_p,
            max(params.top_k, 0),
            params.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
            sequence.prompt_length,
            request_seed(sequence.request, self.seed),
            sequence.length - sequence.prompt_length,
            0,
            0,
        )
