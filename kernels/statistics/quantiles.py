"""Exact quantiles by selection: nothing is sorted, and no value is copied that is not close.

A few quantiles of many values are each bracketed by a sample
(:mod:`~numbatch.kernels.statistics.bracket`); what that leaves, and all else, is selected digit by
digit (:mod:`~numbatch.kernels.statistics.digits`), but few values are partitioned
(:mod:`~numbatch.kernels.statistics.partition`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import on_device
from numbatch.kernels.statistics.bracket import Bracket
from numbatch.kernels.statistics.digits import FEW, DigitSelection
from numbatch.kernels.statistics.partition import FEW_TO_PARTITION, PartitionSelection
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
    check_same_policy,
)

__all__ = ["METHODS", "OrderStatistics", "check_quantiles", "median", "quantile"]

METHODS = ("linear", "lower", "higher", "midpoint", "nearest")
"""How a quantile between two values is taken, by NumPy's names."""

FEW_QUANTILES = 8
"""Passes of a bracket that take less time than counting digits once."""


def check_quantiles(quantiles: Any) -> np.ndarray:
    """Return quantiles as float64; raise InputError where one is not in [0, 1]."""
    wanted = np.asarray(quantiles, np.float64)
    inside = (wanted >= 0) & (wanted <= 1)
    if not inside.all():
        raise InputError(f"a quantile is {wanted[~inside].flat[0]}, should be in [0, 1]")
    return wanted


class OrderStatistics:
    """Exact quantiles of a stream, fed in pieces and mergeable; it keeps every value.

    Results are the same to the bit however the values were cut or merged. For a state of fixed
    size, see :class:`QuantileSketch`.

    Parameters
    ----------
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: makes every quantile NaN, is left out, or raises InputError from
        :meth:`quantile`.
    """

    def __init__(self, nan_policy: NanPolicy = "propagate") -> None:
        check_nan_policy(nan_policy)
        self.nan_policy = nan_policy
        self._parts: list[Any] = []

    def update(self, values: Any, copy: bool = True) -> OrderStatistics:
        """Add an array of any shape; returns itself.

        With ``copy=False`` the array is kept as it is, and must not change later. So is one on a
        GPU (float32 or float64), in any case.

        Raises
        ------
        InputError
            If some of the values lie on a GPU and some do not.
        """
        device = on_device(values)
        if any(on_device(part) != device for part in self._parts):
            raise InputError("some values lie on a GPU and some on the host, should be together")
        flat = values if device else as_values(values)
        if device or len(flat):
            self._parts.append(flat if device or not copy else flat.copy())
        return self

    def merge(self, other: OrderStatistics) -> OrderStatistics:
        """Add what ``other`` saw; returns itself.

        Raises
        ------
        InputError
            If the NaN policies differ, or as of :meth:`update`.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        for part in other._parts:
            self.update(part, copy=False)
        return self

    def quantile(self, quantiles: Any, method: str = "linear") -> Any:
        """Return quantiles as a float64 array of the shape of ``quantiles``, or a float of one.

        NaN of no values. float32 values are interpolated in float64.

        Raises
        ------
        InputError
            If a quantile is not in [0, 1], or the method is none of ``METHODS``.
        """
        if method not in METHODS:
            raise InputError(f"method is {method!r}, should be one of {', '.join(METHODS)}")
        if type(quantiles) is float and 0 <= quantiles <= 1:  # arrays take as long as few values
            return self._quantiles([quantiles], method)[0]
        wanted = check_quantiles(quantiles)
        found = self._quantiles(wanted.ravel().tolist(), method)
        return np.array(found, np.float64).reshape(wanted.shape) if wanted.ndim else found[0]

    def _quantiles(self, wanted: list[float], method: str) -> list[float]:
        if self._parts and wanted:
            selection = _select_from(self._parts, wanted)
            if not check_no_nan(selection.nans, self.nan_policy) and selection.numbers:
                return _interpolate(selection, wanted, method)
        return [math.nan] * len(wanted)


class _Brackets:
    """Selects ranks near a few quantiles, one pass over the values each."""

    def __init__(self, parts: list[np.ndarray], brackets: list[Bracket]) -> None:
        self._parts, self._brackets = parts, brackets
        self.nans = brackets[0].nans
        self.numbers = sum(map(len, parts)) - self.nans

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        found = np.empty(len(ranks))
        missing = np.ones(len(ranks), bool)
        for bracket in self._brackets:
            here = bracket.holds(ranks) & missing
            if here.any():
                found[here] = DigitSelection([bracket.kept]).select(ranks[here] - bracket.below)
                missing &= ~here
        if missing.any():  # the sample guessed wrongly
            found[missing] = DigitSelection(self._parts).select(ranks[missing])
        return found


def _select_from(parts: list[Any], wanted: list[float]) -> Any:
    """Return what selects ranks of the values: the way that reads them the least often."""
    if on_device(parts[0]):
        from numbatch.kernels.statistics.cuda.brackets import selection_on_device

        return selection_on_device(parts, np.array(wanted))
    if any(part.dtype != parts[0].dtype for part in parts):
        parts = [part.astype(np.float64) for part in parts]
    total = sum(map(len, parts))
    if total <= FEW_TO_PARTITION:
        return PartitionSelection(parts)
    distinct = sorted(set(wanted))
    if total <= FEW or len(distinct) > FEW_QUANTILES:
        return DigitSelection(parts)
    brackets = []
    for quantile in distinct:
        bracket = Bracket.around(parts, quantile)
        if bracket is None:
            return DigitSelection(parts)
        brackets.append(bracket)
    return _Brackets(parts, brackets)


def _interpolate(selection: Any, wanted: list[float], method: str) -> list[float]:
    places = [share * (selection.numbers - 1) for share in wanted]
    if method == "nearest":
        places = [float(round(place)) for place in places]
    ends = [(math.floor(place), math.ceil(place)) for place in places]
    ranks = sorted({rank for both in ends for rank in both})
    values = dict(zip(ranks, selection.select(np.array(ranks, np.int64)).tolist(), strict=True))
    return [
        _between(values[low], values[high], place - low, method)
        for place, (low, high) in zip(places, ends, strict=True)
    ]


def _between(below: float, above: float, share: float, method: str) -> float:
    """Return what lies between two values, by NumPy's formula: exact at both, never past them."""
    if below == above:  # equal infinities too
        return below
    share = {"lower": 0.0, "higher": 1.0, "midpoint": 0.5}.get(method, share)
    if share in (0.0, 1.0):
        return above if share else below
    step = above - below
    return above - step * (1 - share) if share >= 0.5 else below + step * share


def quantile(
    values: Any, quantiles: Any, nan_policy: NanPolicy = "propagate", method: str = "linear"
) -> Any:
    """Return exact quantiles of an array of any shape; see :meth:`OrderStatistics.quantile`."""
    return OrderStatistics(nan_policy).update(values, copy=False).quantile(quantiles, method)


def median(values: Any, nan_policy: NanPolicy = "propagate") -> float:
    """Return the exact median of an array of any shape; NaN of no values."""
    result = quantile(values, 0.5, nan_policy)
    return math.nan if math.isnan(result) else float(result)
