"""Comparison of two models' scores on the same items: permutation test and sign test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import on_device, to_host
from numbatch.kernels.random import hash_bits
from numbatch.kernels.statistics.bootstrap import check_resamples
from numbatch.kernels.statistics.values import NanPolicy, as_values, check_nan_policy, check_no_nan
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["PairedTest", "paired_differences", "permutation_test", "sign_test"]

ALTERNATIVES = ("two-sided", "greater", "less")


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The result of a paired test.

    Parameters
    ----------
    difference : float
        Mean of ``a - b`` over the pairs.
    p_value : float
        Probability of a difference at least as extreme if the two did not differ.
    pairs : int
        How many pairs were compared.
    exact : bool
        Whether all permutations were counted, not a sample of them.
    """

    difference: float
    p_value: float
    pairs: int
    exact: bool


@cpu_kernel
def _flipped_sums(start, stop, differences, seed, exact, sums):
    """Write the sums under random signs of permutations ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    differences : float64 array, shape (pairs,)
    seed : uint64
    exact : bool
        Whether permutation ``r`` takes its signs from the bits of ``r`` (at most 64 pairs).
    sums : float64 array, shape (permutations,)
        Modified in place.
    """
    one = np.uint64(1)
    for r in range(start, stop):
        stream = hash_bits(seed, np.uint64(r))
        total = 0.0
        bits = np.uint64(r)
        for i in range(differences.size):
            if not exact and i & 63 == 0:
                bits = hash_bits(stream, np.uint64(i >> 6))
            d = differences[i]
            total += -d if bits & one else d
            bits >>= one
        sums[r] = total


def paired_differences(a: Any, b: Any, nan_policy: NanPolicy = "propagate") -> np.ndarray | None:
    """Return ``a - b`` as float64; None where a NaN decides.

    Raises
    ------
    InputError
        If the shapes differ, or the policy says so.
    """
    check_nan_policy(nan_policy)
    if np.shape(a) != np.shape(b):
        raise InputError(f"a has shape {np.shape(a)}, b {np.shape(b)}, should have the same")
    with np.errstate(invalid="ignore"):  # equal infinities: no number, and counted as such
        differences = as_values(to_host(a), "a").astype(np.float64) - as_values(to_host(b), "b")
    missing = np.isnan(differences)
    if check_no_nan(int(missing.sum()), nan_policy, "a - b"):
        return None
    return differences[~missing]


def _check_alternative(alternative: str) -> None:
    if alternative not in ALTERNATIVES:
        raise InputError(
            f"alternative is {alternative!r}, should be one of {', '.join(ALTERNATIVES)}"
        )


def permutation_test(
    a: Any,
    b: Any,
    resamples: int = 10_000,
    alternative: str = "two-sided",
    seed: int = 0,
    nan_policy: NanPolicy = "propagate",
    threads: int = 1,
) -> PairedTest:
    """Test whether the mean of ``a - b`` differs from 0, by swapping the two of each pair.

    All ``2**pairs`` swaps are counted where they are at most ``resamples``; else a sample of
    ``resamples``, and the observed one with them, so that the p-value is never 0.

    Parameters
    ----------
    a, b : arrays of one shape
        Scores of the same items. Where one lies on a GPU, the permutations are summed there.
    alternative : {"two-sided", "greater", "less"}
        Whether ``a`` is different, greater or less.
    seed : int
        In [0, 2**64).
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN in a pair does.
    threads : int
        How many threads share the permutations; the result does not depend on it.

    Raises
    ------
    InputError
        If the shapes differ, or a parameter is out of its range.
    """
    check_resamples(resamples, seed)
    _check_alternative(alternative)
    differences = paired_differences(a, b, nan_policy)
    if differences is None or not len(differences):
        return PairedTest(math.nan, math.nan, 0, False)
    pairs = len(differences)
    exact = pairs < 63 and 2**pairs <= resamples
    owner = a if on_device(a) else b
    sums = _sums(owner, differences, seed, exact, 2**pairs if exact else resamples, threads)
    observed = _sums(owner, differences, 0, True, 1, 1)
    if math.isnan(observed[0]):
        return PairedTest(math.nan, math.nan, pairs, exact)
    if alternative == "two-sided":
        sums, observed = np.abs(sums), np.abs(observed)
    elif alternative == "less":
        sums, observed = -sums, -observed
    # Sums that differ by rounding alone are equal, as in SciPy.
    extreme = int(np.count_nonzero(sums >= observed[0] - 1e-14 * abs(observed[0])))
    p = extreme / len(sums) if exact else (extreme + 1) / (resamples + 1)
    return PairedTest(float(differences.mean()), p, pairs, exact)


def _sums(
    owner: Any, differences: np.ndarray, seed: int, exact: bool, count: int, threads: int
) -> np.ndarray:
    """Return the sums under the signs of so many permutations; on a GPU if ``owner`` lies there."""
    if on_device(owner):
        from numbatch.kernels.statistics.cuda.resampling import device_flipped_sums

        return device_flipped_sums(owner, differences, seed, exact, count)
    sums = np.empty(count)
    args = (differences, np.uint64(seed), exact, sums)
    ThreadTeam(threads).run(Call(_flipped_sums, count, args, grain=16))
    return sums


def sign_test(
    a: Any, b: Any, alternative: str = "two-sided", nan_policy: NanPolicy = "propagate"
) -> PairedTest:
    """Test whether ``a > b`` as often as ``a < b``; ties are left out, the p-value is exact.

    Parameters and errors as in :func:`permutation_test`.
    """
    _check_alternative(alternative)
    differences = paired_differences(a, b, nan_policy)
    if differences is None or not len(differences):
        return PairedTest(math.nan, math.nan, 0, True)
    greater, less = int((differences > 0).sum()), int((differences < 0).sum())
    n = greater + less
    if alternative == "greater":
        p = _binomial_tail(greater, n)
    elif alternative == "less":
        p = _binomial_tail(less, n)
    else:
        p = min(1.0, 2 * _binomial_tail(max(greater, less), n))
    return PairedTest(float(differences.mean()), p, n, True)


def _binomial_tail(k: int, n: int) -> float:
    """Return the probability of ``k`` or more heads among ``n`` fair coins."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(log) for log in logs))
