"""Draws tokens on the GPU, and notes them in their sequences."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.request import SamplingParams
from numbatch.batching.sampler import Drawn, request_seed
from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.scoring.cuda.logit_parts import PART_THREADS, part_count, reduce_logits
from numbatch.kernels.scoring.cuda.sampling import PARAMETERS, RECORD, WHOLE, sample_kernel

__all__ = ["CudaSampler", "SamplingRows"]

THREADS = 512


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """What rows are sampled with, as host arrays; see ``sample_kernel``."""

    parameters: np.ndarray
    whole: np.ndarray
    stops: np.ndarray
    wanted: int
    has_history: bool

    @classmethod
    def of(
        cls, sequences: Rows[Sequence], engine_seed: int, eos_ids: frozenset[int]
    ) -> SamplingRows:
        """Read the sampling parameters of sequences."""
        n = len(sequences)
        parameters, whole = np.zeros((n, len(PARAMETERS))), np.zeros((n, len(WHOLE)), np.int64)
        stops: list[list[int]] = []
        has_history = False
        for i, sequence in enumerate(sequences):
            params = sequence.params
            if params is None:
                raise ValueError(f"request {sequence.request.id!r} is scored, not sampled")
            parameters[i] = (
                params.temperature, params.top_p, params.min_p, params.repetition_penalty,
                params.presence_penalty, params.frequency_penalty,
            )  # fmt: skip
            seed = np.uint64(request_seed(sequence.request, engine_seed)).astype(np.int64)
            top_k = min(max(params.top_k, 0), 2**31)
            whole[i] = (top_k, sequence.prompt_length, seed, sequence.capacity)
            ends = [] if params.ignore_eos else sorted(eos_ids)
            stops.append([*params.stop_token_ids, *ends])
            has_history |= params.has_penalties
        longest = max(map(len, stops), default=0)
        padded = np.full((n, max(longest, 1)), -1, np.int32)
        for i, ids in enumerate(stops):
            padded[i, : len(ids)] = ids
        wanted = max((sequence.top_ids.shape[1] for sequence in sequences), default=0)
        return cls(parameters, whole, padded, wanted, has_history)


class CudaSampler:
    """Samples rows of logits on a GPU.

    Parameters
    ----------
    gpu : Gpu
    vocabulary : int
    seed : int
        For requests that name no seed.
    eos_ids : frozenset of int
        The model's end tokens.
    process : function, optional
        A user's ``@cuda.jit(device=True)`` function, compiled into the kernel; see
        ``sample_kernel``.

    Raises
    ------
    InputError
        If the vocabulary is too large.
    """

    def __init__(
        self, gpu: Gpu, vocabulary: int, seed: int, eos_ids: frozenset[int],
        process: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        if vocabulary >= 2**24:
            raise InputError(f"the vocabulary has {vocabulary} entries, at most {2**24 - 1}")
        self._gpu, self.vocabulary, self.seed, self.eos_ids = gpu, vocabulary, seed, eos_ids
        self.kernel = sample_kernel(process)
        self.threads = 4 if is_simulated() else THREADS
        self._counts: Any = gpu.zeros((1, 1), np.int32)
        self._no_history: Any = gpu.zeros((1, 1), np.int32)

    def counts(self, rows: int) -> Any:
        """Return zeros to count tokens in, for so many rows."""
        if self._counts.shape[0] < rows or self._counts.shape[1] < self.vocabulary:
            self._counts = self._gpu.zeros((rows, self.vocabulary), np.int32)
        return self._counts

    def parts(self, rows: int) -> tuple[Any, Any]:
        """Return memory for what :meth:`start` learns of the parts of so many rows."""
        shape = (rows, part_count(self.vocabulary))
        return self._gpu.empty((*shape, 2), np.float32), self._gpu.empty(shape, np.float64)

    def start(
        self, n: int, logits: Any, parts: tuple[Any, Any], parameters: Any, whole: Any, stops: Any,
        counts: Any, history: Any, has_history: bool, tokens: Any, positions: Any, wanted: int,
        record: Any,
    ) -> None:  # fmt: skip
        """Start the kernels that draw a token from each of ``n`` rows; see ``sample_kernel``."""
        self._gpu.launch(
            reduce_logits, (part_count(self.vocabulary), n), min(self.threads, PART_THREADS),
            logits, self.vocabulary, positions, *parts,
        )  # fmt: skip
        self._gpu.launch(
            self.kernel, n, self.threads, logits, self.vocabulary, *parts, parameters, whole,
            stops, counts, history, has_history, tokens, positions, wanted, record,
        )  # fmt: skip

    def prepare(self, params: SamplingParams) -> None:
        """Raise InputError if a request asks for what is for the CPU."""
        if params.logits_processor is not None:
            raise InputError(
                "a request's logits_processor is for the CPU; on a GPU give LLM a "
                "logits_processor decorated with numba.cuda.jit(device=True)"
            )

    def sample(self, logits: Any, places: Rows[tuple[Sequence, int]]) -> Drawn:
        """Draw a token from each row.

        Parameters
        ----------
        logits : float32 array on the device, shape (len(places), vocabulary)
        places : sequence of (Sequence, int)
            Whose row it is; the token is to stand behind those that are known.
        """
        gpu, n, sequences = self._gpu, len(places), [sequence for sequence, _ in places]
        rows = SamplingRows.of(sequences, self.seed, self.eos_ids)
        history, counts = self._no_history, self._counts
        if rows.has_history:
            history = gpu.upload(histories(sequences, max(s.length for s in sequences)))
            counts = self.counts(n)
        positions = gpu.upload(np.array([s.length - 1 for s in sequences], np.int32))
        record = gpu.zeros((n, RECORD + 2 * rows.wanted), np.int32)
        self.start(
            n, logits, self.parts(n), gpu.upload(rows.parameters), gpu.upload(rows.whole),
            gpu.upload(rows.stops), counts, history, rows.has_history, gpu.empty(n, np.int32),
            positions, rows.wanted, record,
        )  # fmt: skip
        return _drawn(gpu.download(record), rows.wanted)

    @staticmethod
    def failure(code: int, logits: Any, sequence: Sequence) -> str:
        """Say why no token was drawn from a row of logits."""
        return "the model's logits are not numbers (NaN)"

    @staticmethod
    def take(record: np.ndarray, wanted: int, sequences: Rows[Sequence]) -> np.ndarray:
        """Append the tokens of a step's record to their sequences; return the tokens."""
        drawn = _drawn(record, wanted)
        for i, sequence in enumerate(sequences):
            if drawn.tokens[i] >= 0:
                sequence.keep_top(drawn.top_ids[i], drawn.top_logprobs[i])
                sequence.append(int(drawn.tokens[i]), float(drawn.logprobs[i]))
        return drawn.tokens


def _drawn(record: np.ndarray, wanted: int) -> Drawn:
    """Read a step's record; see ``sample_kernel``."""
    values, first = record.view(np.float32), RECORD + wanted
    return Drawn(
        tokens=record[:, 0].astype(np.int64),
        logprobs=values[:, 1],
        top_ids=record[:, RECORD:first],
        top_logprobs=values[:, first : first + wanted],
    )


def histories(sequences: Rows[Sequence], longest: int) -> np.ndarray:
    """Return the tokens of sequences so far: int32, shape (n, longest), zero behind their end."""
    out = np.zeros((len(sequences), longest), np.int32)
    for i, sequence in enumerate(sequences):
        out[i, : sequence.length] = sequence.tokens[: sequence.length]
    return out
