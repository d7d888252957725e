"""Activations in the form that a product wants them: float32, bfloat16 or int8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import place_of
from numbatch.kernels.scoring.bfloat16_unpack import DOWN, HAS_TILES
from numbatch.kernels.scoring.int8_panels import BLOCK
from numbatch.kernels.scoring.quantize import keep_rest, quantize_row
from numbatch.kernels.simd import LANES, load_float32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import store_bfloat16
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "ATTENTION_TERMS",
    "BFLOAT16",
    "COMPUTE",
    "FLOAT32",
    "INT8",
    "Activations",
    "convert_row",
    "convert_span",
    "convert_terms",
    "default_compute",
]

FLOAT32, BFLOAT16, INT8 = 0, 1, 2
COMPUTE = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
"""The arithmetic of products by name."""


ATTENTION_TERMS = 2
"""Terms of int8 that what queries, keys and values are made of is the sum of.

Values take both, queries and keys the first. Perplexity of SmolLM2 on Python's documentation is
0.55 % above float32's with one term for all three, 0.38 % with two for queries and keys alone, 0.35
% with two for values alone and 0.33 % with two for all, which takes 7 % longer. (English 0.40 with
two for queries and keys, 0.20 for values, 0.21 for all; of 55 languages 0.47, 0.26 and 0.12.)
"""


def default_compute() -> str:
    """Return the arithmetic that is used if nobody says otherwise.

    The fastest whose perplexity is within 0.5 % of float32's: bfloat16 where there are tiles, else
    int8 (0.35 %), 2.9 times as fast as float32 with AVX-512; with AVX2 1.5 times, before products
    of bytes took half the time.
    """
    if HAS_TILES:
        return "bfloat16"
    return "float32" if simd_path() == "portable" else "int8"


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
    factors, sums : flat float32 and int32 arrays
        Of int8; see ``quantize.quantize_row``.
    """

    floats: np.ndarray
    halves: np.ndarray
    codes: np.ndarray
    factors: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, compute: int, rows: int, columns: int, terms: int = 1) -> Activations:
        """Make room for ``rows`` rows of up to ``columns`` columns, in int8 of so many terms."""
        rows, blocks = -(-rows // TILE_ROWS) * TILE_ROWS, -(-columns // BLOCK)
        size, parts = rows * blocks * BLOCK, rows * blocks * terms if compute == INT8 else 0
        return cls(
            aligned((size if compute == FLOAT32 else 0,), np.float32),
            aligned((size if compute == BFLOAT16 else 0,), np.uint16),
            aligned((parts * BLOCK,), np.int8),
            aligned((2 * parts,), np.float32),
            aligned((parts,), np.int32),
        )

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All five arrays."""
        return self.floats, self.halves, self.codes, self.factors, self.sums


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
        Which columns: ``first`` is a multiple of 32, and so is ``size`` but for the last columns of
        the row.
    columns : int
        Of the row.
    activations : tuple
        ``Activations.arrays``; modified in place.
    """
    floats, halves, codes, factors, sums = activations
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
        place = row * ((columns + BLOCK - 1) // BLOCK) + first // BLOCK
        quantize_row(x, at, last - first, codes, place * BLOCK, factors, sums, place)


@cpu_device(inline=True)
def convert_row(compute, x, at, row, columns, activations):
    """Write a whole row; see :func:`convert_span`."""
    convert_span(compute, x, at, row, 0, columns + LANES, columns, activations)


@cpu_device(inline=True)
def convert_terms(compute, terms, x, at, row, columns, activations):
    """Write a whole row; in int8 of so many terms, where ``x`` keeps what the last one leaves."""
    if compute == INT8 and terms > 1:
        _, _, codes, factors, sums = activations
        blocks, width = (columns + BLOCK - 1) // BLOCK, (columns + LANES - 1) // LANES * LANES
        for term in range(terms):
            place = (row * terms + term) * blocks
            quantize_row(x, at, width, codes, place * BLOCK, factors, sums, place)
            keep_rest(x, at, width, codes, place * BLOCK, factors, place)
    else:
        convert_row(compute, x, at, row, columns, activations)
