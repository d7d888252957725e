"""What the hidden states of a step tell: log-probabilities, new tokens, finished results."""

from __future__ import annotations

import numpy as np

from numbatch.batching.forward import ForwardPass
from numbatch.batching.results import FailedResult, GenerationResult, Result, ScoreResult
from numbatch.batching.sampler import Sampler
from numbatch.batching.scheduler import Chunk
from numbatch.batching.sequence import Sequence
from numbatch.batching.text_stream import TextStream
from numbatch.models.load import LoadedModel

__all__ = ["Finished", "StepOutputs", "scored"]

Finished = list[tuple[Sequence, Result]]


def scored(sequence: Sequence) -> ScoreResult:
    """Return the result of a scored text."""
    return ScoreResult(
        id=sequence.request.id,
        text=sequence.request.text,
        token_ids=sequence.tokens,
        logprobs=_opened(sequence),
        greedy=sequence.greedy,
    )


def _opened(sequence: Sequence) -> np.ndarray:
    if sequence.logprobs is None:
        raise ValueError(f"request {sequence.request.id!r} was not begun")
    return sequence.logprobs


class StepOutputs:
    """Turns hidden states into outputs of the sequences that were run.

    Parameters
    ----------
    model : LoadedModel
    forward : ForwardPass
    sampler : Sampler
    """

    def __init__(self, model: LoadedModel, forward: ForwardPass, sampler: Sampler) -> None:
        self._model, self._forward, self._sampler = model, forward, sampler

    def score(self, chunks: list[Chunk], hidden: np.ndarray) -> None:
        """Fill in the log-probabilities that this step's hidden states tell."""
        places: list[np.ndarray] = []
        parts: list[tuple[Sequence, slice]] = []
        begin = 0
        for sequence, start, length in chunks:
            if sequence.params is None:
                low = max(start + 1, sequence.request.score_from)
                high = start + length + 1  # a hidden state tells of the token after it
                if low < high:
                    places.append(np.arange(begin + low - start - 1, begin + length))
                    parts.append((sequence, slice(low, high)))
            begin += length
        if not parts:
            return
        targets = np.concatenate([sequence.tokens[part] for sequence, part in parts])
        logprobs, greedy = self._forward.logprobs(hidden[np.concatenate(places)], targets)
        begin = 0
        for sequence, part in parts:
            end = begin + part.stop - part.start
            _opened(sequence)[part] = logprobs[begin:end]
            sequence.greedy[part] = greedy[begin:end]
            begin = end

    def sample(self, chunks: list[Chunk], hidden: np.ndarray) -> Finished:
        """Draw a token for each sequence that has caught up; return those that it ended."""
        ends = np.cumsum([chunk.length for chunk in chunks]) - 1
        drawing = [
            (chunk.sequence, end)
            for chunk, end in zip(chunks, ends, strict=True)
            if chunk.sequence.params is not None
            and chunk.start + chunk.length == chunk.sequence.wanted
        ]
        if not drawing:
            return []
        sequences = [sequence for sequence, _ in drawing]
        logits = self._forward.logits(hidden[[end for _, end in drawing]])
        finished: Finished = []
        for sequence, token in zip(sequences, self._sampler.sample(logits, sequences), strict=True):
            result = self.after_token(sequence, int(token))
            if result is not None:
                finished.append((sequence, result))
        return finished

    def finish_scored(self, chunks: list[Chunk]) -> Finished:
        """Return the scored texts that are complete."""
        return [
            (sequence, scored(sequence))
            for sequence, _, _ in chunks
            if sequence.params is None and sequence.behind == 0
        ]

    def after_token(self, sequence: Sequence, token: int) -> Result | None:
        """Return the result if this token ended the sequence."""
        params = sequence.params
        if token < 0 or params is None:
            return FailedResult(sequence.request.id, "the model's logits are not numbers (NaN)")
        if sequence.texts is None:
            decoder = self._model.tokenizer.stream_decoder(skip_special=True, continues=True)
            sequence.texts = TextStream(decoder, tuple(params.stop))
        texts = sequence.texts
        if token in params.stop_token_ids:
            return _generated(sequence, texts, "stop", token)
        if token in self._model.eos_ids and not params.ignore_eos:
            return _generated(sequence, texts, "stop", None)
        stop = texts.push(token)
        full = sequence.length == sequence.capacity
        if full and stop is None:
            stop = texts.flush()
        if stop is not None:
            return _generated(sequence, texts, "stop", stop)
        return _generated(sequence, texts, "length", None) if full else None


def _generated(
    sequence: Sequence, texts: TextStream, reason: str, stop_reason: str | int | None
) -> GenerationResult:
    if not isinstance(stop_reason, str):
        texts.flush()
    output = slice(sequence.prompt_length, sequence.length)
    return GenerationResult(
        id=sequence.request.id,
        prompt=sequence.request.text,
        prompt_token_ids=sequence.tokens[: sequence.prompt_length],
        text=texts.text,
        token_ids=sequence.tokens[output],
        logprobs=_opened(sequence)[output],
        finish_reason=reason,
        stop_reason=stop_reason,
        top_token_ids=sequence.top_ids[output],
        top_logprobs=sequence.top_logprobs[output],
    )
