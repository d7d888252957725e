"""A request while it is being served."""

from __future__ import annotations

import numpy as np

from numbatch.batching.request import Request, SamplingParams

__all__ = ["Sequence"]


class Sequence:
    """The tokens of a request so far, and how many of them the model has seen.

    A sequence catches up with its tokens in chunks of any size: there is no separate phase for the
    prompt and for the tokens generated after it.

    Parameters
    ----------
    request : Request
    context : int
        The most tokens a sequence may have.

    Attributes
    ----------
    tokens : int64 array, shape (capacity,)
        Prompt and output; the first ``length`` are known.
    computed : int
        How many tokens have keys and values in the pool.
    logprobs : float32 array, shape (capacity,)
        Log-probability of each token, NaN where none was asked for.
    greedy : bool array, shape (capacity,)
        Scoring: whether the token is the likeliest at its place.
    top_ids, top_logprobs : int64 and float32 arrays, shape (capacity, n)
        The likeliest tokens at each generated place, where asked for.
    blocks : int64 array
        The blocks of the pool that it holds, in order; empty before it runs.
    """

    def __init__(self, request: Request, context: int) -> None:
        self.request = request
        self.prompt_length = len(request.tokens)
        limit = 0 if request.params is None else request.params.max_tokens
        self.capacity = min(self.prompt_length + limit, max(context, self.prompt_length))
        self.tokens = np.empty(self.capacity, np.int64)
        self.tokens[: self.prompt_length] = request.tokens
        self.length = self.prompt_length
        self.computed = 0
        self.logprobs = np.full(self.capacity, np.nan, np.float32)
        self.greedy = np.zeros(self.capacity, np.bool_)
        wanted = 0 if request.params is None else request.params.logprobs or 0
        self.top_ids = np.empty((self.capacity, wanted), np.int64)
        self.top_logprobs = np.empty((self.capacity, wanted), np.float32)
        self.blocks = np.empty(0, np.int64)

    @property
    def params(self) -> SamplingParams | None:
        """Sampling parameters; None where the text is scored."""
        return self.request.params

    @property
    def behind(self) -> int:
        """How many known tokens the model has not seen yet.

        The last token of a scored text predicts nothing that is wanted, so it is never run.
        """
        wanted = self.length if self.params is not None else self.length - 1
        return wanted - self.computed

    @property
    def cached_tokens(self) -> int:
        """How many tokens need room in the pool: the last one is never read again."""
        return max(self.capacity - 1, 1)

    def append(self, token: int, logprob: float) -> None:
        """Add a generated token."""
        self.tokens[self.length] = token
        self.logprobs[self.length] = logprob
        self.length += 1
