"""What needs all values at once, fed in pieces: intervals by resampling, paired tests, ranks.

The pieces are kept, so results are those of one array, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.statistics.bootstrap import Interval, bootstrap_interval
from numbatch.kernels.statistics.correlation import spearman
from numbatch.kernels.statistics.paired import PairedTest, permutation_test, sign_test
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_same_policy,
)

__all__ = ["PairedSample", "Sample"]


class _Kept:
    """Columns of values in pieces, in the order in which they came.

    Parameters
    ----------
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does, when a result is asked for.
    """

    def __init__(self, nan_policy: NanPolicy = "propagate") -> None:
        check_nan_policy(nan_policy)
        self.nan_policy = nan_policy
        self._parts: list[tuple[np.ndarray, ...]] = []

    def merge(self, other: Self) -> Self:
        """Add what ``other`` saw, after what this one saw; returns itself.

        Raises
        ------
        InputError
            If the NaN policies differ.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        self._parts.extend(other._parts)
        return self

    @property
    def size(self) -> int:
        """How many values or pairs were added, with those that are NaN."""
        return sum(len(part[0]) for part in self._parts)

    def _column(self, number: int) -> np.ndarray:
        parts = [part[number] for part in self._parts]
        return np.concatenate(parts) if parts else np.empty(0)


class Sample(_Kept):
    """Observations of a stream, for :func:`bootstrap_interval`; it keeps every value."""

    def update(self, values: Any) -> Sample:
        """Add an array of any shape; returns itself."""
        self._parts.append((as_values(values).copy(),))
        return self

    def bootstrap_interval(
        self,
        statistic: Callable[[np.ndarray], float] | None = None,
        confidence: float = 0.95,
        resamples: int = 10_000,
        seed: int = 0,
        threads: int = 1,
    ) -> Interval:
        """Return what :func:`bootstrap_interval` does of all values."""
        return bootstrap_interval(
            self._column(0), statistic, confidence, resamples, seed, self.nan_policy, threads
        )


class PairedSample(_Kept):
    """Two scores of each item of a stream, for tests of pairs; it keeps every value."""

    def update(self, a: Any, b: Any) -> PairedSample:
        """Add pairs, given as two arrays of one shape; returns itself.

        Raises
        ------
        InputError
            If the shapes differ.
        """
        if np.shape(a) != np.shape(b):
            raise InputError(f"a has shape {np.shape(a)}, b {np.shape(b)}, should have the same")
        self._parts.append((as_values(a, "a").copy(), as_values(b, "b").copy()))
        return self

    def permutation_test(
        self,
        resamples: int = 10_000,
        alternative: str = "two-sided",
        seed: int = 0,
        threads: int = 1,
    ) -> PairedTest:
        """Return what :func:`permutation_test` does of all pairs."""
        a, b = self._column(0), self._column(1)
        return permutation_test(a, b, resamples, alternative, seed, self.nan_policy, threads)

    def sign_test(self, alternative: str = "two-sided") -> PairedTest:
        """Return what :func:`sign_test` does of all pairs."""
        return sign_test(self._column(0), self._column(1), alternative, self.nan_policy)

    def spearman(self) -> float:
        """Return what :func:`spearman` does of all pairs."""
        return spearman(self._column(0), self._column(1), self.nan_policy)
