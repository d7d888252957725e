"""Exponentials of 8 float64 numbers that are not positive, such as differences from a greatest one.

Only additions, multiplications and bits are used, each rounded as it stands, so the result is the
same on every CPU. Within 2 units of the last place; sums take a quarter of the time that they take
with a scalar ``exp``.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd64 import LANES64, fill, float64x8

__all__ = ["LEAST", "exp_below_zero"]

LEAST = -707.0
"""Of lesser numbers the result is 0: it would be near the least that float64 holds in full."""

_LOG2_E = 1.4426950408889634
_ROUND = 6755399441055744.0
"""1.5 * 2**52: added to a number, it leaves the nearest integer in the low bits."""

_LN2_HIGH, _LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6
"""ln(2) in two parts; the first has few enough digits to be multiplied exactly (Cephes)."""

_TERMS = tuple(1.0 / math.factorial(power) for power in range(13, -1, -1))
"""Of the exponential series: at ln(2) / 2 what is left out is a tenth of the last place."""

_DOUBLE = ir.VectorType(ir.DoubleType(), LANES64)
_WORDS = ir.VectorType(ir.IntType(64), LANES64)


@intrinsic
def _scale(typing: Any, value: Any, shifted: Any, x: Any) -> Any:
    """Return ``value`` times two to the integer in the low bits of ``shifted``; 0 below LEAST."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, shifted, x = args
        power = builder.shl(builder.bitcast(shifted, _WORDS), ir.Constant(_WORDS, [52] * LANES64))
        scaled = builder.bitcast(builder.add(builder.bitcast(value, _WORDS), power), _DOUBLE)
        inside = builder.fcmp_ordered(">=", x, ir.Constant(_DOUBLE, [LEAST] * LANES64))
        return builder.select(inside, scaled, ir.Constant(_DOUBLE, [0.0] * LANES64))

    return float64x8(float64x8, float64x8, float64x8), generate


@cpu_device(inline=True)
def exp_below_zero(x):
    """Return ``exp`` of each lane, which is at most 0; 0 of NaN and of -inf."""
    shifted = x * _LOG2_E + _ROUND
    whole = shifted - _ROUND
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = fill(_TERMS[0])
    for term in range(1, len(_TERMS)):
        series = series * rest + _TERMS[term]
    return _scale(series, shifted, x)
