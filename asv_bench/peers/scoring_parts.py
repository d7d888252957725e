"""What the issue of CPU speed asks for beside rates: threads, attention, overhead, guesses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from numbatch import LLM, SamplingParams
from numbatch.batching.profiling.run import profile_scoring
from numbatch.kernels.fork_join import call_on_team, entry_of
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.threads import TeamKernel

__all__ = ["attention_share", "beside_kernels", "guesses_gain", "threads_ratio"]

STEPS = 64
"""Tokens that are generated to see what a step takes."""

PAUSE = 0.2e-3
"""Seconds between the kernels of a step of one sequence, about."""


def _seconds(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def threads_ratio(many: LLM, one: LLM, count: int, length: int, new: int, rounds: int) -> float:
    """Return how many times as fast several threads are, as the median of pairs of runs."""
    rng, ratios = np.random.default_rng(2), []
    params = SamplingParams(temperature=0, max_tokens=new or 1, ignore_eos=True)
    for round_number in range(rounds + 1):
        times = []
        for llm in (one, many):
            texts = list(rng.integers(100, 40_000, (count, length)))
            run = (lambda: llm.generate(texts, params)) if new else (lambda: llm.score(texts))  # noqa: B023
            times.append(_seconds(run))
        if round_number:  # the first warms up
            ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def guesses_gain(
    guessing: LLM, plain: LLM, count: int, temperature: float, rounds: int
) -> tuple[float, float]:
    """Return what tokens that are guessed ahead gain: tokens a second with them, and the ratio.

    Passages of Python's documentation, 64 tokens of each, are continued by 64.
    """
    rng, rates, ratios = np.random.default_rng(4), [], []
    tokens = plain.encode("\n".join(topics[name] for name in sorted(topics)))
    for round_number in range(rounds + 1):
        begins = rng.integers(0, len(tokens) - 64, count)
        texts = [tokens[begin : begin + 64].astype(np.int64) for begin in begins]
        params = SamplingParams(temperature=temperature, seed=7, max_tokens=64, ignore_eos=True)
        times = [_seconds(lambda: llm.generate(texts, params)) for llm in (plain, guessing)]  # noqa: B023
        if round_number:  # the first warms up
            rates.append(64 * count / times[1])
            ratios.append(times[0] / times[1])
    return float(np.median(rates)), float(np.median(ratios))


def attention_share(llm: LLM, length: int) -> float:
    """Return what part of the time attention takes when a text of so many tokens is scored."""
    profile = profile_scoring(llm, 1, length)
    (attention,) = [entry for entry in profile.entries if entry.name == "attention"]
    return attention.seconds / profile.seconds


@cpu_device
def _do_nothing(thread, threads, out):
    """Do next to nothing: what is left is the team's beginning and end."""
    out[thread] += 1


_nothing_entry = entry_of(_do_nothing)


@cpu_kernel
def _launch_nothing(board, threads, *args):
    return call_on_team(board, threads, _nothing_entry(args), args)


_nothing = TeamKernel(_do_nothing, _launch_nothing)


def _seconds_after_a_pause(action: Callable[[], Any]) -> float:
    """Time what comes as long after the last one as a step's kernels do: threads may be asleep."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        pass
    return _seconds(action)


def beside_kernels(llm: LLM) -> float:
    """Return the part of a step, one sequence, that is spent outside layers and head.

    That is sampling and all that Python does, and for each of the two kernels the beginning and end
    of the team, as a kernel that does nothing takes them.
    """
    team, inside = llm.engine.forward.team, []
    own, out = team.run_together, np.zeros(team.threads, np.int64)
    empty = float(
        np.median([_seconds_after_a_pause(lambda: own(_nothing, out)) for _ in range(1000)])
    )

    def timed(kernel: Any, *args: Any) -> None:
        inside.append(_seconds(lambda: own(kernel, *args)) - empty)

    params = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)
    shares = []
    for _ in range(5):
        prompt = np.random.default_rng().integers(100, 40_000, 8)
        inside.clear()
        team.run_together = timed  # type: ignore[method-assign]
        try:
            all_of_it = _seconds(lambda: llm.generate([prompt], params))  # noqa: B023
        finally:
            del team.run_together  # type: ignore[method-assign]
        shares.append(1 - sum(inside) / all_of_it)
    return float(np.median(shares[1:]))
