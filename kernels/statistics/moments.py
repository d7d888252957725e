"""Count, sum, mean, variance, skewness, kurtosis, least and greatest value in one pass.

Each block of the stream is read once from memory and twice from the cache: the sum first, then the
central moments about the block's own mean, so nothing cancels. Blocks are combined by the formulas
of Pébay (2008, SAND2008-6212). All arithmetic is float64; float32 values are widened exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.simd64 import LANES64, fill, load_numbers, sum_lanes64, where_number
from numbatch.kernels.simd_extremes import (
    all_kept,
    fill_line,
    greater,
    greatest_of_line,
    keep_where_numbers,
    least_of_line,
    lesser,
    load_line,
    next_line,
    numbers_in_line,
)
from numbatch.kernels.statistics.block_statistic import BlockStatistic
from numbatch.kernels.statistics.block_tree import BLOCK, pairs_to_fold
from numbatch.kernels.statistics.sums import block_sum
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
)

__all__ = ["Moments", "block_extremes", "extremes", "kurtosis", "skewness", "std", "variance"]

COUNT, SUM, M2, M3, M4, LEAST, GREATEST, MEAN, REST = range(9)


@cpu_device(inline=True)
def _lines_of_extremes(values, low, high, wants_least, wants_greatest):
    """Return the least, the greatest and where all are numbers, of a line of values or more.

    The first and the last lines read some values again, which changes nothing. Those between begin
    where the cache's lines do: to read across two takes twice as long.
    """
    size = numbers_in_line(values)
    least, greatest = fill_line(values, np.inf), fill_line(values, -np.inf)
    x, last = load_line(values, low), high - size
    numbers = keep_where_numbers(x, x, fill_line(values, 1.0))
    least, greatest = lesser(x, least), greater(x, greatest)
    least_2, greatest_2, numbers_2 = least, greatest, numbers
    i = next_line(values, low)
    while i < high:
        x, y = load_line(values, min(i, last)), load_line(values, min(i + size, last))
        z = load_line(values, min(i + 2 * size, last))
        w = load_line(values, min(i + 3 * size, last))
        if wants_least:
            least, least_2 = lesser(z, lesser(x, least)), lesser(w, lesser(y, least_2))
        if wants_greatest:
            greatest = greater(z, greater(x, greatest))
            greatest_2 = greater(w, greater(y, greatest_2))
        numbers = keep_where_numbers(x, y, numbers)
        numbers_2 = keep_where_numbers(z, w, numbers_2)
        i += 4 * size
    numbers = lesser(numbers, numbers_2)
    return lesser(least_2, least), greater(greatest_2, greatest), numbers


@cpu_device(inline=True)
def block_extremes(values, low, high, wants_least=True, wants_greatest=True):
    """Return how many of ``values[low:high]`` are not NaN, the least and the greatest of them.

    inf and -inf where there is none. What is not wanted is not to be used.
    """
    low_end, high_end, all_numbers, i = np.inf, -np.inf, True, low
    if high - low >= numbers_in_line(values):
        least, greatest, numbers = _lines_of_extremes(
            values, low, high, wants_least, wants_greatest
        )
        low_end, high_end = least_of_line(least), greatest_of_line(greatest)
        all_numbers, i = all_kept(numbers), high
    while i < high:
        x = float(values[i])
        low_end = x if x < low_end else low_end
        high_end = x if x > high_end else high_end
        all_numbers = all_numbers and x == x
        i += 1
    count = high - low
    if not all_numbers:
        count = 0
        for i in range(low, high):
            count += values[i] == values[i]
    return float(count), low_end, high_end


@cpu_kernel
def _reduce_extremes(values, out):
    """Write count, least and greatest of all values to ``out`` (float64); no error check."""
    out[0], out[1], out[2] = block_extremes(values, 0, values.size)


@cpu_device(inline=True)
def _block_powers(values, low, high, mean):
    """Return the sums of the differences from ``mean`` to the powers 1 to 4; NaN is left out."""
    s1, s2, s3, s4 = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
    i = low
    while i + LANES64 <= high:
        x = load_numbers(values, i)
        d = where_number(x, x - mean)
        square = d * d
        s1, s2 = s1 + d, s2 + square
        s3, s4 = s3 + square * d, s4 + square * square
        i += LANES64
    t1, t2, t3, t4 = sum_lanes64(s1), sum_lanes64(s2), sum_lanes64(s3), sum_lanes64(s4)
    while i < high:
        x = float(values[i])
        if not math.isnan(x):
            d = x - mean
            t1, t2, t3, t4 = t1 + d, t2 + d * d, t3 + d * d * d, t4 + d * d * (d * d)
        i += 1
    return t1, t2, t3, t4


@cpu_device
def central_sums(n, s1, s2, s3, s4):
    """Return second to fourth central moment (sums) and what the mean's rounding left.

    ``s1`` to ``s4`` are the sums of the powers of the differences from the rounded mean.
    """
    e = s1 / n
    m3 = s3 - 3.0 * e * s2 + 2.0 * e * e * s1
    m4 = s4 - 4.0 * e * s3 + 6.0 * e * e * s2 - 3.0 * e * e * e * s1
    return s2 - e * s1, m3, m4, e


@cpu_kernel
def _reduce_moments(start, stop, values, nodes):
    """Write the moments of blocks ``start`` to ``stop - 1``; no error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    nodes : float64 array, shape (blocks, 9)
        Modified in place: count, sum, second to fourth central moment (sums, not means), least,
        greatest, the mean and what its rounding left; of the values that are not NaN.
    """
    for block in range(start, stop):
        low = block * BLOCK
        high = min(low + BLOCK, values.size)
        node = nodes[block]
        n, total = block_sum(values, low, high)
        node[COUNT], node[SUM] = n, total
        _, node[LEAST], node[GREATEST] = block_extremes(values, low, high)
        node[M2] = node[M3] = node[M4] = node[MEAN] = node[REST] = 0.0
        if n > 0:
            # The mean is rounded; the sum of differences that this leaves is taken out again.
            s1, s2, s3, s4 = _block_powers(values, low, high, total / n)
            node[M2], node[M3], node[M4], node[REST] = central_sums(n, s1, s2, s3, s4)
            node[MEAN] = total / n


@cpu_device
def join_moments(a, b, out):
    """Write the node of what ``a`` and then ``b`` saw; ``out`` may be ``a``."""
    na, nb = a[COUNT], b[COUNT]
    if na == 0 or nb == 0:
        for q in range(a.size):  # CUDA knows no assignment of a row
            out[q] = b[q] if na == 0 else a[q]
        return
    n = na + nb
    # Two numbers a mean: where means are large and close, their difference is not rounding.
    d = (b[MEAN] - a[MEAN]) + (b[REST] - a[REST])
    p, q = na / n, nb / n
    mean = a[MEAN] + (q * d + a[REST])
    rest = (a[MEAN] - mean) + (q * d + a[REST])
    m2 = a[M2] + b[M2] + d * d * na * q
    m3 = a[M3] + b[M3] + d * d * d * na * q * (p - q) + 3.0 * d * (p * b[M2] - q * a[M2])
    m4 = a[M4] + b[M4] + d * d * d * d * na * q * (p * p - p * q + q * q)
    m4 += 6.0 * d * d * (p * p * b[M2] + q * q * a[M2]) + 4.0 * d * (p * b[M3] - q * a[M3])
    out[SUM] = a[SUM] + b[SUM]
    out[LEAST], out[GREATEST] = min(a[LEAST], b[LEAST]), max(a[GREATEST], b[GREATEST])
    out[MEAN], out[REST] = mean, rest
    out[COUNT], out[M2], out[M3], out[M4] = n, m2, m3, m4


@cpu_kernel
def _combine_moments(left, right, out):
    """Combine moments row by row; ``out`` may be ``left``. No error check."""
    for i in range(left.shape[0]):
        join_moments(left[i], right[i], out[i])


@cpu_kernel
def _fold_moments(nodes, whole):
    """Combine the nodes of a stream's first blocks into the first row; no error check."""
    for left, right in pairs_to_fold(nodes.shape[0], whole):
        join_moments(nodes[left], nodes[right], nodes[left])


class Moments(BlockStatistic):
    """Moments of a stream of values, fed in pieces and mergeable; see :class:`BlockStatistic`.

    Examples
    --------
    >>> moments = Moments().update([1.0, 2.0]).update([3.0, 6.0])
    >>> moments.count, moments.mean, moments.variance()
    (4, 3.0, 3.5)
    """

    _reduce_blocks = _reduce_moments
    _combine = _combine_moments
    _fold = _fold_moments
    _empty = (0.0, 0.0, 0.0, 0.0, 0.0, math.inf, -math.inf, 0.0, 0.0)
    _device_kernel = "moments"

    @property
    def sum(self) -> float:
        """Sum of the values; 0 of none."""
        return self._get(SUM)

    @property
    def mean(self) -> float:
        """Arithmetic mean; NaN of no values."""
        return self._get(SUM) / self.count if self.count else math.nan

    @property
    def min(self) -> float:
        """Least value; NaN of no values."""
        return self._get(LEAST) if self.count else math.nan

    @property
    def max(self) -> float:
        """Greatest value; NaN of no values."""
        return self._get(GREATEST) if self.count else math.nan

    def variance(self, ddof: float = 0) -> float:
        """Mean squared difference from the mean; ``count - ddof`` is the divisor, as in NumPy.

        NaN where the divisor is not positive.
        """
        divisor = self.count - ddof
        return self._get(M2) / divisor if divisor > 0 else math.nan

    def std(self, ddof: float = 0) -> float:
        """Return the square root of :meth:`variance`."""
        return math.sqrt(self.variance(ddof))

    @property
    def skewness(self) -> float:
        """Third standardised moment (SciPy's ``skew``); NaN where all values are equal."""
        m2 = self._get(M2)
        return math.sqrt(self.count) * self._get(M3) / (m2 * math.sqrt(m2)) if m2 > 0 else math.nan

    @property
    def kurtosis(self) -> float:
        """Fourth standardised moment less 3 (SciPy's ``kurtosis``); NaN where all are equal."""
        m2 = self._get(M2)
        return self.count * self._get(M4) / (m2 * m2) - 3.0 if m2 > 0 else math.nan

    def __repr__(self) -> str:
        return f"Moments(count={self.count}, mean={self.mean:.6g}, std={self.std():.6g})"


def variance(
    values: Any, ddof: float = 0, nan_policy: NanPolicy = "propagate", threads: int = 1
) -> float:
    """Return the variance of an array; see :meth:`Moments.variance`."""
    return Moments._of(values, nan_policy, threads).variance(ddof)


def std(
    values: Any, ddof: float = 0, nan_policy: NanPolicy = "propagate", threads: int = 1
) -> float:
    """Return the standard deviation of an array; see :meth:`Moments.variance`."""
    return Moments._of(values, nan_policy, threads).std(ddof)


def skewness(values: Any, nan_policy: NanPolicy = "propagate", threads: int = 1) -> float:
    """Return the skewness of an array; see :attr:`Moments.skewness`."""
    return Moments._of(values, nan_policy, threads).skewness


def kurtosis(values: Any, nan_policy: NanPolicy = "propagate", threads: int = 1) -> float:
    """Return the excess kurtosis of an array; see :attr:`Moments.kurtosis`."""
    return Moments._of(values, nan_policy, threads).kurtosis


def extremes(values: Any, nan_policy: NanPolicy = "propagate") -> tuple[float, float]:
    """Return the least and the greatest value of an array of any shape, in one pass.

    Raises
    ------
    InputError
        If there are no values, as in NumPy, or the policy says so. Of NaN alone both are NaN.
    """
    check_nan_policy(nan_policy)
    if on_device(values):
        return _device_extremes(values, nan_policy)
    flat = as_values(values)
    out = np.empty(3)
    _reduce_extremes(flat, out)
    return _checked_extremes(len(flat), len(flat) - int(out[0]), out[1], out[2], nan_policy)


def _device_extremes(values: Any, nan_policy: NanPolicy) -> tuple[float, float]:
    from numbatch.kernels.statistics.cuda.arrays import device_extremes

    return _checked_extremes(*device_extremes(values), nan_policy)


def _checked_extremes(
    size: int, nans: int, least: float, greatest: float, nan_policy: NanPolicy
) -> tuple[float, float]:
    if not size:
        raise InputError("there are no values, should be at least 1 for a least and a greatest")
    if check_no_nan(nans, nan_policy) or nans == size:
        return math.nan, math.nan
    return float(least), float(greatest)
