"""How well a model's confidence says how often it is right (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
    check_same_policy,
)

__all__ = ["Calibration", "calibration_error"]

UNIT = 2.0**32
"""Confidences are summed as whole multiples of 1 / UNIT, so that sums are exact in any order."""

COUNT, CORRECT, CONFIDENCE = range(3)


@cpu_device
def bin_of(p, bins):
    """Return the bin of a confidence in [0, 1], a float64."""
    return min(max(np.intp(math.ceil(p * bins)) - 1, 0), bins - 1)


@cpu_kernel
def _count_confidences(confidences, correct, table):
    """Add to the bins of the confidences; no error check.

    Parameters
    ----------
    confidences : float32 or float64 array, shape (total,)
        In [0, 1] or NaN, which is left out.
    correct : bool array, shape (total,)
    table : int64 array, shape (bins, 3)
        Modified in place: count, how many are correct, sum of confidences in units.
    """
    bins = table.shape[0]
    for i in range(confidences.size):
        p = np.float64(confidences[i])
        if p == p:
            bin = bin_of(p, bins)
            table[bin, 0] += 1
            table[bin, 1] += correct[i]
            table[bin, 2] += np.int64(p * UNIT + 0.5)


class Calibration:
    """Confidence against accuracy in bins of equal width, fed in pieces and mergeable exactly.

    Bin ``i`` holds the confidences in ``(i / bins, (i + 1) / bins]``, the first 0 too. Confidences
    are rounded to multiples of 2**-32, so every result is right to about 1e-10; up to 2**31
    observations a bin.

    Parameters
    ----------
    bins : int
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN confidence does: makes the errors NaN, is left out, or raises InputError.

    Raises
    ------
    InputError
        If ``bins`` is less than 1.
    """

    def __init__(self, bins: int = 15, nan_policy: NanPolicy = "propagate") -> None:
        check_nan_policy(nan_policy)
        if bins < 1:
            raise InputError(f"bins is {bins}, should be at least 1")
        self.nan_policy = nan_policy
        self.nans = 0
        self._table = np.zeros((bins, 3), np.int64)

    def update(self, confidences: Any, correct: Any) -> Calibration:
        """Add predictions: their confidence, and whether they were correct (bool or 0 and 1).

        Arrays on a GPU are counted there.

        Raises
        ------
        InputError
            If the shapes differ, a confidence is not in [0, 1], or ``correct`` is not 0 or 1.
        """
        if np.shape(confidences) != np.shape(correct):
            raise InputError(
                f"confidences have shape {np.shape(confidences)}, correct {np.shape(correct)}, "
                f"should have the same"
            )
        if on_device(confidences) or on_device(correct):
            return self._update_from_device(confidences, correct)
        flat, right = as_values(confidences, "confidences"), as_values(correct, "correct")
        outside = (flat < 0) | (flat > 1)
        if outside.any():
            raise InputError(f"a confidence is {flat[outside][0]}, should be in [0, 1]")
        wrong = (right != 0) & (right != 1)
        if wrong.any():
            raise InputError(f"correct holds {right[wrong][0]}, should be 0 or 1")
        nans = int(np.count_nonzero(np.isnan(flat)))
        check_no_nan(nans, self.nan_policy, "confidences")
        self.nans += nans
        _count_confidences(flat, right == 1, self._table)
        return self

    def _update_from_device(self, confidences: Any, correct: Any) -> Calibration:
        from numbatch.kernels.statistics.cuda.pairs import bin_confidences

        table, nans = bin_confidences(confidences, correct, len(self._table))
        check_no_nan(nans, self.nan_policy, "confidences")
        self.nans += nans
        self._table += table
        return self

    def merge(self, other: Calibration) -> Calibration:
        """Add what ``other`` saw; returns itself.

        Raises
        ------
        InputError
            If the NaN policies or the numbers of bins differ.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        if len(other._table) != len(self._table):
            raise InputError(
                f"the states to merge have {len(self._table)} and {len(other._table)} bins, "
                f"should have the same"
            )
        self._table += other._table
        self.nans += other.nans
        return self

    @property
    def counts(self) -> np.ndarray:
        """Observations in each bin, int64, shape (bins,)."""
        return self._table[:, COUNT].copy()

    @property
    def accuracy(self) -> np.ndarray:
        """Share of correct ones in each bin, float64; NaN of an empty bin."""
        with np.errstate(invalid="ignore"):
            return self._table[:, CORRECT] / self._table[:, COUNT]

    @property
    def confidence(self) -> np.ndarray:
        """Mean confidence in each bin, float64; NaN of an empty bin."""
        with np.errstate(invalid="ignore"):
            return self._table[:, CONFIDENCE] / UNIT / self._table[:, COUNT]

    @property
    def expected_error(self) -> float:
        """Mean over all observations of their bin's |accuracy - confidence|; NaN of none."""
        count = self.counts.sum()
        if not count or check_no_nan(self.nans, self.nan_policy):
            return math.nan
        return float(np.nansum(np.abs(self.accuracy - self.confidence) * self.counts) / count)

    @property
    def max_error(self) -> float:
        """Greatest |accuracy - confidence| of a bin; NaN of no observations."""
        if not self.counts.any() or check_no_nan(self.nans, self.nan_policy):
            return math.nan
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))


def calibration_error(
    confidences: Any, correct: Any, bins: int = 15, nan_policy: NanPolicy = "propagate"
) -> float:
    """Return the expected calibration error; see :class:`Calibration`."""
    return Calibration(bins, nan_policy).update(confidences, correct).expected_error
