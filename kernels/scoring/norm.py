"""RMS norm and layer norm of a row."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import LANES, fma, load_float32, splat, store_float32, sum_lanes

__all__ = ["layer_norm", "norm_row", "rms_norm"]


@cpu_device(inline=True)
def _sum_squares(x, at, width, mean):
    """Return the sum of ``(x - mean)**2``: whole vectors in four chains, then what is left."""
    a = b = c = d = splat(np.float32(0))
    middle = splat(mean)
    whole = width - width % (4 * LANES)
    for i in range(at, at + whole, 4 * LANES):
        u, v = load_float32(x, i) - middle, load_float32(x, i + LANES) - middle
        a, b = fma(u, u, a), fma(v, v, b)
        u, v = load_float32(x, i + 2 * LANES) - middle, load_float32(x, i + 3 * LANES) - middle
        c, d = fma(u, u, c), fma(v, v, d)
    total = np.float64(sum_lanes((a + b) + (c + d)))
    for i in range(at + whole, at + width):
        total += np.float64(x[i] - mean) ** 2
    return total


@cpu_device(inline=True)
def _scale_row(x, at, mean, scale, weight, bias, out, to):
    """Write ``(x - mean) * scale * weight + bias``."""
    width = weight.size
    whole = width - width % LANES
    for i in range(0, whole, LANES):
        value = (load_float32(x, at + i) - mean) * scale * load_float32(weight, i)
        if bias.size:
            value = value + load_float32(bias, i)
        store_float32(out, to + i, value)
    for i in range(whole, width):
        value = (x[at + i] - mean) * scale * weight[i]
        if bias.size:
            value += bias[i]
        out[to + i] = value


@cpu_device(inline=True)
def norm_row(x, at, weight, bias, epsilon, out, to):
    """Norm one row: a layer norm where there is a bias, else an RMS norm. No error check.

    RMS norm: ``x / sqrt(mean(x**2) + epsilon) * weight`` (Zhang and Sennrich 2019, arXiv
    1910.07467). Layer norm: ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` (Ba et al.
    2016, arXiv 1607.06450).

    Parameters
    ----------
    x, out : flat float32 arrays
        The row is at index ``at``. ``out`` is modified in place from ``to`` on, up to ``width``
        numbers, and may be ``x``.
    at, to : int
    weight : float32 array, shape (width,)
    bias : float32 array, shape (width,) or (0,)
    epsilon : float64
    """
    width = weight.size
    mean = np.float32(0)
    if bias.size:
        total = 0.0
        for i in range(at, at + width):
            total += np.float64(x[i])
        mean = np.float32(total / width)
    scale = np.float32(1.0 / math.sqrt(_sum_squares(x, at, width, mean) / width + epsilon))
    _scale_row(x, at, mean, scale, weight, bias, out, to)


@cpu_device
def _norm_rows(start, stop, x, weight, bias, epsilon, out):
    flat, flat_out = x.reshape(x.size), out.reshape(out.size)
    for row in range(start, stop):
        at, to = row * x.shape[1], row * out.shape[1]
        norm_row(flat, at, weight, bias, epsilon, flat_out, to)


@cpu_kernel
def rms_norm(start, stop, x, weight, epsilon, out):
    """RMS norm of rows ``start`` to ``stop - 1``; see :func:`norm_row`. No error check."""
    _norm_rows(start, stop, x, weight, weight[:0], epsilon, out)


@cpu_kernel
def layer_norm(start, stop, x, weight, bias, epsilon, out):
    """Layer norm of rows ``start`` to ``stop - 1``; see :func:`norm_row`. No error check."""
    _norm_rows(start, stop, x, weight, bias, epsilon, out)
