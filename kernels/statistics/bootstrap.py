"""Confidence intervals by resampling (Efron 1979, 10.1214/aos/1176344552).

Draw ``i`` of resample ``r`` is a hash of (seed, r, i): the same seed gives the same interval with
any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import on_device, to_host
from numbatch.kernels.random import hash_bits
from numbatch.kernels.statistics.quantiles import quantile
from numbatch.kernels.statistics.sums import mean
from numbatch.kernels.statistics.values import NanPolicy, as_values, check_nan_policy, check_no_nan
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["Interval", "bootstrap_interval", "check_resamples", "resample_places"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that holds the true value with the confidence asked for."""

    estimate: float
    low: float
    high: float
    confidence: float


@cpu_kernel
def _draw_places(start, stop, seed, first, places):
    """Draw resamples ``start`` to ``stop - 1``; no error check.

    Parameters
    ----------
    seed : uint64
    first : int
        The resample that goes to the first row.
    places : int64 array, shape (rows, n)
        Modified in place: in each row, ``n`` numbers in [0, n).
    """
    n = places.shape[1]
    for r in range(start, stop):
        stream = hash_bits(seed, np.uint64(r))
        for i in range(n):
            share = float(hash_bits(stream, np.uint64(i)) >> np.uint64(11)) * 2.0**-53
            places[r - first, i] = np.int64(share * n)


@cpu_kernel
def _resample_means(start, stop, values, seed, means):
    """Write the means of resamples ``start`` to ``stop - 1``; no error check.

    Parameters
    ----------
    values : float64 array, shape (n,)
    seed : uint64
    means : float64 array, shape (resamples,)
        Modified in place. The draws are those of :func:`_draw_places`.
    """
    n = values.size
    for r in range(start, stop):
        stream = hash_bits(seed, np.uint64(r))
        total = 0.0
        for i in range(n):
            share = float(hash_bits(stream, np.uint64(i)) >> np.uint64(11)) * 2.0**-53
            total += values[np.intp(share * n)]
        means[r] = total / n


def check_resamples(resamples: int, seed: int) -> None:
    """Raise InputError where the number of resamples or the seed cannot be used."""
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, should be at least 1")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed is {seed}, should be in [0, 2**64)")


def resample_places(n: int, resamples: int, seed: int = 0, threads: int = 1) -> np.ndarray:
    """Return places drawn with replacement, int64, shape (resamples, n), each in [0, n)."""
    check_resamples(resamples, seed)
    places = np.empty((resamples, n), np.int64)
    ThreadTeam(threads).run(Call(_draw_places, resamples, (np.uint64(seed), 0, places), grain=16))
    return places


def bootstrap_interval(
    values: Any,
    statistic: Callable[[np.ndarray], float] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    nan_policy: NanPolicy = "propagate",
    threads: int = 1,
) -> Interval:
    """Return a statistic of an array and its percentile bootstrap interval.

    Parameters
    ----------
    values : array
        Independent observations. NaN results from an empty array. Of one on a GPU, means are
        drawn there; another statistic is handed a copy on the host.
    statistic : function, optional
        Takes a float64 array and returns a number. By default the mean, which is compiled.
    confidence : float
        In (0, 1).
    resamples : int
        How many times as many values are drawn with replacement.
    seed : int
        In [0, 2**64).
    nan_policy : {"propagate", "omit", "raise"}
    threads : int
        How many threads share the resamples of the mean; the result does not depend on it.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """
    check_nan_policy(nan_policy)
    check_resamples(resamples, seed)
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}, should be between 0 and 1")
    flat = as_values(to_host(values)).astype(np.float64)
    missing = np.isnan(flat)
    if check_no_nan(int(missing.sum()), nan_policy) or missing.all():
        return Interval(math.nan, math.nan, math.nan, confidence)
    flat = flat[~missing]
    results = np.empty(resamples)
    if statistic is None and on_device(values):
        from numbatch.kernels.statistics.cuda.resampling import device_resample_means

        results, estimate = device_resample_means(values, flat, seed, resamples), mean(flat)
    elif statistic is None:
        call = Call(_resample_means, resamples, (flat, np.uint64(seed), results), grain=16)
        ThreadTeam(threads).run(call)
        estimate = mean(flat)
    else:
        places = np.empty((1, len(flat)), np.int64)
        for r in range(resamples):
            _draw_places(r, r + 1, np.uint64(seed), r, places)
            results[r] = statistic(flat[places[0]])
        estimate = float(statistic(flat))
    tail = (1 - confidence) / 2
    low, high = quantile(results, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence)
