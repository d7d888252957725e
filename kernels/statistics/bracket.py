"""One rank of many values in a single pass: a sample says between which two values it lies.

Floyd and Rivest (1975), "Expected time bounds for selection". Of a sample of ``SAMPLE`` values, the
two that stand ``SPREAD`` standard errors below and above the wanted rank's place hold it between
them all but once in a billion; one pass counts what is below and keeps what is between, some 2 in a
hundred. Where the guess fails (values that repeat, an order that misleads the sample), nothing is
returned and the caller selects by digits: the result is exact in any case, and the same.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["SAMPLE", "find_bracket", "keep_between"]

SAMPLE = 1 << 14
"""Values in a sample; sorting it takes a tenth of the pass over 10 million values."""

SPREAD = 6.0
"""Standard errors of a sample's rank; beyond it lies one rank in a billion."""

PART = 1024
"""Values that are counted, then kept; the first-level cache holds them in between."""


def find_bracket(parts: list[np.ndarray], quantile: float) -> tuple[float, float] | None:
    """Return two values that are likely to hold a quantile between them; None without numbers.

    The sample is taken at even distances, of each part by its share.
    """
    step = max(1, sum(map(len, parts)) // SAMPLE)
    sample = np.concatenate([part[step // 2 :: step] for part in parts])
    sample = np.sort(sample[sample == sample])
    if not len(sample):
        return None
    last = len(sample) - 1
    spread = SPREAD * math.sqrt(max(quantile * (1 - quantile) * len(sample), 1.0))
    low = sample[max(0, math.floor(quantile * last - spread))]
    high = sample[min(last, math.ceil(quantile * last + spread))]
    # Beyond the sample's own ends there may be more extreme values.
    low = low if quantile * last - spread >= 0 else -math.inf
    high = high if quantile * last + spread <= last else math.inf
    return float(low), float(high)


@cpu_device
def _is_between(x, low, high):
    return (x >= low) & (x <= high)


@cpu_kernel
def keep_between(values, low, high, kept, out, counts):
    """Count values below ``low``, between both (inclusive) and NaN; keep those between.

    No error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    low, high : float32 or float64, as ``values``
    kept : int
        How many ``out`` holds already.
    out : array of the dtype of ``values``
        Modified in place. Where it has no room for ``PART`` more, no more are kept.
    counts : int64 array, shape (3,)
        Modified in place: those below, between, NaN are added.

    Returns
    -------
    int
        How many ``out`` holds now.
    """
    for start in range(0, values.size, PART):
        part = values[start : min(start + PART, values.size)]
        below, between, nans = np.int32(0), np.int32(0), np.int32(0)
        for i in range(part.size):
            below += np.int32(part[i] < low)
            between += np.int32(_is_between(part[i], low, high))
            nans += np.int32(part[i] != part[i])
        counts[0] += below
        counts[1] += between
        counts[2] += nans
        if kept + PART > out.size:
            continue
        for i in range(part.size):  # without a branch: what is not kept is overwritten
            out[kept] = part[i]
            kept += np.intp(_is_between(part[i], low, high))
    return kept
