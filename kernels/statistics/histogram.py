"""Histograms between fixed edges; counts are whole numbers, so any order of merging is exact."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.statistics.moments import extremes
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
    check_same_policy,
)

__all__ = ["Histogram", "histogram"]

FEW_STEPS = 4
"""Comparisons that cost less than a branch that is guessed wrongly."""


@cpu_kernel
def _count_linear(values, edges, places, counts):
    """Count values in bins of equal width; no error check.

    As in NumPy, the place found by multiplication is put right against the edges, so that a value
    at an edge is in the bin above it.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    edges : float64 array, shape (bins + 1,)
        The last one is moved up by the least step, so that it belongs to the last bin.
    places : uint32 array
        Overwritten; values are worked on in parts of its length.
    counts : int64 array, shape (2, bins + 3)
        Modified in place: the sum of the rows is below, the bins, above, NaN.
    """
    bins = edges.size - 1
    first, scale, top = edges[0], bins / (edges[bins] - edges[0]), float(bins - 1)
    nans = 0
    for low in range(0, values.size, places.size):
        part = values[low : min(low + places.size, values.size)]
        for i in range(part.size):
            x = float(part[i])
            place = (x - first) * scale
            place = place if place > 0.0 else 0.0  # NaN too
            place = place if place < top else top
            places[i] = np.uint32(np.int32(place))
            nans += x != x
        for i in range(part.size):
            x = float(part[i])
            place = np.uintp(places[i])
            right = place + np.uintp(x >= edges[place + np.uintp(1)])
            right = right + np.uintp(not x < edges[place])
            counts[np.uintp(i) & np.uintp(1), right] += 1
    counts[0, 1] -= nans  # they were counted in the first bin
    counts[0, bins + 2] += nans


@cpu_device
def _leading_bits(x):
    """Return the leading 16 bits of a float64, turned so that they increase with the number."""
    bits = np.float64(np.float64(x) + 0.0).view(np.int64)  # -0.0 becomes 0.0
    return np.uintp(np.uint64(bits ^ ((bits >> 63) | np.int64(-(2**63)))) >> np.uint64(48))


@cpu_kernel
def _first_wrong(edges):
    """Return the first edge that is not above the one before it, 0 of none; and if all are finite.

    No error check.
    """
    finite, wrong = True, 0
    for i in range(edges.size - 1, 0, -1):
        finite = finite and math.isfinite(edges[i])
        if not edges[i] > edges[i - 1]:
            wrong = i
    return wrong, finite and math.isfinite(edges[0])


@cpu_kernel
def _leading_bits_of_ends(edges):
    """Return the leading bits of the first and of the last edge; no error check."""
    return _leading_bits(edges[0]), _leading_bits(edges[edges.size - 1])


@cpu_kernel
def _tabulate(edges, first, table):
    """Write for leading bits from ``first`` on how many edges have lesser ones.

    Returns the most edges that have the same leading bits. No error check.

    Parameters
    ----------
    edges : float64 array, increasing
    first : int
        The leading bits of the first edge.
    table : int64 array
        Modified in place. It reaches two beyond the leading bits of the last edge.
    """
    edge = most = 0
    for place in range(table.size):
        before = edge
        while edge < edges.size and np.intp(_leading_bits(edges[edge])) < first + place:
            edge += 1
        table[place] = edge
        most = max(most, edge - before)
    return most


@cpu_device(inline=True)
def _edges_up_to(value, edges, first, table, steps):
    """Return how many edges are at most a value; all of them, where it is NaN."""
    x = float(value)
    # Outside the table there are no edges to choose from, whatever the bits are.
    place = min(max(np.intp(_leading_bits(x)) - first, 0), table.size - 2)
    low = table[np.uintp(place)]
    for _ in range(steps):
        low += edges[np.uintp(low)] <= x
    size = 0 if steps else table[np.uintp(place + 1)] - low
    while size > 0:
        half = size >> 1
        right = edges[low + half] <= x
        low = low + half + 1 if right else low
        size = size - half - 1 if right else half
    return np.uintp(low if x == x else edges.size)


@cpu_kernel
def _count_between(values, edges, first, table, steps, counts):
    """Count values between increasing edges; as :func:`_count_linear`.

    The table of the leading bits leaves few edges to choose from: where at most ``steps`` they are
    compared one after another without a branch, where ``steps`` is 0 by bisection. A NaN follows
    the last edge.
    """
    if steps == 1:  # a loop of one step would take a quarter more time
        for i in range(values.size):
            place = _edges_up_to(values[i], edges, first, table, 1)
            counts[np.uintp(i) & np.uintp(1), place] += 1
        return
    for i in range(values.size):
        place = _edges_up_to(values[i], edges, first, table, steps)
        counts[np.uintp(i) & np.uintp(1), place] += 1


class Histogram:
    """Counts of a stream between fixed edges, fed in pieces and mergeable without any difference.

    A value at an edge counts in the bin above it, one at the last edge in the last bin (NumPy).

    Parameters
    ----------
    edges : array, shape (bins + 1,)
        Increasing and finite.
    nan_policy : {"propagate", "omit", "raise"}
        A count cannot be NaN: "propagate" and "omit" both count NaN in ``nans`` alone; "raise"
        raises InputError from :meth:`update`.

    Raises
    ------
    InputError
        If the edges are fewer than two, do not increase or are not finite.

    Examples
    --------
    >>> Histogram.linear(0, 4, 2).update([0, 1, 2, 4, 5]).counts.tolist()
    [2, 2]
    """

    def __init__(self, edges: Any, nan_policy: NanPolicy = "propagate") -> None:
        check_nan_policy(nan_policy)
        self.edges = np.array(edges, np.float64)
        if self.edges.ndim != 1 or len(self.edges) < 2:
            raise InputError(
                f"edges have shape {self.edges.shape}, should have at least 2 in a row"
            )
        at, finite = _first_wrong(self.edges)
        if not finite:
            raise InputError("an edge is not a finite number")
        if at:
            raise InputError(
                f"edge {at} is {self.edges[at]}, should be greater than edge {at - 1}, "
                f"{self.edges[at - 1]}"
            )
        self.edges.flags.writeable = False
        self.nan_policy = nan_policy
        bins = len(self.edges) - 1
        self._linear = _are_linear(self.edges)
        self._counts = np.zeros((2, bins + 3), np.int64)
        self._closed = np.append(self.edges, math.nan)  # beyond the last, to compare with
        self._closed[-2] = math.nextafter(self.edges[-1], math.inf)
        if self._linear:
            self._closed = self._closed[:-1]
            self._places = np.empty(1024, np.uint32)
        else:
            self._first, last = _leading_bits_of_ends(self._closed[:-1])
            self._table = np.empty(last - self._first + 3, np.int64)
            most = _tabulate(self._closed[:-1], self._first, self._table)
            self._steps = most if most <= FEW_STEPS else 0

    @classmethod
    def linear(
        cls, low: float, high: float, bins: int, nan_policy: NanPolicy = "propagate"
    ) -> Histogram:
        """Make bins of equal width."""
        _check_range(low, high)
        return cls(np.linspace(low, high, _check_bins(bins) + 1), nan_policy)

    @classmethod
    def logarithmic(
        cls, low: float, high: float, bins: int, nan_policy: NanPolicy = "propagate"
    ) -> Histogram:
        """Make bins whose edges have a constant ratio; ``low`` is positive."""
        if not low > 0:
            raise InputError(f"low is {low}, should be greater than 0 for logarithmic bins")
        _check_range(low, high)
        return cls(np.geomspace(low, high, _check_bins(bins) + 1), nan_policy)

    def update(self, values: Any) -> Histogram:
        """Add an array of any shape, on the host or on a GPU; returns itself."""
        if on_device(values):
            return self._update_from_device(values)
        flat = as_values(values)
        if self.nan_policy == "raise":
            check_no_nan(int(np.count_nonzero(np.isnan(flat))), "raise")
        if self._linear:
            _count_linear(flat, self._closed, self._places, self._counts)
        else:
            _count_between(flat, self._closed, self._first, self._table, self._steps, self._counts)
        return self

    def _update_from_device(self, values: Any) -> Histogram:
        from numbatch.kernels.statistics.cuda.arrays import bin_counts

        edges = self._closed[: len(self.edges)]
        counts = bin_counts(values, edges, self._linear)
        if self.nan_policy == "raise":
            check_no_nan(int(counts[-1]), "raise")
        self._counts[0] += counts
        return self

    def merge(self, other: Histogram) -> Histogram:
        """Add what ``other`` saw; returns itself.

        Raises
        ------
        InputError
            If the NaN policies or the edges differ.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        if not np.array_equal(self.edges, other.edges):
            raise InputError("the histograms to merge have different edges, should have the same")
        self._counts += other._counts
        return self

    @property
    def counts(self) -> np.ndarray:
        """How many values each bin holds, int64, shape (bins,)."""
        return self._counts.sum(axis=0)[1:-2]

    @property
    def below(self) -> int:
        """How many values are less than the first edge."""
        return int(self._counts[:, 0].sum())

    @property
    def above(self) -> int:
        """How many values are greater than the last edge."""
        return int(self._counts[:, -2].sum())

    @property
    def nans(self) -> int:
        """How many values are NaN."""
        return int(self._counts[:, -1].sum())


def _are_linear(edges: np.ndarray) -> bool:
    """Tell equal steps as linspace makes them: one multiplication is then at most one bin off."""
    low, high, bins = float(edges[0]), float(edges[-1]), len(edges) - 1
    step, first = (high - low) / bins, float(edges[1]) - low
    # The first step tells most others apart, in less time than all of them.
    if not abs(first - step) <= 1e-6 * max(abs(low), abs(high)):
        return False
    return np.array_equal(edges, np.linspace(low, high, bins + 1))


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the range is {low} to {high}, should be finite and increase")


def _check_bins(bins: Any) -> int:
    number = float(bins) if isinstance(bins, Real) else math.nan
    if not 1 <= number < math.inf or number != int(number):
        raise InputError(f"bins is {bins!r}, should be a whole number, at least 1, or edges")
    return int(number)


def histogram(
    values: Any,
    bins: Any = 10,
    range: tuple[float, float] | None = None,
    scale: str = "linear",
    nan_policy: NanPolicy = "omit",
) -> tuple[np.ndarray, np.ndarray]:
    """Count the values of an array between edges, as ``numpy.histogram`` does.

    Parameters
    ----------
    bins : int or array
        How many bins, or their edges.
    range : (float, float), optional
        First and last edge. By default the least and the greatest value; (0, 1) of no values.
    scale : {"linear", "log"}
        Equal widths or equal ratios.
    nan_policy : {"propagate", "omit", "raise"}
        NaN are in no bin; only "raise" differs.

    Returns
    -------
    counts : int64 array, shape (bins,)
    edges : float64 array, shape (bins + 1,)

    Raises
    ------
    InputError
        If the edges do not increase or are not finite, or the scale is neither of the two.
    """
    if scale not in ("linear", "log"):
        raise InputError(f"scale is {scale!r}, should be 'linear' or 'log'")
    if np.ndim(bins):
        made = Histogram(bins, nan_policy)
    else:
        values = values if on_device(values) else as_values(values)
        low, high = range if range is not None else _extent(values, scale)
        make = Histogram.linear if scale == "linear" else Histogram.logarithmic
        made = make(low, high, bins, nan_policy)
    made.update(values)
    return made.counts, made.edges


def _extent(values: Any, scale: str) -> tuple[float, float]:
    """Return the range of the values; widened as NumPy does where all are equal."""
    low, high = extremes(values, "omit") if values.size else (math.nan, math.nan)
    if math.isnan(low):
        return (0.0, 1.0) if scale == "linear" else (1.0, 10.0)
    if low == high:
        return (low - 0.5, high + 0.5) if scale == "linear" else (low / 2, high * 2)
    return low, high
