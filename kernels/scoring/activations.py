"""Activations in the form that a product wants them: float32, bfloat16 or int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import bfloat16_product, int8_panels
from numbatch.kernels.scoring.bfloat16_panels import DOWN, HAS_TILES
from numbatch.kernels.scoring.quantize import quantize_row
from numbatch.kernels.simd import LANES, load_float32, splat, store_bfloat16, store_float32

__all__ = [
    "BFLOAT16",
    "COMPUTE",
    "FLOAT32",
    "INT8",
    "Activations",
    "convert_row",
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


@cpu_device
def convert_row(compute, x, at, columns, row, activations):
    """Write a row in the form of a product. No error check.

    Parameters
    ----------
    compute : int
        From ``COMPUTE``.
    x : float32 array, C-contiguous
        The row is at flat index ``at``; it is zero beyond its columns up to a whole vector.
    at, columns, row : int
    activations : tuple
        ``Activations.arrays``; modified in place.
    """
    floats, halves, codes, scales, sums = activations
    width = (columns + LANES - 1) // LANES * LANES
    if compute == FLOAT32:
        for i in range(0, width, LANES):
            store_float32(floats, row * width + i, load_float32(x, at + i))
    elif compute == BFLOAT16:
        wide = bfloat16_product.BLOCK * ((columns + 31) // 32)
        for i in range(0, width, LANES):
            to = bfloat16_product.place_of(row, i, wide)
            store_bfloat16(halves, to, load_float32(x, at + i) * UP)
        if width < wide:
            to = bfloat16_product.place_of(row, width, wide)
            store_bfloat16(halves, to, splat(np.float32(0)))
    else:
        wide = (columns + 63) // 64 * 64
        groups = (wide + int8_panels.GROUP - 1) // int8_panels.GROUP
        flat = x.reshape(x.size)
        own = codes[row * wide : (row + 1) * wide]
        own[width:] = 0
        quantize_row(
            flat[at : at + width],
            own,
            scales[row * groups : (row + 1) * groups],
            sums[row * groups : (row + 1) * groups],
        )
