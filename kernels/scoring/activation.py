"""Activation functions of the MLP, applied in place."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import LANES, load_float32, store_float32
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.simd_sigmoid import sigmoid, sigmoid_short

__all__ = ["ACTIVATIONS", "GELU", "activate", "activate_span", "activate_vector", "softcap"]

SILU, GELU, GELU_TANH = range(3)
ACTIVATIONS = {"silu": SILU, "gelu": GELU, "gelu_tanh": GELU_TANH}
"""The codes that :func:`activate` takes."""


_sigmoid_short = sigmoid_short if simd_path() == "amx" else sigmoid


@cpu_device(inline=True)
def activate_vector(code, rounded, x):
    """Return ``act(x)`` of 16 numbers for what needs no error function: silu or gelu_tanh.

    No error check. ``rounded`` as for :func:`activate_span`.
    """
    inner = x
    if code != SILU:
        inner = x * x * np.float32(0.044715) * x + x
        # 0.5 * (1 + tanh(u)) = 1 / (1 + exp(-2 u))
        inner = inner * np.float32(2 * math.sqrt(2 / math.pi))
    return x * (_sigmoid_short(inner) if rounded else sigmoid(inner))


@cpu_device(inline=True)
def activate_span(code, gated, rounded, gate, up, at, size):
    """Write ``act(gate) * up`` (gated) or ``act(up)`` to ``up``, from flat index ``at`` on.

    No error check.

    Parameters
    ----------
    code : int
        From ``ACTIVATIONS``.
    gated : bool
        Whether ``gate`` is read.
    rounded : bool
        Whether the outputs are going to be rounded to bfloat16 or int8, so that less will do.
    gate, up : flat float32 arrays
        ``up`` is modified in place.
    at, size : int
        ``size`` is a multiple of 16.
    """
    one = np.float32(1)
    for i in range(at, at + size, LANES):
        if code != GELU:
            x = load_float32(gate, i) if gated else load_float32(up, i)
            y = activate_vector(code, rounded, x)
            store_float32(up, i, y * load_float32(up, i) if gated else y)
            continue
        for j in range(i, i + LANES):
            value = gate[j] if gated else up[j]
            half = np.float32(0.5) * value
            value = half * (one + math.erf(value * np.float32(math.sqrt(0.5))))
            up[j] = value * up[j] if gated else value


@cpu_kernel
def activate(start, stop, code, gated, gate, up):
    """Activate rows ``start`` to ``stop - 1``, whose width is padded to whole vectors.

    See :func:`activate_span`. No error check.
    """
    width = up.shape[1]
    flat_gate, flat_up = gate.reshape(gate.size), up.reshape(up.size)
    for row in range(start, stop):
        activate_span(code, gated, False, flat_gate, flat_up, row * width, width)


@cpu_device
def softcap(x, cap):
    """``cap * tanh(x / cap)``, or ``x`` where ``cap`` is 0 (Gemma 2, arXiv 2408.00118)."""
    if cap == 0:
        return x
    return cap * math.tanh(x / cap)
