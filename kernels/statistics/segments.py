"""Reductions of each row of a :class:`Ragged`: each text's sum, mean, least, greatest.

A row's result depends on the row alone, so it is the same to the bit in any batch, and with any
number of threads; batches of rows are joined by joining their results.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import Ragged, on_device
from numbatch.kernels.statistics.moments import block_extremes
from numbatch.kernels.statistics.sums import block_sum
from numbatch.kernels.statistics.values import NanPolicy, as_values, check_nan_policy
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["segment_max", "segment_mean", "segment_min", "segment_perplexity", "segment_sum"]

SUM, MEAN, LEAST, GREATEST, PERPLEXITY = range(5)


@cpu_device(inline=True)
def _reduce_row(values, low, high, kind):
    """Return how many of a row's values are not NaN, and their reduction."""
    if kind == LEAST:
        count, least, _ = block_extremes(values, low, high, True, False)
        return count, least if count else math.nan
    if kind == GREATEST:
        count, _, greatest = block_extremes(values, low, high, False, True)
        return count, greatest if count else math.nan
    count, total = block_sum(values, low, high)
    if kind == SUM:
        return count, total
    mean = total / count
    return count, mean if kind == MEAN else math.exp(-mean)


@cpu_kernel
def _reduce_segments(start, stop, values, offsets, kind, omit, out):
    """Reduce rows ``start`` to ``stop - 1``; no error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    offsets : int64 array, shape (rows + 1,)
    kind : int
        SUM, MEAN, LEAST, GREATEST or PERPLEXITY.
    omit : int
        1: NaN are left out. 0: they make the result NaN.
    out : float64 array, shape (rows,)
        Modified in place. NaN where a row has no numbers and the reduction none for that.
    """
    for row in range(start, stop):
        low, high = offsets[row], offsets[row + 1]
        count, result = _reduce_row(values, low, high, kind)
        if not omit and count != high - low:
            result = math.nan
        out[row] = result if high > low or kind == SUM else math.nan


def _reduce(
    ragged: Ragged, kind: int, nan_policy: str, out: np.ndarray | None, threads: int
) -> np.ndarray:
    check_nan_policy(nan_policy)
    if on_device(ragged.values):
        from numbatch.kernels.statistics.cuda.arrays import reduce_rows

        return reduce_rows(ragged, kind, nan_policy, out)
    values = as_values(ragged.values)
    rows = len(ragged.offsets) - 1
    if out is None:
        out = np.empty(rows)
    else:
        _check_out(out, rows)
    if nan_policy == "raise" and np.isnan(values).any():
        row = int(np.searchsorted(ragged.offsets, np.argmax(np.isnan(values)), side="right")) - 1
        raise InputError(f"row {row} holds a NaN, and nan_policy is 'raise'")
    omit = 1 if nan_policy == "omit" else 0  # Numba takes 70 ns more for a truth value
    if threads == 1:
        _reduce_segments(0, rows, values, ragged.offsets, kind, omit, out)
    else:
        args = (values, ragged.offsets, kind, omit, out)
        ThreadTeam(threads).run(Call(_reduce_segments, rows, args, grain=64))
    return out


def _check_out(out: np.ndarray, rows: int) -> None:
    """Raise InputError where an array cannot take the results of so many rows."""
    if out.shape != (rows,) or out.dtype != np.float64 or not out.flags.c_contiguous:
        raise InputError(
            f"out is {out.dtype.name} of shape {out.shape}, should be contiguous float64 of shape "
            f"({rows},)"
        )
    if not out.flags.writeable:
        raise InputError("out is read-only, should be an array that can be written")


def segment_sum(
    ragged: Ragged,
    nan_policy: NanPolicy = "propagate",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the sum of each row, float64, shape (rows,); 0 of an empty row.

    Parameters
    ----------
    ragged : Ragged
        Rows of float32, float64 or whole numbers. One on a GPU (float32 or float64) is reduced
        there, and so the result is an array there.
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does to its row.
    out : float64 array, shape (rows,), optional
        Where the results go; it is returned.
    threads : int
        How many threads share the rows; no result depends on it.

    Raises
    ------
    InputError
        If the dtype is not supported, or ``out`` does not fit.
    """
    return _reduce(ragged, SUM, nan_policy, out, threads)


def segment_mean(
    ragged: Ragged,
    nan_policy: NanPolicy = "propagate",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the mean of each row, NaN of an empty row; see :func:`segment_sum`."""
    return _reduce(ragged, MEAN, nan_policy, out, threads)


def segment_min(
    ragged: Ragged,
    nan_policy: NanPolicy = "propagate",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the least value of each row, NaN of an empty row; see :func:`segment_sum`."""
    return _reduce(ragged, LEAST, nan_policy, out, threads)


def segment_max(
    ragged: Ragged,
    nan_policy: NanPolicy = "propagate",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the greatest value of each row, NaN of an empty row; see :func:`segment_sum`."""
    return _reduce(ragged, GREATEST, nan_policy, out, threads)


def segment_perplexity(
    ragged: Ragged,
    nan_policy: NanPolicy = "propagate",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return ``exp(-mean)`` of each row of natural log-probabilities; see :func:`segment_sum`."""
    return _reduce(ragged, PERPLEXITY, nan_policy, out, threads)
