"""A request while it is being served."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from numbatch.batching.request import Request

if TYPE_CHECKING:
    from numbatch.batching.results import Result
    from numbatch.batching.text_stream import TextStream

__all__ = ["Sequence"]


class Sequence:
    """The tokens of a request so far, and how many of them the model has seen.

    A sequence catches up with its tokens in chunks of any size: there is no separate phase for the
    prompt and for the tokens generated after it. Its arrays are made when it first runs, so that
    one that waits takes little memory.

    Parameters
    ----------
    request : Request
    context : int
        The most tokens a sequence may have.
    sink : function, optional
        Called as ``sink(sequence, result)`` when it is finished.

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
    prompt_top_ids, prompt_top_logprobs : int64 and float32 arrays, shape (prompt, n)
        The likeliest tokens at each place of the prompt or the scored text, where asked for.
    scores : float64 array, shape (prompt,)
        What the user's scorer returned; empty where there is none.
    blocks : list of int
        The blocks of the pool that it holds, in order; empty where it does not run.
    params : SamplingParams or None
        Sampling parameters; None where the text is scored.
    is_scored : bool
        Whether log-probabilities of its text or its prompt are wanted.
    priority : float
        The request's; a policy may make it more urgent.
    seed : int, optional
        Of its sampling; the sampler's.
    address : int
        Where ``tokens`` lie in memory, for kernels; once it was begun.
    guess_rate : float, optional
        How many of the tokens guessed ahead were right lately; the drafter's.
    arrival : int
        How many came before it; the scheduler's.
    expires : float
        When its deadline is over, on the clock of ``time.monotonic``; infinite where it has none.
    is_waiting : bool
        Whether it is in the policy's queue; the policy's.
    preemptions : int
        How often it was pre-empted; the scheduler's.
    is_done : bool
        Whether it is finished or was cancelled.
    """

    __slots__ = (
        "__weakref__",
        "_unread",
        "address",
        "arrival",
        "blocks",
        "capacity",
        "computed",
        "expires",
        "greedy",
        "guess_rate",
        "is_done",
        "is_scored",
        "is_waiting",
        "keys",
        "length",
        "logprobs",
        "params",
        "preemptions",
        "priority",
        "prompt_length",
        "prompt_top_ids",
        "prompt_top_logprobs",
        "request",
        "scores",
        "seed",
        "sink",
        "texts",
        "tokens",
        "top_ids",
        "top_logprobs",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        context: int,
        sink: Callable[[Sequence, Result], None] | None = None,
    ) -> None:
        self.request = request
        self.params = request.params
        self.is_scored = request.wanted_prompt_logprobs is not None
        self.sink = sink
        self._unread = 0 if request.params is not None else 1
        self.prompt_length = len(request.tokens)
        limit = 0 if request.params is None else request.params.max_tokens
        self.capacity = min(self.prompt_length + limit, max(context, self.prompt_length))
        self.tokens = request.tokens
        self.length = self.prompt_length
        self.computed = 0
        self.blocks: list[int] = []
        self.keys: list[bytes] = []
        self.priority: float = request.priority
        self.arrival = self.preemptions = 0
        self.expires = float("inf")
        self.is_waiting = self.is_done = False
        self.seed: int | None = None
        self.guess_rate: float | None = None
        self.texts: TextStream | None = None
        self.logprobs: np.ndarray | None = None

    def open(self) -> None:
        """Make the arrays for its output, if they are not there."""
        if self.logprobs is not None:
            return
        self.tokens = np.empty(self.capacity, np.int64)
        self.tokens[: self.prompt_length] = self.request.tokens
        self.address: int = self.tokens.ctypes.data
        self.logprobs = np.full(self.capacity, np.nan, np.float32)
        self.greedy = np.zeros(self.capacity, np.bool_)
        wanted = 0 if self.params is None else self.params.logprobs or 0
        self.top_ids = np.empty((self.capacity, wanted), np.int64)
        self.top_logprobs = np.empty((self.capacity, wanted), np.float32)
        wanted = self.request.wanted_prompt_logprobs or 0
        self.prompt_top_ids = np.full((self.prompt_length, wanted), -1, np.int64)
        self.prompt_top_logprobs = np.full((self.prompt_length, wanted), np.nan, np.float32)
        scored = 0 if self.request.scorer is None else self.prompt_length
        self.scores = np.full(scored, np.nan, np.float64)

    @property
    def wanted(self) -> int:
        """How many of the known tokens the model has to see.

        The last token of a scored text predicts nothing that is wanted, so it is never run.
        """
        return self.length - self._unread

    @property
    def behind(self) -> int:
        """How many known tokens the model has not seen yet."""
        return self.length - self._unread - self.computed

    @property
    def shareable(self) -> int:
        """How many tokens need not be run where their keys and values are there already.

        The hidden state of the token before the first one that is scored or sampled is needed.
        """
        if not self.is_scored:
            return self.length - 1
        return (1 if self.params is not None else self.request.score_from) - 1

    def block_keys(self, tokens: int, size: int) -> list[bytes]:
        """Return the keys of the full blocks of the first ``tokens`` tokens.

        A key is a hash of the block's tokens and of the key before it, so it tells all tokens from
        the first on. With 128 bits, equal keys of different tokens do not happen.
        """
        for i in range(len(self.keys), tokens // size):
            before = self.keys[-1] if self.keys else b""
            content = before + self.tokens[i * size : (i + 1) * size].tobytes()
            self.keys.append(hashlib.blake2b(content, digest_size=16).digest())
        return self.keys[: tokens // size]

    def append(self, token: int, logprob: float) -> None:
        """Add a generated token."""
        self.tokens[self.length] = token
        if self.logprobs is not None:
            self.logprobs[self.length] = logprob
        self.length += 1

    def keep_top(self, ids: np.ndarray, logprobs: np.ndarray) -> None:
        """Note the likeliest tokens at the next place, as many as were asked for."""
        own = self.top_ids.shape[1]
        if own:
            self.top_ids[self.length] = ids[:own]
            self.top_logprobs[self.length] = logprobs[:own]
