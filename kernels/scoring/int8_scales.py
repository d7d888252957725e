"""What every int8 product does with the exact sums of a block of 32 columns."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.bfloat16_product import store_output
from numbatch.kernels.simd import LANES, fma, load_float32, splat, splat_at, to_float32
from numbatch.kernels.simd_halves import load_half

__all__ = ["LOW", "load_scales", "scale_sums", "store_halves"]

LOW = 0x0F0F0F0F
"""The low half bytes of a word."""


@cpu_device(inline=True)
def load_scales(data, block, half, bits):
    """Return the scales of half a panel's rows, and their least weights."""
    if bits == 4:
        at = block + 512 + 32 * half
        return load_half(data, at), load_half(data, at + 64)
    return load_float32(data, block + 1024 + 64 * half), splat(np.float32(0))


@cpu_device(inline=True)
def scale_sums(factors, place, bits, sums, total, scales):
    """Add a row's scaled sums of a block and half a panel to its totals."""
    total = fma(to_float32(sums) * splat_at(factors, 2 * place), scales[0], total)
    if bits == 4:
        total = fma(scales[1], splat_at(factors, 2 * place + 1), total)
    return total


@cpu_device(inline=True)
def store_halves(out, to, a, b, two, bias, n, add):
    """Write a row's outputs of a panel, or of its first half."""
    store_output(out, to, a, bias, n, add)
    if two:
        store_output(out, to + LANES, b, bias, n + LANES, add)
