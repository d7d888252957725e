"""Quantiles of a stream in fixed memory, within a stated relative error (DDSketch).

Masson, Rim and Lee (2019), "DDSketch: A fast and fully-mergeable quantile sketch with
relative-error guarantees", arXiv 1908.10693. Bucket ``i`` holds the magnitudes between two bounds
whose ratio is at most ``(1 + a) / (1 - a)``. The logarithm is replaced by a cubic in the bits of
the mantissa (as in the authors' own implementations), which costs 1 % more buckets and no call of
``log``. Counts are whole numbers, so any order of updates and merges gives the same state.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.statistics.quantiles import check_quantiles
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
    check_same_policy,
)

__all__ = ["QuantileSketch"]

# The cubic that follows log2(1 + s) on [0, 1] with the least variation of slope against log2.
A, B, C = 6 / 35, -3 / 5, 10 / 7
LEAST_EXPONENT, GREATEST_EXPONENT = -1022, 1023
SPECIAL_COUNTS = 4
ZERO, PLUS_INFINITY, MINUS_INFINITY, NAN = range(SPECIAL_COUNTS)


@cpu_device
def exponent_and_rest(x):
    """Return the biased exponent of a float64, and its mantissa less 1, which is in [0, 1)."""
    bits = np.float64(x).view(np.int64)
    exponent = np.int32((bits >> 52) & 0x7FF)
    mantissa = (bits & np.int64(0x000FFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000)
    return exponent, np.int64(mantissa).view(np.float64) - 1.0


@cpu_kernel
def _count_magnitudes(values, scale, keys, counts, special):
    """Count values in the buckets of their magnitude; no error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    scale : float64
        Buckets for each doubling of the magnitude.
    keys : int32 array
        Overwritten; values are worked on in parts of its length.
    counts : int64 array, shape (2, buckets)
        Modified in place: of positive values, of negative values.
    special : int64 array, shape (4,)
        Modified in place: zero (and subnormal), inf, -inf, NaN.
    """
    for low in range(0, values.size, keys.size):
        size = min(keys.size, values.size - low)
        for i in range(size):
            exponent, s = exponent_and_rest(float(values[low + i]))
            logarithm = (float(exponent) - 1.0) + ((A * s + B) * s + C) * s
            keys[i] = np.int32(logarithm * scale)
        for i in range(size):
            x = float(values[low + i])
            magnitude = abs(x)
            if 2.2250738585072014e-308 <= magnitude < np.inf:
                counts[np.uintp(x < 0), np.uintp(np.uint32(keys[i]))] += 1
            elif magnitude < np.inf:
                special[ZERO] += 1
            elif x != x:
                special[NAN] += 1
            else:
                special[PLUS_INFINITY if x > 0 else MINUS_INFINITY] += 1


class QuantileSketch:
    """Approximate quantiles of a stream of any length, fed in pieces and mergeable exactly.

    A quantile is within ``relative_error`` of the value whose rank is ``floor(q * (count - 1))``
    (NumPy's method "lower"), rounding of float64 aside. Zero and infinities are exact; subnormal
    magnitudes count as zero.

    Parameters
    ----------
    relative_error : float
        In [1e-6, 0.5]. Memory is about 12 KB divided by it, of which only the pages that the
        values' magnitudes touch are used.
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: makes every quantile NaN, is left out, or raises InputError from
        :meth:`update`.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """

    def __init__(self, relative_error: float = 0.01, nan_policy: NanPolicy = "propagate") -> None:
        check_nan_policy(nan_policy)
        if not 1e-6 <= relative_error <= 0.5:
            raise InputError(f"relative_error is {relative_error}, should be in [1e-6, 0.5]")
        self.relative_error = float(relative_error)
        self.nan_policy = nan_policy
        # A bucket spans 1 / scale of the cubic's value; where the cubic is flattest against log2
        # (slope 10/7 ln 2 for s = 0), that must be at most the bound's ratio.
        ratio = math.log2((1 + self.relative_error) / (1 - self.relative_error))
        self._scale = 1 / (ratio * C * math.log(2))
        buckets = int((GREATEST_EXPONENT - LEAST_EXPONENT + 1) * self._scale) + 1
        self._counts = np.zeros((2, buckets), np.int64)
        self._special = np.zeros(SPECIAL_COUNTS, np.int64)
        self._keys = np.empty(1024, np.int32)

    @property
    def count(self) -> int:
        """How many values are not NaN."""
        return int(self._counts.sum() + self._special[:NAN].sum())

    @property
    def nans(self) -> int:
        """How many values are NaN."""
        return int(self._special[NAN])

    def update(self, values: Any) -> QuantileSketch:
        """Add an array of any shape, on the host or on a GPU; returns itself."""
        if on_device(values):
            return self._update_from_device(values)
        flat = as_values(values)
        if self.nan_policy == "raise":
            check_no_nan(int(np.count_nonzero(np.isnan(flat))), "raise")
        _count_magnitudes(flat, self._scale, self._keys, self._counts, self._special)
        return self

    def _update_from_device(self, values: Any) -> QuantileSketch:
        from numbatch.kernels.statistics.cuda.arrays import bucket_counts

        counts, special = bucket_counts(values, self._scale, self._counts.shape[1])
        if self.nan_policy == "raise":
            check_no_nan(int(special[NAN]), "raise")
        self._counts += counts
        self._special += special
        return self

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Add what ``other`` saw; returns itself.

        Raises
        ------
        InputError
            If the NaN policies or the relative errors differ.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        if other.relative_error != self.relative_error:
            raise InputError(
                f"the sketches to merge have relative errors {self.relative_error} and "
                f"{other.relative_error}, should have the same"
            )
        self._counts += other._counts
        self._special += other._special
        return self

    def quantile(self, quantiles: Any) -> Any:
        """Return quantiles as a float64 array of the shape of ``quantiles``, or a float of one.

        NaN of no values.

        Raises
        ------
        InputError
            If a quantile is not in [0, 1].
        """
        wanted = check_quantiles(quantiles)
        out = np.full(wanted.shape, np.nan)
        if self.count and not check_no_nan(self.nans, self.nan_policy):
            negative = np.flatnonzero(self._counts[1])[::-1]
            positive = np.flatnonzero(self._counts[0])
            special = self._special
            counts = np.concatenate(
                [
                    special[[MINUS_INFINITY]],
                    self._counts[1, negative],
                    special[[ZERO]],
                    self._counts[0, positive],
                    special[[PLUS_INFINITY]],
                ]
            )
            values = np.concatenate(
                [[-np.inf], -self._middle(negative), [0.0], self._middle(positive), [np.inf]]
            )
            ranks = np.floor(wanted * (self.count - 1)).astype(np.int64)
            out[...] = values[np.searchsorted(np.cumsum(counts), ranks, side="right")]
        return out if out.ndim else float(out)

    def _middle(self, buckets: np.ndarray) -> np.ndarray:
        """Return the number that is within the relative error of all magnitudes of a bucket."""
        lower = buckets / self._scale
        exponent = np.floor(lower)
        wanted = lower - exponent
        s = wanted.copy()
        for _ in range(6):  # Newton; the cubic is close to the line, so this is exact
            s -= (((A * s + B) * s + C) * s - wanted) / ((3 * A * s + 2 * B) * s + C)
        with np.errstate(over="ignore"):
            bound = np.ldexp(1 + s, exponent.astype(np.int64) + LEAST_EXPONENT)
            return np.minimum(bound * (1 + self.relative_error), np.finfo(np.float64).max)
