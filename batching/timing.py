"""The loop that a clock is held against, and what must be still while it runs."""

from __future__ import annotations

import contextlib
import gc
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from numba.core import event

from numbatch.errors import InputError

if TYPE_CHECKING:
    from numbatch.kernels.cuda import Gpu

__all__ = [
    "CompileClock",
    "Operation",
    "Timer",
    "calls_in_a_sample",
    "controlled",
    "device_timer",
    "host_timer",
    "loop_overhead",
    "nothing",
    "peak_memory_of",
    "time_loop",
]

Operation = Callable[[], object]

Timer = Callable[[Operation, int], int]
"""Returns the nanoseconds of so many calls."""

SAMPLE = 1e-3
"""Seconds that a sample lasts at least."""


class CompileClock(event.Listener):
    """Adds up the time that Numba compiles; nested compilations count once."""

    def __init__(self) -> None:
        self.nanoseconds = self._depth = self._started = 0

    def on_start(self, event: Any) -> None:
        """Take the time of the outermost start."""
        if self._depth == 0:
            self._started = perf_counter_ns()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        """Add the time since the outermost start."""
        self._depth -= 1
        if self._depth == 0:
            self.nanoseconds += perf_counter_ns() - self._started


@contextlib.contextmanager
def controlled(cpus: Iterable[int] | None, collect_garbage: bool) -> Iterator[CompileClock]:
    """Pin this thread, stop the garbage collector, watch the compiler; undo all at the end."""
    clock = CompileClock()
    collecting = gc.isenabled()
    before = _pin(cpus) if cpus is not None else None
    event.register("numba:compile", clock)
    try:
        gc.collect()
        if not collect_garbage:
            gc.disable()
        yield clock
    finally:
        event.unregister("numba:compile", clock)
        if collecting:
            gc.enable()
        if before is not None:
            os.sched_setaffinity(0, before)


def _pin(cpus: Iterable[int]) -> set[int]:
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("cpus was given, and this system cannot pin threads; should be None")
    before, wanted = os.sched_getaffinity(0), set(cpus)
    if not wanted or not wanted <= before:
        raise InputError(f"cpus is {sorted(wanted)}, should be some of {sorted(before)}")
    os.sched_setaffinity(0, wanted)
    return before


def nothing() -> None:
    """Do nothing."""


def time_loop(f: Operation, calls: int, synchronize: Operation) -> int:
    """Return the nanoseconds of ``calls`` calls."""
    rounds = repeat(None, calls)
    start = perf_counter_ns()
    for _ in rounds:
        f()
    synchronize()
    return perf_counter_ns() - start


def host_timer(wait: Operation = nothing) -> Timer:
    """Return a timer by the host's clock; ``wait`` is called before it is read again."""
    return lambda f, calls: time_loop(f, calls, wait)


def device_timer(gpu: Gpu) -> Timer:
    """Return a timer by events in a GPU's stream."""

    def run(f: Operation, calls: int) -> None:
        for _ in repeat(None, calls):
            f()

    return lambda f, calls: int(gpu.seconds_of(lambda: run(f, calls)) * 1e9)


def loop_overhead(calls: int, timer: Timer | None = None) -> float:
    """Return the seconds a call that the loop of a timer itself takes; of the host's by default."""
    timer = timer or host_timer()
    times = [timer(nothing, calls) for _ in range(101 if calls < 100 else 11)]
    return float(np.median(times)) * 1e-9 / calls


def calls_in_a_sample(f: Operation, timer: Timer) -> int:
    """Return how many calls make a sample long enough for the clock."""
    calls = 1
    while (taken := timer(f, calls) * 1e-9) < SAMPLE and calls < 10**6:
        calls = min(10 * calls, max(calls + 1, int(1.2 * calls * SAMPLE / max(taken, 1e-9))))
    return calls


def peak_memory_of(f: Operation, wait: Operation) -> int | None:
    """Return the most bytes that a call of ``f`` holds beyond what was held before.

    None where memory is being traced already.
    """
    if tracemalloc.is_tracing():  # someone else's; it must not be reset
        return None
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = f()
        wait()
        peak = tracemalloc.get_traced_memory()[1] - before
        del result
    finally:
        tracemalloc.stop()
    return peak
