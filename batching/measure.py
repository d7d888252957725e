"""Timing of operations: compiled before the clock starts, freed of the clock's own cost.

A sample is the mean of so many calls that it lasts a millisecond (one call of a slow operation).
What an empty function takes in the same loop is measured and subtracted. The garbage collector is
off while the clock runs, and a sample in which Numba compiled anything is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from numbatch.batching.operation_stats import Comparison, OperationStats
from numbatch.batching.timing import (
    CompileClock,
    Operation,
    Timer,
    calls_in_a_sample,
    controlled,
    device_timer,
    host_timer,
    loop_overhead,
    nothing,
    peak_memory_of,
    time_loop,
)
from numbatch.batching.waiting import seconds_waited
from numbatch.errors import InputError
from numbatch.kernels.statistics.bootstrap import resample_places
from numbatch.kernels.statistics.moments import Moments
from numbatch.kernels.statistics.quantiles import median, quantile

if TYPE_CHECKING:
    from numbatch.kernels.cuda import Gpu

__all__ = [
    "compare",
    "measure_operation",
    "measure_time",
    "time_operation",
]

RESAMPLES = 2000
"""Of the bootstrap; the intervals are those of medians."""

LEAST = 1e-10
"""Seconds; nothing is faster. What takes no time may take less than the clock itself."""


def _check_callable(**operations: Any) -> None:
    for name, operation in operations.items():
        if not callable(operation):
            raise InputError(
                f"{name} is of type {type(operation).__name__}, should be a function without "
                f"arguments"
            )


def measure_time(f: Operation) -> float:
    """Return the seconds that one call of ``f`` takes, as it comes: nothing is warmed up."""
    _check_callable(f=f)
    return time_operation(f, 1)


def time_operation(f: Operation, iterations: int) -> float:
    """Return the mean seconds a call over ``iterations`` calls, as they come.

    The cost of the clock and the loop is subtracted, so a function that does nothing is near 0,
    and may be below it.

    Raises
    ------
    InputError
        If ``f`` cannot be called, or ``iterations`` is less than 1.
    """
    _check_callable(f=f)
    if iterations < 1:
        raise InputError(f"iterations is {iterations}, should be at least 1")
    overhead = loop_overhead(min(iterations, 1000))
    with controlled(None, collect_garbage=False):
        return time_loop(f, iterations, nothing) * 1e-9 / iterations - overhead


def measure_operation(
    f: Operation,
    *,
    items: float | None = None,
    tokens: float | None = None,
    bytes: float | None = None,
    seconds: float = 1.0,
    min_samples: int = 10,
    max_samples: int = 1000,
    warmup: int = 2,
    confidence: float = 0.95,
    cpus: Iterable[int] | None = None,
    collect_garbage: bool = False,
    measure_memory: bool = True,
    synchronize: Operation | None = None,
    gpu: Gpu | None = None,
) -> OperationStats:
    """Time an operation, with everything that it compiles compiled before.

    Parameters
    ----------
    f : function without arguments
    items, tokens, bytes : float, optional
        How many a call works on, for the rates.
    seconds : float
        How long to take samples; ``min_samples`` are taken in any case.
    min_samples, max_samples : int
    warmup : int
        Calls before the clock starts, the first of which is timed apart; at least 1.
    confidence : float
        Of the interval of the median, in (0, 1).
    cpus : ints, optional
        Cores that this thread, and threads that it starts meanwhile, run on.
    collect_garbage : bool
        Whether Python's garbage collector stays on.
    measure_memory : bool
        Whether ``f`` is called once more to find its peak memory.
    synchronize : function, optional
        Called at the end of each sample; waits for a device that works asynchronously.
    gpu : Gpu, optional
        Samples are timed by CUDA events in this GPU's stream (:class:`numbatch.kernels.cuda.Gpu`),
        which is where ``f`` should work.

    Raises
    ------
    InputError
        If ``f`` cannot be called, or a parameter is out of its range.
    """
    wait = synchronize or nothing
    timer = _timer(synchronize, gpu)
    _check_callable(f=f, synchronize=wait)
    _check_sampling(seconds, min_samples, max_samples, warmup, confidence)
    for name, number in (("items", items), ("tokens", tokens), ("bytes", bytes)):
        if number is not None and not number >= 0:
            raise InputError(f"{name} is {number}, should be at least 0")
    _summary(np.ones(3), confidence)  # compiles the statistics before their clock is watched
    with controlled(cpus, collect_garbage) as clock:
        first_call = timer(f, 1) * 1e-9
        for _ in range(warmup - 1):
            timer(f, 1)
        calls = calls_in_a_sample(f, timer)
        compilation = clock.nanoseconds * 1e-9
        idle = timer if gpu else host_timer()
        limits = seconds, min_samples, max_samples
        samples, discarded = _take_samples(f, calls, timer, idle, clock, *limits)
        taken = np.array([times for times, _ in samples]) * 1e-9 / calls
        # Few calls after a long operation find its code in the caches, and not the clock's.
        few = calls < 100
        overhead = loop_overhead(calls, idle) if few else float(np.median(taken[:, 1]))
    times = np.maximum(taken[:, 0] - overhead, LEAST)
    peak = peak_memory_of(f, wait) if measure_memory else None
    summary = _summary(times, confidence)
    return OperationStats(
        n=len(times),
        calls=calls,
        confidence=confidence,
        overhead=overhead,
        first_call=first_call,
        compilation=compilation,
        discarded=discarded,
        items_per_second=_rate(items, summary["median"]),
        tokens_per_second=_rate(tokens, summary["median"]),
        bytes_per_second=_rate(bytes, summary["median"]),
        peak_memory=peak,
        waited=median([share for _, share in samples]),
        **summary,
    )


def _timer(synchronize: Operation | None, gpu: Gpu | None) -> Timer:
    if gpu is None:
        return host_timer(synchronize or nothing)
    if synchronize is not None:
        raise InputError("synchronize and gpu were both given, should be one of them")
    return device_timer(gpu)


def _check_sampling(
    seconds: float, min_samples: int, max_samples: int, warmup: int, confidence: float
) -> None:
    if not seconds >= 0:
        raise InputError(f"seconds is {seconds}, should be at least 0")
    if not 1 <= min_samples <= max_samples:
        raise InputError(
            f"min_samples is {min_samples} and max_samples {max_samples}, should be at least 1 "
            f"and at least min_samples"
        )
    if warmup < 1:
        raise InputError(f"warmup is {warmup}, should be at least 1: the first call may compile")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, should be between 0 and 1")


def _take_samples(
    f: Operation,
    calls: int,
    timer: Timer,
    idle: Timer,
    clock: CompileClock,
    seconds: float,
    min_samples: int,
    max_samples: int,
) -> tuple[list[tuple[tuple[int, int], float]], int]:
    """Return nanoseconds and waiting of each sample, and how many samples were thrown away.

    Beside each time stands what the loop takes without the operation, just after it: on a machine
    that becomes slower or faster meanwhile both do. Waiting is a share of the time.
    """
    samples: list[tuple[tuple[int, int], float]] = []
    discarded = 0
    end = perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < min_samples or (len(samples) < max_samples and perf_counter_ns() < end):
        compiled = clock.nanoseconds
        before = seconds_waited()
        taken = timer(f, calls)
        share = 1e9 * (seconds_waited() - before) / max(taken, 1)
        # An operation that compiles at each call would never be done.
        if clock.nanoseconds == compiled or discarded >= max_samples:
            samples.append(((taken, idle(nothing, calls)), min(1.0, max(0.0, share))))
        else:
            discarded += 1
    return samples, discarded


def _summary(times: np.ndarray, confidence: float) -> dict[str, Any]:
    moments = Moments().update(times)
    p50, p90, p95, p99 = quantile(times, [0.5, 0.9, 0.95, 0.99]).tolist()
    places = resample_places(len(times), RESAMPLES)
    low, high = _interval(np.median(times[places], axis=1), confidence)
    return {
        "mean": moments.mean,
        "median": p50,
        "std": moments.std(ddof=1),
        "min": moments.min,
        "max": moments.max,
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99,
        "low": low,
        "high": high,
    }


def _interval(resampled: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = quantile(resampled, [tail, 1 - tail]).tolist()
    return low, high


def _rate(number: float | None, seconds: float) -> float | None:
    if number is None:
        return None
    return number / seconds if seconds > 0 else float("inf")


def compare(
    f: Operation,
    g: Operation,
    *,
    seconds: float = 2.0,
    min_rounds: int = 10,
    max_rounds: int = 1000,
    warmup: int = 2,
    confidence: float = 0.95,
    cpus: Iterable[int] | None = None,
    synchronize: Operation | None = None,
    gpu: Gpu | None = None,
) -> Comparison:
    """Time two operations in turn and return the ratio of their times with its interval.

    Each round times both, every second round in the other order, so that a machine that becomes
    slower or faster meanwhile does so to both. Parameters and errors as in
    :func:`measure_operation`.
    """
    wait = synchronize or nothing
    timer = _timer(synchronize, gpu)
    _check_callable(f=f, g=g, synchronize=wait)
    _check_sampling(seconds, min_rounds, max_rounds, warmup, confidence)
    _summary(np.ones(3), confidence)
    with controlled(cpus, collect_garbage=False) as clock:
        for _ in range(warmup):
            f(), g()
        wait()
        calls = [calls_in_a_sample(f, timer), calls_in_a_sample(g, timer)]
        overhead = np.array([loop_overhead(number, timer if gpu else None) for number in calls])
        rounds: list[list[int]] = []
        end = perf_counter_ns() + int(seconds * 1e9)
        discarded = 0
        while len(rounds) < min_rounds or (len(rounds) < max_rounds and perf_counter_ns() < end):
            compiled = clock.nanoseconds
            taken = [0, 0]
            for i in (0, 1) if len(rounds) % 2 == 0 else (1, 0):
                taken[i] = timer((f, g)[i], calls[i])
            if clock.nanoseconds == compiled or discarded >= max_rounds:
                rounds.append(taken)
            else:
                discarded += 1
    times = np.array(rounds) * 1e-9 / calls - overhead
    times = np.maximum(times, LEAST)
    places = resample_places(len(times), RESAMPLES)
    medians = np.median(times[places], axis=1)
    low, high = _interval(medians[:, 0] / medians[:, 1], confidence)
    mid_f, mid_g = median(times[:, 0]), median(times[:, 1])
    return Comparison(mid_f / mid_g, low, high, confidence, len(times), mid_f, mid_g)
