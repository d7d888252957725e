"""Activation functions of the MLP, applied in place."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["ACTIVATIONS", "activate", "softcap"]

ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}
"""The codes that :func:`activate` takes."""


@cpu_device
def _activation(code, x):
    if code == 0:
        return x / (np.float32(1) + math.exp(-x))
    if code == 1:
        return np.float32(0.5) * x * (np.float32(1) + math.erf(x * np.float32(math.sqrt(0.5))))
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + math.tanh(inner))


@cpu_kernel
def activate(start, stop, code, gated, gate, up, width):
    """Write ``act(gate) * up`` (gated) or ``act(up)`` to ``up`` for a range of rows.

    No error check.

    Parameters
    ----------
    code : int
        From ``ACTIVATIONS``.
    gated : bool
        Whether ``gate`` is read.
    gate, up : float32 arrays, shape (rows, at least width)
        ``up`` is modified in place.
    width : int
        How many values of a row are in use.
    """
    for row in range(start, stop):
        for i in range(width):
            if gated:
                up[row, i] *= _activation(code, gate[row, i])
            else:
                up[row, i] = _activation(code, up[row, i])


@cpu_device
def softcap(x, cap):
    """``cap * tanh(x / cap)``, or ``x`` where ``cap`` is 0 (Gemma 2, arXiv 2408.00118)."""
    if cap == 0:
        return x
    return cap * math.tanh(x / cap)
