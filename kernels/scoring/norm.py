"""RMS norm and layer norm of a row."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import LANES, fma, load_float32, splat, store_float32, sum_lanes

__all__ = ["layer_norm", "norm_row", "rms_norm"]


@cpu_device
def _sum_squares(x, width, mean):
    """Return the sum of ``(x - mean)**2``: whole vectors in four chains, then what is left."""
    a = b = c = d = splat(np.float32(0))
    middle = splat(mean)
    whole = width - width % (4 * LANES)
    for i in range(0, whole, 4 * LANES):
        u, v = load_float32(x, i) - middle, load_float32(x, i + LANES) - middle
        a, b = fma(u, u, a), fma(v, v, b)
        u, v = load_float32(x, i + 2 * LANES) - middle, load_float32(x, i + 3 * LANES) - middle
        c, d = fma(u, u, c), fma(v, v, d)
    total = float(sum_lanes((a + b) + (c + d)))
    for i in range(whole, width):
        total += float(x[i] - mean) ** 2
    return total


@cpu_device
def _scale_row(x, mean, scale, weight, bias, out):
    """Write ``(x - mean) * scale * weight + bias``."""
    width = weight.size
    whole = width - width % LANES
    for i in range(0, whole, LANES):
        value = (load_float32(x, i) - mean) * scale * load_float32(weight, i)
        if bias.size:
            value = value + load_float32(bias, i)
        store_float32(out, i, value)
    for i in range(whole, width):
        value = (x[i] - mean) * scale * weight[i]
        if bias.size:
            value += bias[i]
        out[i] = value


@cpu_device
def norm_row(x, weight, bias, epsilon, out):
    """Norm one row: a layer norm where there is a bias, else an RMS norm. No error check.

    RMS norm: ``x / sqrt(mean(x**2) + epsilon) * weight`` (Zhang and Sennrich 2019, arXiv
    1910.07467). Layer norm: ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` (Ba et al.
    2016, arXiv 1607.06450).

    Parameters
    ----------
    x, out : float32 arrays, shape (at least width,), C-contiguous
        ``out`` is modified in place up to ``width`` and may be ``x``.
    weight : float32 array, shape (width,)
    bias : float32 array, shape (width,) or (0,)
    epsilon : float64
    """
    width = weight.size
    mean = np.float32(0)
    if bias.size:
        total = 0.0
        for i in range(width):
            total += float(x[i])
        mean = np.float32(total / width)
    scale = np.float32(1.0 / math.sqrt(_sum_squares(x, width, mean) / width + epsilon))
    _scale_row(x, mean, scale, weight, bias, out)


@cpu_kernel
def rms_norm(start, stop, x, weight, epsilon, out):
    """RMS norm of rows ``start`` to ``stop - 1``; see :func:`norm_row`. No error check."""
    for row in range(start, stop):
        norm_row(x[row], weight, weight[:0], epsilon, out[row])


@cpu_kernel
def layer_norm(start, stop, x, weight, bias, epsilon, out):
    """Layer norm of rows ``start`` to ``stop - 1``; see :func:`norm_row`. No error check."""
    for row in range(start, stop):
        norm_row(x[row], weight, bias, epsilon, out[row])
