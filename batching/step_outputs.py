"""What the hidden states of a step tell: log-probabilities, new tokens, finished results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numbatch.batching.forward import ForwardPass
from numbatch.batching.request import Request
from numbatch.batching.results import FailedResult, GenerationResult, Result, ScoreResult
from numbatch.batching.row_scorer import RowScorer, ScoredPart
from numbatch.batching.sampler import Sampler
from numbatch.batching.scheduler import Chunk
from numbatch.batching.sequence import Sequence
from numbatch.batching.text_stream import TextStream
from numbatch.errors import InputError
from numbatch.models.load import LoadedModel

__all__ = ["Finished", "StepOutputs", "logit_rows", "scored"]

Finished = list[tuple[Sequence, Result]]

NO_GUESS = -1


def logit_rows(max_num_seqs: int) -> int:
    """Return how many rows of logits are held at most: guessed tokens have one each as well."""
    return max(16, 2 * max_num_seqs)


def scored(sequence: Sequence) -> ScoreResult:
    """Return the result of a scored text."""
    return ScoreResult(
        id=sequence.request.id,
        text=sequence.request.text,
        token_ids=sequence.tokens,
        logprobs=_opened(sequence),
        greedy=sequence.greedy,
        top_token_ids=sequence.prompt_top_ids,
        top_logprobs=sequence.prompt_top_logprobs,
        scores=sequence.scores,
    )


def _scored_parts(chunks: list[Chunk]) -> list[ScoredPart]:
    """Return what of each chunk's sequence is scored by this step's hidden states."""
    parts: list[ScoredPart] = []
    begin = 0
    for sequence, start, length in chunks:
        if sequence.is_scored:
            first = 1 if sequence.params is not None else sequence.request.score_from
            low = max(start + 1, first)
            high = min(start + length + 1, sequence.prompt_length)
            if low < high:  # a hidden state tells of the token after it
                places = np.arange(begin + low - start - 1, begin + high - start - 1)
                parts.append(ScoredPart(sequence, slice(low, high), places))
        begin += length
    return parts


def _asked(parts: list[ScoredPart]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden states that tell of parts, and the tokens that they are asked for."""
    places = np.concatenate([part.places for part in parts])
    return places, np.concatenate([part.sequence.tokens[part.tokens] for part in parts])


def _fill_in(parts: list[ScoredPart], logprobs: np.ndarray, greedy: np.ndarray) -> None:
    """Note log-probabilities in the sequences of parts."""
    begin = 0
    for part in parts:
        end = begin + len(part.places)
        _opened(part.sequence)[part.tokens] = logprobs[begin:end]
        part.sequence.greedy[part.tokens] = greedy[begin:end]
        begin = end


def _failure(part: ScoredPart) -> tuple[Sequence, Result] | None:
    """Return the failure of a text where a log-probability is NaN or its scorer raised."""
    error = part.error
    bad = np.flatnonzero(np.isnan(_opened(part.sequence)[part.tokens]))
    if len(bad):
        place = part.tokens.start + bad[0]
        error = f"the model's logits for token {place} are NaN or infinite"
    if error is None:
        return None
    return part.sequence, FailedResult(part.sequence.request.id, error)


def _opened(sequence: Sequence) -> np.ndarray:
    if sequence.logprobs is None:
        raise ValueError(f"request {sequence.request.id!r} was not begun")
    return sequence.logprobs


class _Draw(NamedTuple):
    """A token to be drawn: from a row of hidden states, to stand at a place of a sequence."""

    sequence: Sequence
    place: int
    row: int
    guess: int  # what the sequence's next draw takes for drawn here


def _draws(chunks: list[Chunk]) -> list[_Draw]:
    """Return what is drawn for the sequences that have caught up, in the order of their rows."""
    draws: list[_Draw] = []
    end = 0
    for sequence, start, length in chunks:
        wanted = sequence.wanted
        guesses = start + length - wanted
        end += length
        if sequence.params is None or guesses < 0:
            continue
        if not guesses:
            draws.append(_Draw(sequence, wanted, end - 1, NO_GUESS))
            continue
        assumed = [*sequence.tokens[wanted : wanted + guesses].tolist(), NO_GUESS]
        first = end - guesses - 1
        draws += [_Draw(sequence, wanted + i, first + i, guess) for i, guess in enumerate(assumed)]
    return draws


class StepOutputs:
    """Turns hidden states into outputs of the sequences that were run.

    Parameters
    ----------
    model : LoadedModel
    forward : ForwardPass
    sampler : Sampler
    rows : int
        The most rows of logits to be held at a time.
    """

    def __init__(
        self, model: LoadedModel, forward: ForwardPass, sampler: Sampler, rows: int
    ) -> None:
        self._model, self._forward, self._sampler, self._most = model, forward, sampler, rows
        team = getattr(sampler, "team", None)  # a GPU's sampler has none
        self._rows: Any = None
        if team is not None:
            self._rows = RowScorer(forward, team, model.decoder.config.vocabulary)

    def prepare(self, request: Request) -> None:
        """Compile the functions that a request brings, unless they were compiled before.

        Raises
        ------
        InputError
            If one does not compile, or this device has no rows of logits to give it.
        """
        if self._rows is None and (request.scorer is not None or request.wanted_prompt_logprobs):
            raise InputError(
                f"request {request.id!r} has a scorer or prompt_logprobs, which are for the CPU"
            )
        if request.params is not None:
            self._sampler.prepare(request.params)
        if request.scorer is not None:
            self._rows.prepare(request.scorer)

    def score(self, chunks: list[Chunk], hidden: np.ndarray) -> Finished:
        """Fill in the log-probabilities that this step's hidden states tell.

        Returns the texts that cannot be scored: where a logit is NaN or infinite.
        """
        failed: Finished = []
        every = _scored_parts(chunks)
        for rich in (False, True) if every else ():
            parts = [part for part in every if part.wants_rows == rich]
            if parts:
                self._rows.score(parts, hidden) if rich else self._score(parts, hidden)
            failed += [each for part in parts if (each := _failure(part)) is not None]
        return failed

    def _score(self, parts: list[ScoredPart], hidden: np.ndarray) -> None:
        """Fill in log-probabilities, without rows of logits."""
        places, targets = _asked(parts)
        _fill_in(parts, *self._forward.logprobs(hidden[places], targets))

    def begin_scoring(self, chunks: list[Chunk], hidden: Any) -> Callable[[], Finished]:
        """Start what :meth:`score` does, on a GPU; return what waits for the result."""
        parts = _scored_parts(chunks)
        if not parts:
            return list
        places, targets = _asked(parts)
        forward: Any = self._forward
        found = forward.begin_logprobs(hidden[places], targets)

        def finish() -> Finished:
            _fill_in(parts, *found())
            return [each for part in parts if (each := _failure(part)) is not None]

        return finish

    def sample(self, chunks: list[Chunk], hidden: np.ndarray) -> Finished:
        """Draw the next tokens of sequences that have caught up; return those that they ended.

        Behind the last known token may be guesses (``drafts.Drafter``). Each has a row as if it was
        right; draws are kept up to the first that is not the one guessed.
        """
        drawing = _draws(chunks)
        finished: Finished = []
        over: set[Sequence] = set()  # no more of their draws are kept
        for low in range(0, len(drawing), self._most):
            part = [draw for draw in drawing[low : low + self._most] if draw.sequence not in over]
            if part:
                finished += self._sample(part, hidden, over)
        return finished

    def _sample(self, part: list[_Draw], hidden: np.ndarray, over: set[Sequence]) -> Finished:
        every = len(part) == len(hidden)  # rows are in their order
        rows = hidden if every else hidden[[draw.row for draw in part]]
        logits, *states = self._forward.logits_to_draw(rows)
        places = [(draw.sequence, draw.place) for draw in part]
        drawn = self._sampler.sample(logits, places, *states)
        finished: Finished = []
        tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
        tops = drawn.top_ids.shape[1]
        for i, (sequence, _, _, guess) in enumerate(part):
            if sequence in over:
                continue
            token = tokens[i]
            if token < 0:
                why = self._sampler.failure(token, logits[i], sequence)
                result: Result | None = FailedResult(sequence.request.id, why)
            else:
                if tops:
                    sequence.keep_top(drawn.top_ids[i], drawn.top_logprobs[i])
                sequence.append(token, logprobs[i])
                result = self.after_token(sequence, token)
            if result is not None:
                finished.append((sequence, result))
            if guess != NO_GUESS and (result is not None or token != guess):
                over.add(sequence)
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
        if params is None:
            raise ValueError(f"request {sequence.request.id!r} is scored, not sampled")
        if token < 0:
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
    prompt = slice(sequence.prompt_length)
    output = slice(sequence.prompt_length, sequence.length)
    asked = sequence.request.wanted_prompt_logprobs is not None
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
        prompt_logprobs=_opened(sequence)[prompt if asked else slice(0)],
        prompt_top_token_ids=sequence.prompt_top_ids,
        prompt_top_logprobs=sequence.prompt_top_logprobs,
    )
