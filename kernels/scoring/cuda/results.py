"""What is done with the sums of a product."""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.cuda import cuda_device
from numbatch.kernels.scoring.cuda.activation import activated
from numbatch.kernels.scoring.cuda.words import to_bfloat16

__all__ = ["ADD", "GATED", "LOGITS", "STORE", "finished", "write_result"]

STORE, ADD, LOGITS, GATED = 0, 1, 2, 3
"""What is done with a product: stored as bfloat16, added to float32, scaled, capped and stored as
float32, or activated and multiplied with that of the row ``apart`` below."""


@cuda_device
def finished(mode, value, below, code, scale, cap):
    """Return what the mode makes of the sums of a row and of the row below its gate."""
    if mode == GATED:
        return activated(code, value) * below
    if mode == LOGITS:
        value *= scale
        if cap != np.float32(0):
            value = cap * np.float32(math.tanh(value / cap))
    return value


@cuda_device(fast=True)
def write_result(mode, value, below, code, scale, cap, token, column, out, out32):
    """Do what the mode asks with the sums of a row, and with those of the row below its gate."""
    value = finished(mode, value, below, code, scale, cap)
    if mode == ADD:
        out32[token, column] += value
    elif mode == LOGITS:
        out32[token, column] = value
    else:
        out[token, column] = to_bfloat16(value)
