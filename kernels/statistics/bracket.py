"""One rank of many values in a single pass: a sample says between which two values it lies.

Floyd and Rivest (1975), "Expected time bounds for selection". Of a sample of ``SAMPLE`` values, the
two that stand ``SPREAD`` standard errors below and above the wanted rank's place hold it between
them all but once in a billion; one pass counts what is below and keeps what is between, some 2 in a
hundred. Where the guess fails (values that repeat, an order that misleads the sample), nothing is
returned and the caller selects by digits: the result is exact in any case, and the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.statistics.masks import MASK, numbers_between
from numbatch.kernels.words import count_ones, trailing_zeros

__all__ = ["Bracket", "keep_between"]

SAMPLE = 1 << 16
"""Values in a sample; to sort them takes a tenth of the pass over 10 million values."""

ROOM = 8
"""A bracket of more than this part of all values does not help."""

SPREAD = 6.0
"""Standard errors of a sample's rank; beyond it lies one rank in a billion."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The values between two bounds, and how many of all there are outside.

    Parameters
    ----------
    kept : array
        Values between the bounds.
    below : int
        How many values are less than all of them.
    nans : int
        How many values are NaN.
    """

    kept: np.ndarray
    below: int
    nans: int

    @classmethod
    def around(cls, parts: list[np.ndarray], quantile: float) -> Bracket | None:
        """Keep the values around a quantile; None where too many are near it.

        ``parts`` are flat arrays of one dtype, float32 or float64.
        """
        bounds = _bounds(parts, quantile)
        if bounds is None:
            return None
        out = np.empty(sum(map(len, parts)) // ROOM + MASK, parts[0].dtype)
        counts = np.zeros(3, np.int64)
        kept = 0
        for part in parts:
            part = part.view()
            part.flags.writeable = False  # of one type to Numba, whatever the values are
            kept = keep_between(part, *bounds, kept, out, counts)
        below, between, nans = counts.tolist()
        return cls(out[:kept], below, nans) if between == kept else None

    def holds(self, ranks: np.ndarray) -> np.ndarray:
        """Tell which ranks (0: the least of all values) are those of values that were kept."""
        return (ranks >= self.below) & (ranks < self.below + len(self.kept))


def _bounds(parts: list[np.ndarray], quantile: float) -> tuple[float, float] | None:
    """Return two values that are likely to hold a quantile between them; None without numbers.

    The sample is taken at even distances, so it is the same each time.
    """
    step = max(1, sum(map(len, parts)) // SAMPLE)
    sample = np.concatenate([part[step // 2 :: step] for part in parts])
    sample = np.sort(sample[~np.isnan(sample)])
    if not len(sample):
        return None
    last = len(sample) - 1
    place = quantile * last
    spread = SPREAD * math.sqrt(max(quantile * (1 - quantile) * len(sample), 1.0))
    low, high = math.floor(place - spread), math.ceil(place + spread)
    # Beyond the ends of the sample there may be more extreme values.
    return (
        float(sample[low]) if low >= 0 else -math.inf,
        float(sample[high]) if high <= last else math.inf,
    )


@cpu_kernel
def keep_between(values, low, high, kept, out, counts):
    """Count values below ``low``, between both (inclusive) and NaN; keep those between.

    No error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    low, high : float64
        Numbers that the dtype of ``values`` holds, or infinite.
    kept : int
        How many ``out`` holds already.
    out : array of the dtype of ``values``
        Modified in place. Where it has no room for 64 more, no more are kept.
    counts : int64 array, shape (3,)
        Modified in place: those below, between, NaN are added.

    Returns
    -------
    int
        How many ``out`` holds now.
    """
    below, between, numbers = np.uint64(0), np.uint64(0), np.uint64(0)
    whole = values.size // MASK * MASK
    for at in range(0, whole, MASK):
        up_to_high = numbers_between(values, at, -np.inf, high)
        inside = numbers_between(values, at, low, np.inf)
        numbers += count_ones(up_to_high | inside)
        below += count_ones(up_to_high & ~inside)
        inside &= up_to_high
        between += count_ones(inside)
        if kept + MASK <= out.size:
            while inside:
                out[kept] = values[at + np.intp(trailing_zeros(inside))]
                kept += 1
                inside &= inside - np.uint64(1)
    for i in range(whole, values.size):
        x = float(values[i])
        numbers += np.uint64(x == x)
        below += np.uint64(x < low)
        if (x >= low) & (x <= high):
            between += np.uint64(1)
            if kept < out.size:
                out[kept] = values[i]
                kept += 1
    counts[0] += np.int64(below)
    counts[1] += np.int64(between)
    counts[2] += values.size - np.int64(numbers)
    return kept
