"""Activations in the form that a product wants them: float32, bfloat16 or int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import int8_panels
from numbatch.kernels.scoring.bfloat16_product import place_of
from numbatch.kernels.scoring.bfloat16_unpack import DOWN, HAS_TILES
from numbatch.kernels.scoring.quantize import quantize_row
from numbatch.kernels.simd import LANES, load_float32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import store_bfloat16

__all__ = [
    "BFLOAT16",
    "COMPUTE",
    "FLOAT32",
    "INT8",
    "Activations",
    "columns_together",
    "convert_row",
    "convert_span",
    "default_compute",
]

FLOAT32, BFLOAT16, INT8 = 0, 1, 2
COMPUTE = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
"""The arithmetic of products by name."""


def default_compute() -> str:
    """Return the arithmetic that is used if nobody says otherwise.

    The fastest whose perplexity is within 0.5 % of float32's: bfloat16 where there are tiles.
    """
    return "bfloat16" if HAS_TILES else "float32"


UP = np.float32(1 / DOWN)

TILE_ROWS = 32
"""Products read rows by so many: room is made for a multiple."""


@dataclass(frozen=True, slots=True)
class Activations:
    """Room for the inputs of a product: up to so many rows and columns, in one form.

    Parameters
    ----------
    numbers : flat float32, uint16 (bfloat16) or int8 arrays
        One of the three is in use, the others have no elements. Row ``m`` begins at ``m`` times the
        columns, rounded up as the form needs.
    scales, sums : flat float32 and int32 arrays
        Of int8.
    """

    floats: np.ndarray
    halves: np.ndarray
    codes: np.ndarray
    scales: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, compute: int, rows: int, columns: int) -> Activations:
        """Make room for ``rows`` rows of up to ``columns`` columns."""
        rows = -(-rows // TILE_ROWS) * TILE_ROWS
        size = rows * int8_panels.wide(columns)  # the widest of the three
        groups = rows * -(-columns // int8_panels.GROUP)
        return cls(
            aligned((size if compute == FLOAT32 else 0,), np.float32),
            aligned((size if compute == BFLOAT16 else 0,), np.uint16),
            aligned((size if compute == INT8 else 0,), np.int8),
            aligned((groups if compute == INT8 else 0,), np.float32),
            aligned((groups if compute == INT8 else 0,), np.int32),
        )

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All five arrays."""
        return self.floats, self.halves, self.codes, self.scales, self.sums


@cpu_device(inline=True)
def convert_span(compute, x, at, row, first, size, columns, activations):
    """Write some columns of a row in the form of a product. No error check.

    Parameters
    ----------
    compute : int
        From ``COMPUTE``.
    x : flat float32 array
        The columns are at index ``at`` and after; beyond the row's last up to a whole vector are
        zeros.
    at, row : int
    first, size : int
        Which columns: ``first`` is a multiple of :func:`columns_together`, and so is ``size`` but
        for the last columns of the row.
    columns : int
        Of the row.
    activations : tuple
        ``Activations.arrays``; modified in place.
    """
    floats, halves, codes, scales, sums = activations
    width = (columns + LANES - 1) // LANES * LANES
    last = min(first + size, width)
    if compute == FLOAT32:
        for i in range(first, last, LANES):
            store_float32(floats, row * width + i, load_float32(x, at + i - first))
    elif compute == BFLOAT16:
        wide = (columns + 31) // 32 * 32
        for i in range(first, last, LANES):
            store_bfloat16(halves, place_of(row, i, wide), load_float32(x, at + i - first) * UP)
        if last == width and width < wide:
            store_bfloat16(halves, place_of(row, width, wide), splat(np.float32(0)))
    else:
        _quantize_span(x, at, row, first, last, width, codes, scales, sums)


@cpu_device(inline=True)
def convert_row(compute, x, at, row, columns, activations):
    """Write a whole row; see :func:`convert_span`."""
    convert_span(compute, x, at, row, 0, columns + LANES, columns, activations)


@cpu_device
def _quantize_span(x, at, row, first, last, width, codes, scales, sums):
    wide = (width + 63) // 64 * 64
    groups = (wide + int8_panels.GROUP - 1) // int8_panels.GROUP
    own = codes[row * wide : (row + 1) * wide]
    own[width:] = 0
    some = slice(
        row * groups + first // int8_panels.GROUP,
        row * groups + (last + int8_panels.GROUP - 1) // int8_panels.GROUP,
    )
    quantize_row(x[at : at + last - first], own[first:], scales[some], sums[some])


@cpu_device(inline=True)
def columns_together(compute):
    """Return how many columns at a time :func:`convert_span` needs."""
    return int8_panels.GROUP if compute == INT8 else 2 * LANES
