"""Compile what a model's kernels need, ahead of its first use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core import event

from numbatch.batching.llm import LLM
from numbatch.batching.request import Request, SamplingParams
from numbatch.kernels.scoring.drafts import choose_guesses, guess_tokens, learn_rates

__all__ = ["Compilation", "compilations", "warm_up"]


@dataclass(slots=True)
class Compilation:
    """What was compiled, as opposed to loaded from the cache.

    Parameters
    ----------
    kernels : int
        Functions that Python calls, for each set of argument types.
    functions : int
        All functions, those that are compiled into kernels included.
    seconds : float
    """

    kernels: int = 0
    functions: int = 0
    seconds: float = 0.0


class _Counter(event.Listener):
    """Counts what Numba compiles; functions that a kernel calls are compiled within it."""

    def __init__(self, first: Callable[[], None]) -> None:
        self.found = Compilation()
        self._first, self._depth, self._begin = first, 0, 0.0

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            if self.found.kernels == 0:
                self._first()
            self.found.kernels += 1
            self._begin = time.perf_counter()
        self.found.functions += 1
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.found.seconds += time.perf_counter() - self._begin


def _say_nothing() -> None:
    """Let compiling begin."""


@contextmanager
def compilations(first: Callable[[], None] = _say_nothing) -> Iterator[Compilation]:
    """Count what is compiled inside the ``with`` block; call ``first`` before the first of it."""
    counter = _Counter(first)
    with event.install_listener("numba:compile", counter):
        yield counter.found


def warm_up(llm: LLM) -> None:
    """Run every kernel of a model once, so that each is compiled and kept on disk.

    Few and many rows of a step, scoring, sampling with and without every option, likeliest tokens,
    jobs in the background, texts in and out. Functions of a user's own are not known here.
    """
    text = llm.tokenizer.decode(np.arange(min(40, llm.engine.model.decoder.config.vocabulary)))
    few = min(llm.engine.context - 2, 8)
    llm.score([text or "a"])
    everything = SamplingParams(
        max_tokens=2, temperature=0.8, top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.1,
        presence_penalty=0.1, frequency_penalty=0.1, seed=0, logprobs=2, prompt_logprobs=2,
        ignore_eos=True,
    )  # fmt: skip
    tokens = np.zeros(few, np.int64)
    for params in (SamplingParams(temperature=0, max_tokens=1), everything):
        llm.generate([tokens], params)
    llm.run([Request("warm-up", tokens, everything), Request(1, tokens, prompt_logprobs=2)])
    _guess_once()


def _guess_once() -> None:
    """Run the kernels of guesses: whether a generated text repeats itself is up to the model."""
    tokens, lengths, ends = np.zeros(4, np.int64), np.array([3]), np.array([4])
    addresses = np.array([tokens.ctypes.data])
    guesses, found, rates = np.empty((1, 1), np.int64), np.empty(1, np.bool_), np.ones(1)
    guess_tokens(addresses, lengths, guesses, found)
    choose_guesses(found, lengths, rates, 1.0, 1.0, 1, 1, np.empty(1), np.empty(1, np.int64))
    learn_rates(addresses, lengths, ends, guesses, found, rates)
