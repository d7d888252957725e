"""Places of values among many as numbers of fixed point, from one fused product and sum.

Added to a power of two whose last bit is worth ``2**-fraction``, a place has its whole part in some
bits of the sum and its fraction in the ones below. A fraction within a margin of a whole number
says that rounding may have moved the value to a neighbour: such values are looked at again. The
margin is added to all, so that these fractions begin with zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numbatch.kernels.cuda import cuda_device

__all__ = ["FixedPlaces", "fixed_places", "place_in", "whole_place"]


class FixedPlaces(NamedTuple):
    """How places below ``2**bits`` lie in the last 32 bits of a sum."""

    origin: Any
    """A float of the values' dtype: the sum of place 0."""
    whole: Any
    """uint32. That many bits are a place's fraction, ..."""
    mask: Any
    """... and these, moved down by them, its whole part."""
    near: Any
    """uint32. The bits of the fraction that are all 0 near a whole number."""


def fixed_places(places: int, dtype: np.dtype, margin: float) -> FixedPlaces:
    """Return how to tell as many places apart.

    Parameters
    ----------
    places : int
    dtype : dtype
        float32 or float64.
    margin : float
        How far from a whole number a place may be wrong, beside two roundings of the sum.
    """
    bits = places.bit_length()
    mantissa = np.finfo(dtype).nmant
    fraction = min(mantissa - bits, 32 - bits)
    step = 2.0**-fraction
    # A power of two as far to both sides; 1 where all fractions are near.
    steps = int(np.ceil(min(margin / step, 2.0**fraction)))
    near = min((steps + 1).bit_length() + 1, fraction)
    origin = 2.0 ** (mantissa - fraction) + 2.0 ** (near - 1) * step
    return FixedPlaces(
        dtype.type(origin), np.uint32(fraction), np.uint32((1 << bits) - 1),
        np.uint32((1 << fraction) - (1 << near)),
    )  # fmt: skip


@cuda_device
def whole_place(word, whole, near):
    """Return the whole part of a place, and whether it is near a whole number."""
    return np.uint32(word >> whole), np.uint32(word & near) == np.uint32(0)


def place_in(kind: Any) -> Any:
    """Make the function that reads a sum of a dtype, with all of a place's bits in ``mask``."""
    bits = np.uint32 if kind == np.float32 else np.uint64

    @cuda_device
    def place_of(moved, whole, mask, near):
        """Return the whole part of a place, and whether it is near a whole number."""
        place, again = whole_place(
            np.uint32(kind(moved).view(bits) & bits(0xFFFFFFFF)), whole, near
        )
        return np.uint32(place & mask), again

    return place_of
