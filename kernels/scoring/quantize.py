"""Activations as int8 with a scale for each group of columns, for the int8 product.

A row keeps ``scale = largest / 127`` for each group of ``int8_panels.GROUP`` columns and codes
``round(x / scale)``, as GGML's Q8 formats do (theirs: groups of 32 or 256). Half is rounded to
even.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.int8_panels import GROUP, wide
from numbatch.kernels.simd import (
    LANES,
    absolute,
    fma,
    load_float32,
    max_lanes,
    maximum,
    splat,
    sum_lanes,
)
from numbatch.kernels.simd_bytes import store_rounded_int8

__all__ = ["ROWS", "QuantizedRows", "quantize_row", "quantize_rows"]

TINY = np.float32(1e-30)
"""What is smaller becomes 0: its reciprocal might be infinite."""

ROWS = 32
"""Room is made for a multiple of so many rows: what the widest product reads at a time."""

ROUND = np.float32(12582912)
"""1.5 * 2**23: added and taken away again, it rounds to the nearest whole number."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Working memory for quantized activations.

    Parameters
    ----------
    codes : int8 array, shape (rows, wide(columns))
        Zero beyond the columns.
    scales : float32 array, shape (rows, groups)
    sums : int32 array, shape (rows, groups)
        Sums of the codes of each group.
    """

    codes: np.ndarray
    scales: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, rows: int, columns: int) -> QuantizedRows:
        """Make room for at least ``rows`` rows of ``columns`` columns."""
        rows, width = -(-rows // ROWS) * ROWS, wide(columns)
        shape = (rows, -(-width // GROUP))
        return cls(
            aligned((rows, width), np.int8), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        )

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What :func:`quantize_rows` writes."""
        return self.codes, self.scales, self.sums


@cpu_device
def quantize_row(x, codes, scales, sums):
    """Quantize one row. No error check.

    Parameters
    ----------
    x : float32 array, shape (columns padded to whole vectors,)
        Zero beyond the columns.
    codes : int8 array, shape (at least as many,)
        Modified in place.
    scales : float32 array, shape (groups,)
        Modified in place; NaN where an element of the group is NaN or infinite.
    sums : int32 array, shape (groups,)
        Modified in place: sums of codes.
    """
    for group in range(scales.size):
        first = group * GROUP
        last = min(first + GROUP, x.size)
        largest = wrong = splat(np.float32(0))
        for i in range(first, last, LANES):
            value = load_float32(x, i)
            largest = maximum(absolute(value), largest)
            wrong = fma(value, splat(np.float32(0)), wrong)  # NaN for NaN and infinity
        peak = max_lanes(largest)
        if peak > TINY:
            factor = np.float32(127) / peak
        else:
            factor, peak = np.float32(0), np.float32(0)
        scales[group] = peak / np.float32(127) + sum_lanes(wrong)
        total = splat(np.float32(0))
        for i in range(first, last, LANES):
            value = load_float32(x, i) * factor
            store_rounded_int8(codes, i, value)
            total = total + ((value + ROUND) - ROUND)
        sums[group] = np.int32(sum_lanes(total))


@cpu_kernel
def quantize_rows(start, stop, x, codes, scales, sums):
    """Quantize rows ``start`` to ``stop - 1`` of x; see :func:`quantize_row`. No error check."""
    for row in range(start, stop):
        quantize_row(x[row], codes[row], scales[row], sums[row])
