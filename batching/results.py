"""What comes back: light objects over arrays, one for each request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

__all__ = [
    "Choice",
    "FailedResult",
    "GenerationResult",
    "LogLikelihood",
    "Perplexity",
    "Result",
    "ScoreResult",
    "perplexity_of",
]


def perplexity_of(sum_logprob: float, tokens: int) -> float:
    """Return ``exp(-sum_logprob / tokens)``: NaN for no tokens, infinity where it is too large."""
    if not tokens:
        return math.nan
    try:
        return math.exp(-sum_logprob / tokens)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True, eq=False)
class GenerationResult:
    """A continued prompt. Log-probabilities are natural logarithms.

    Parameters
    ----------
    id : str or int
        The request's.
    prompt : str
    prompt_token_ids : int64 array, shape (m,)
    text : str
        What was generated, without special tokens, up to the stop string or stop token.
    token_ids : int64 array, shape (n,)
        What was generated, the stop token included.
    logprobs : float32 array, shape (n,)
        Log-probability of each token, as the model gave it: before penalties and temperature.
    finish_reason : str
        ``stop`` (end token, stop token or stop string) or ``length``.
    stop_reason : str, int or None
        The stop string or stop token that ended it; None for the model's own end token.
    top_token_ids, top_logprobs : int64 and float32 arrays, shape (n, k)
        The ``k`` likeliest tokens at each place, where ``logprobs=k`` was asked for.
    prompt_logprobs : float32 array, shape (m,)
        Log-probability of each token of the prompt after those before it, NaN at the first, where
        ``prompt_logprobs`` was asked for; else empty.
    prompt_top_token_ids, prompt_top_logprobs : int64 and float32 arrays, shape (m, k)
        The ``k`` likeliest tokens at each place of the prompt, where ``prompt_logprobs=k`` was
        asked for; -1 and NaN at the first.
    """

    id: str | int
    prompt: str
    prompt_token_ids: np.ndarray = field(repr=False)
    text: str
    token_ids: np.ndarray = field(repr=False)
    logprobs: np.ndarray = field(repr=False)
    finish_reason: str
    stop_reason: str | int | None = None
    top_token_ids: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    top_logprobs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    prompt_logprobs: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    prompt_top_token_ids: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    prompt_top_logprobs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    @property
    def cumulative_logprob(self) -> float:
        """Log-probability of all that was generated."""
        return float(np.sum(self.logprobs, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class ScoreResult:
    """A scored text. Log-probabilities are natural logarithms.

    Parameters
    ----------
    id : str or int
        The request's.
    text : str
    token_ids : int64 array, shape (n,)
        The beginning-of-sequence token included where the model wants one.
    logprobs : float32 array, shape (n,)
        Log-probability of each token after those before it; NaN where it was not scored: at the
        first token, and in a context.
    greedy : bool array, shape (n,)
        Whether the token is the likeliest at its place; False where it was not scored.
    top_token_ids, top_logprobs : int64 and float32 arrays, shape (n, k)
        The ``k`` likeliest tokens at each place, where ``prompt_logprobs=k`` was asked for; -1 and
        NaN where it was not scored.
    scores : float64 array, shape (n,)
        What the request's scorer returned for each token, NaN where it was not scored; empty where
        there is no scorer.
    """

    id: str | int
    text: str
    token_ids: np.ndarray = field(repr=False)
    logprobs: np.ndarray = field(repr=False)
    greedy: np.ndarray = field(repr=False)
    top_token_ids: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    top_logprobs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    scores: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def tokens_scored(self) -> int:
        """How many tokens have a log-probability."""
        return int(np.count_nonzero(~np.isnan(self.logprobs)))

    @property
    def sum_logprob(self) -> float:
        """Log-probability of all tokens that were scored."""
        return float(np.nansum(self.logprobs, dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """``exp(-mean log-probability)``; NaN where no token was scored."""
        return perplexity_of(self.sum_logprob, self.tokens_scored)


@dataclass(frozen=True, slots=True)
class FailedResult:
    """A request that could not be served, and why; the others are not touched by it."""

    id: str | int
    error: str


Result = GenerationResult | ScoreResult | FailedResult


class LogLikelihood(NamedTuple):
    """Log-likelihood of a continuation, and whether greedy decoding would have produced it."""

    logprob: float
    is_greedy: bool


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The likeliest of several continuations.

    Parameters
    ----------
    index : int
        Which option; the first of equals.
    text : str
        The option.
    logprobs : float64 array, shape (options,)
        Log-likelihood of each option.
    scores : float64 array, shape (options,)
        What was compared: ``logprobs``, divided by tokens or bytes where that was asked for.
    """

    index: int
    text: str
    logprobs: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Perplexity:
    """Perplexities of several texts.

    Parameters
    ----------
    texts : float64 array, shape (texts,)
        Each text's; NaN for a text of one token, of which nothing can be scored.
    corpus : float
        Of all texts together: ``exp`` of minus the mean over all scored tokens.
    bits_per_byte : float
        Over all texts: minus the log-likelihood in bits, by the UTF-8 bytes of the scored tokens.
    tokens : int
        How many tokens were scored.
    """

    texts: np.ndarray
    corpus: float
    bits_per_byte: float
    tokens: int
