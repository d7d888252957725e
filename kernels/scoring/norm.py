"""Normalisation of activations: RMS norm and layer norm.

Sums run in float64, one value after another, so their order is that of the row.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["layer_norm", "rms_norm"]


@cpu_device
def _rms_row(x, weight, epsilon, out, width):
    total = 0.0
    for i in range(width):
        total += float(x[i]) * float(x[i])
    scale = np.float32(1.0 / math.sqrt(total / width + epsilon))
    for i in range(width):
        out[i] = x[i] * scale * weight[i]


@cpu_kernel
def rms_norm(start, stop, x, weight, epsilon, out):
    """Write ``x / sqrt(mean(x**2) + epsilon) * weight`` for rows ``start`` to ``stop - 1``.

    No error check. Source: Zhang and Sennrich 2019, arXiv 1910.07467.

    Parameters
    ----------
    x, out : float32 arrays, shape (rows, at least width)
        ``out`` is modified in place up to ``width`` and may be ``x``.
    weight : float32 array, shape (width,)
    epsilon : float64
    """
    for row in range(start, stop):
        _rms_row(x[row], weight, epsilon, out[row], weight.size)


@cpu_kernel
def layer_norm(start, stop, x, weight, bias, epsilon, out):
    """Write ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` for a range of rows.

    No error check. Source: Ba et al. 2016, arXiv 1607.06450. Arguments as in :func:`rms_norm`.
    """
    width = weight.size
    for row in range(start, stop):
        mean = 0.0
        for i in range(width):
            mean += float(x[row, i])
        mean /= width
        variance = 0.0
        for i in range(width):
            variance += (float(x[row, i]) - mean) ** 2
        scale = 1.0 / math.sqrt(variance / width + epsilon)
        for i in range(width):
            out[row, i] = np.float32((float(x[row, i]) - mean) * scale) * weight[i] + bias[i]
