"""Profiles of scoring and of generation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter

import numpy as np

from numbatch.batching.baseline.model_work import arithmetic_of
from numbatch.batching.llm import LLM
from numbatch.batching.machine import measure_limits
from numbatch.batching.profiling.entry import Profile, added_up
from numbatch.batching.profiling.timed_team import TimedTeam
from numbatch.batching.request import SamplingParams
from numbatch.errors import InputError

__all__ = ["profile_generation", "profile_scoring"]

PROMPT = 16


def profile_scoring(llm: LLM, sequences: int, length: int) -> Profile:
    """Take the scoring of so many random sequences apart.

    Raises
    ------
    InputError
        If there is nothing to run, or a sequence would be longer than the model's context.
    """
    _check(llm, sequences, length)
    texts = _tokens(llm, sequences, length)
    title = f"scoring {sequences} x {length} tokens"
    return _profile(llm, title, sequences * length, lambda: llm.score(texts))


def profile_generation(llm: LLM, sequences: int, output: int) -> Profile:
    """Take the generation of ``output`` tokens after prompts of 16 random ones apart.

    Raises
    ------
    InputError
        As for :func:`profile_scoring`.
    """
    _check(llm, sequences, output, PROMPT)
    texts = _tokens(llm, sequences, PROMPT)
    params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
    title = f"generating {sequences} x {output} tokens after {PROMPT}"
    return _profile(llm, title, sequences * output, lambda: llm.generate(texts, params))


def _check(llm: LLM, sequences: int, length: int, prompt: int = 0) -> None:
    if sequences < 1 or length < 1:
        raise InputError(f"the run is {sequences} x {length}, both should be at least 1")
    if prompt + length > llm.engine.context:
        raise InputError(
            f"a sequence would be {prompt + length} tokens long, the context is "
            f"{llm.engine.context}"
        )


def _tokens(llm: LLM, sequences: int, length: int) -> list[np.ndarray]:
    vocabulary = llm.engine.model.decoder.config.vocabulary
    return list(np.random.default_rng(0).integers(0, vocabulary, (sequences, length)))


def _profile(llm: LLM, title: str, tokens: int, action: Callable[[], object]) -> Profile:
    threads = llm.engine.forward.team.threads
    limits = measure_limits(threads)
    action()  # compile
    with _timed(llm, threads) as team:
        action()  # the notes are compiled in
        team.clear()
        begin = perf_counter()
        action()
        seconds = perf_counter() - begin - team.noting
    arithmetic = arithmetic_of(llm.engine.forward)
    return Profile(title, tokens, seconds, added_up(team.entries), limits, arithmetic)


@contextlib.contextmanager
def _timed(llm: LLM, threads: int) -> Iterator[TimedTeam]:
    """Put a timed team in the place of the engine's."""
    engine = llm.engine
    team = TimedTeam(threads, engine.model.decoder)
    own = engine.forward.team, engine.sampler.team
    engine.forward.team = engine.sampler.team = team
    try:
        yield team
    finally:
        engine.forward.team, engine.sampler.team = own
