"""Linear and rank correlation of pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.simd64 import (
    LANES64,
    fill,
    fill_alternate,
    load_numbers,
    sum_alternate,
    swap_pairs,
)
from numbatch.kernels.statistics.block_statistic import BlockStatistic
from numbatch.kernels.statistics.block_tree import BLOCK, pairs_to_fold
from numbatch.kernels.statistics.values import NanPolicy, as_values, check_no_nan

__all__ = ["Correlation", "pearson", "spearman"]

COUNT, SUM_X, SUM_Y, XX, YY, XY = range(6)

PART = 1 << 15
"""Pairs that are interleaved at a time; the second-level cache holds them."""


@cpu_device
def _fast_sums(values, low, high):
    """Return the sums of x and of y of ``values[low:high]``; NaN where there is one."""
    a, b = fill(0.0), fill(0.0)
    i = low
    while i + 2 * LANES64 <= high:
        a = a + load_numbers(values, i)
        b = b + load_numbers(values, i + LANES64)
        i += 2 * LANES64
    sum_x, sum_y = sum_alternate(a + b)
    while i < high:
        sum_x += float(values[i])
        sum_y += float(values[i + 1])
        i += 2
    return sum_x, sum_y


@cpu_device
def _fast_products(values, low, high, mean_x, mean_y):
    """Return the sums of products of differences from the means: xx, yy, xy."""
    means = fill_alternate(mean_x, mean_y)
    squares, products = fill(0.0), fill(0.0)
    more_squares, more_products = fill(0.0), fill(0.0)
    i = low
    while i + 2 * LANES64 <= high:
        d = load_numbers(values, i) - means
        e = load_numbers(values, i + LANES64) - means
        squares, products = squares + d * d, products + d * swap_pairs(d)
        more_squares, more_products = more_squares + e * e, more_products + e * swap_pairs(e)
        i += 2 * LANES64
    xx, yy = sum_alternate(squares + more_squares)
    xy, _ = sum_alternate(products + more_products)
    while i < high:
        dx, dy = float(values[i]) - mean_x, float(values[i + 1]) - mean_y
        xx, yy, xy = xx + dx * dx, yy + dy * dy, xy + dx * dy
        i += 2
    return xx, yy, xy


@cpu_device
def _careful_sums(values, low, high):
    """Return how many pairs hold no NaN, and their sums of x and of y."""
    count, sum_x, sum_y = 0.0, 0.0, 0.0
    for i in range(low, high, 2):
        x, y = float(values[i]), float(values[i + 1])
        if x == x and y == y:
            count, sum_x, sum_y = count + 1.0, sum_x + x, sum_y + y
    return count, sum_x, sum_y


@cpu_device
def _careful_products(values, low, high, mean_x, mean_y):
    """Return what :func:`_fast_products` does, of the pairs that hold no NaN."""
    xx, yy, xy = 0.0, 0.0, 0.0
    for i in range(low, high, 2):
        dx, dy = float(values[i]) - mean_x, float(values[i + 1]) - mean_y
        x, y = float(values[i]), float(values[i + 1])
        if x == x and y == y:
            xx, yy, xy = xx + dx * dx, yy + dy * dy, xy + dx * dy
    return xx, yy, xy


@cpu_kernel
def _reduce_pairs(start, stop, values, nodes):
    """Write counts, sums and central products of blocks ``start`` to ``stop - 1``.

    No error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (2 * pairs,)
        x and y in turn.
    nodes : float64 array, shape (blocks, 6)
        Modified in place: count, sums of x and y, sums of products of differences from the means.
    """
    for block in range(start, stop):
        low = block * BLOCK
        high = min(low + BLOCK, values.size)
        node = nodes[block]
        count = 0.5 * (high - low)
        sum_x, sum_y = _fast_sums(values, low, high)
        careful = math.isnan(sum_x) or math.isnan(sum_y)
        if careful:  # a NaN, or infinities of both signs
            count, sum_x, sum_y = _careful_sums(values, low, high)
        mean_x, mean_y = sum_x / count, sum_y / count
        if careful:
            xx, yy, xy = _careful_products(values, low, high, mean_x, mean_y)
        else:
            xx, yy, xy = _fast_products(values, low, high, mean_x, mean_y)
        node[COUNT], node[SUM_X], node[SUM_Y] = count, sum_x, sum_y
        node[XX], node[YY], node[XY] = xx, yy, xy


@cpu_device
def join_pairs(a, b, out):
    """Write the node of what ``a`` and then ``b`` saw; ``out`` may be ``a``."""
    if a[COUNT] == 0 or b[COUNT] == 0:
        for q in range(a.size):  # CUDA knows no assignment of a row
            out[q] = b[q] if a[COUNT] == 0 else a[q]
        return
    n = a[COUNT] + b[COUNT]
    share = a[COUNT] * (b[COUNT] / n)
    dx = b[SUM_X] / b[COUNT] - a[SUM_X] / a[COUNT]
    dy = b[SUM_Y] / b[COUNT] - a[SUM_Y] / a[COUNT]
    out[XX] = a[XX] + b[XX] + dx * dx * share
    out[YY] = a[YY] + b[YY] + dy * dy * share
    out[XY] = a[XY] + b[XY] + dx * dy * share
    out[COUNT], out[SUM_X], out[SUM_Y] = n, a[SUM_X] + b[SUM_X], a[SUM_Y] + b[SUM_Y]


@cpu_kernel
def _combine_pairs(left, right, out):
    """Combine the nodes of :func:`_reduce_pairs` row by row; no error check."""
    for i in range(left.shape[0]):
        join_pairs(left[i], right[i], out[i])


@cpu_kernel
def _fold_pairs(nodes, whole):
    """Combine the nodes of a stream's first blocks into the first row; no error check."""
    for left, right in pairs_to_fold(nodes.shape[0], whole):
        join_pairs(nodes[left], nodes[right], nodes[left])


class Correlation(BlockStatistic):
    """Pearson's correlation of a stream of pairs; see :class:`BlockStatistic`.

    A pair counts as NaN where either of the two is.
    """

    _reduce_blocks = _reduce_pairs
    _combine = _combine_pairs
    _fold = _fold_pairs
    _empty = (0.0,) * 6
    _values_an_item = 2
    _device_kernel = "pairs"

    def update(self, x: Any, y: Any = None) -> Correlation:
        """Add pairs, given as two arrays of one shape, on the host or on a GPU; returns itself.

        Raises
        ------
        InputError
            If the shapes differ or a dtype is not supported, or as of
            :meth:`BlockStatistic.update`; the state is then as it was.
        """
        if y is None or np.shape(x) != np.shape(y):
            raise InputError(
                f"x has shape {np.shape(x)}, y {np.shape(y)}, should be arrays of one shape"
            )
        if on_device(x) or on_device(y):
            from numbatch.kernels.statistics.cuda.pairs import interleaved

            return self._update_from_device(interleaved(x, y))
        first, second = as_values(x, "x"), as_values(y, "y")
        if self.nan_policy == "raise":  # before any part is added
            check_no_nan(int(np.count_nonzero(np.isnan(first) | np.isnan(second))), "raise")
        pairs = np.empty((min(PART, len(first)), 2), np.result_type(first, second))
        for low in range(0, len(first), PART):
            part = pairs[: len(first) - low]
            part[:, 0], part[:, 1] = first[low : low + PART], second[low : low + PART]
            self._update(part.reshape(-1))
        return self

    @property
    def pearson(self) -> float:
        """Correlation in [-1, 1].

        NaN of fewer than two pairs, where all x or all y are equal, and where squares overflow.
        """
        spread = math.sqrt(self._get(XX)) * math.sqrt(self._get(YY))
        if not 0 < spread < math.inf:  # the squares of some 1e154 overflow
            return math.nan
        return max(-1.0, min(1.0, self._get(XY) / spread))

    @property
    def covariance(self) -> float:
        """Mean product of the differences from the means (divisor: pairs); NaN of none."""
        return self._get(XY) / self.count if self.count else math.nan


def pearson(x: Any, y: Any, nan_policy: NanPolicy = "propagate") -> float:
    """Return Pearson's correlation of two arrays of one shape; see :class:`Correlation`."""
    return Correlation(nan_policy).update(x, y).pearson


@cpu_kernel
def _average_ranks(values, order, ranks):
    """Write ranks from 1; equal values share the mean of theirs. No error check.

    Parameters
    ----------
    values : float64 array, shape (n,)
    order : int64 array, shape (n,)
        Places of the values in increasing order.
    ranks : float64 array, shape (n,)
        Modified in place.
    """
    first = 0
    while first < order.size:
        stop = first + 1
        while stop < order.size and values[order[stop]] == values[order[first]]:
            stop += 1
        for i in range(first, stop):
            ranks[order[i]] = 0.5 * (first + stop + 1)
        first = stop


def spearman(x: Any, y: Any, nan_policy: NanPolicy = "propagate") -> float:
    """Return Spearman's rank correlation of two arrays of one shape; equal values share a rank.

    Ranks need all values at once: :class:`PairedSample` keeps those of a stream.
    """
    both = [as_values(values, name).astype(np.float64) for values, name in ((x, "x"), (y, "y"))]
    linear = Correlation(nan_policy).update(x, y)
    if linear.nans and nan_policy == "propagate":
        return math.nan
    kept = ~(np.isnan(both[0]) | np.isnan(both[1]))
    ranks = []
    for values in both:
        numbers = values[kept]
        ranks.append(np.empty(len(numbers)))
        _average_ranks(numbers, np.argsort(numbers, kind="stable"), ranks[-1])
    return Correlation().update(*ranks).pearson
