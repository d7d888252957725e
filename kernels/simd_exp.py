"""Powers of two and of e of 16 floats.

Base 2 saves a rounding: the factor that turns ``e**x`` into ``2**(x * factor)``, with a temperature
in it if there is one, is applied once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd import LANES, float32x16

__all__ = ["LOG2_E", "exp", "exp2", "exp2_from", "exp2_whole"]

LOG2_E = 1.4426950408889634

_INT = ir.VectorType(ir.IntType(32), LANES)
_FLOAT = ir.VectorType(ir.FloatType(), LANES)

_ROUND = 12582912.0
"""1.5 * 2**23: added to a number, it leaves the nearest integer in the low bits."""

_LEAST = -127.0
"""Here the bits of the result are all zero."""

_SERIES = (
    0.00015196693129837513,
    0.0013391304528340697,
    0.009619002230465412,
    0.055503588169813156,
    0.24022643268108368,
    0.6931471824645996,
    1.0,
)
"""2**r on [-0.5, 0.5], exact at 0; relative error 4e-9 before rounding (Remez' algorithm)."""

# Cephes' expf: exp(r) = 1 + r + r * r * P(r) for |r| <= ln(2) / 2.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def _constant(value: float) -> Any:
    return ir.Constant(_FLOAT, [value] * LANES)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_FLOAT, [_FLOAT] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _power(builder: Any, shifted: Any, rest: Any) -> Any:
    """Return 2**rest times two to the integer in the low bits of ``shifted``."""
    series = _constant(_SERIES[0])
    for factor in _SERIES[1:]:
        series = _fma(builder, series, rest, _constant(factor))
    return _scaled(builder, series, shifted)


def _scaled(builder: Any, value: Any, shifted: Any) -> Any:
    """Return ``value`` times two to the integer in the low bits of ``shifted``."""
    power = builder.shl(builder.bitcast(shifted, _INT), ir.Constant(_INT, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(value, _INT), power), _FLOAT)


@intrinsic
def exp2(typing: Any, x: Any) -> Any:
    """Return 2 to the power of each lane, for lanes below 127; within 1 unit in the last place.

    Exactly 1 at 0, exactly 0 from -127 down, less than 1.2e-38 from -126 down; NaN stays NaN.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least = _constant(_LEAST)
        x = builder.select(builder.fcmp_ordered(">", least, args[0]), least, args[0])
        shifted = builder.fadd(x, _constant(_ROUND))
        return _power(builder, shifted, builder.fsub(x, builder.fsub(shifted, _constant(_ROUND))))

    return float32x16(float32x16), generate


@intrinsic
def exp2_whole(typing: Any, x: Any) -> Any:
    """Return what ``exp2`` does of lanes that are integers up to 127, without its series."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least = _constant(_LEAST)
        x = builder.select(builder.fcmp_ordered(">", least, args[0]), least, args[0])
        return _scaled(builder, _constant(1.0), builder.fadd(x, _constant(_ROUND)))

    return float32x16(float32x16), generate


@intrinsic
def exp2_from(typing: Any, x: Any, factor: Any, whole: Any) -> Any:
    """Return ``2**(x * factor - whole)``; within 1 unit in the last place of the exact power.

    The product is not rounded (where the CPU has a fused multiply-add): an integer reference makes
    the exponent exact, where ``exp2(x * factor - whole)`` would round it twice.

    Parameters
    ----------
    x, factor, whole : float32x16
        ``whole`` are integers up to 2**21; the exponent is from -127 to 127. NaN stays NaN.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, factor, whole = args
        zero = builder.fsub(_constant(_ROUND), whole)
        shifted = _fma(builder, x, factor, zero)
        nearest = builder.fmul(builder.fsub(shifted, zero), _constant(-1.0))
        return _power(builder, shifted, _fma(builder, x, factor, nearest))

    return float32x16(float32x16, float32x16, float32x16), generate


@intrinsic
def exp(typing: Any, x: Any) -> Any:
    """Return e to the power of each lane: within 2 units in the last place, NaN stays NaN.

    0 below -87.33, where float32 has no normal number; infinity above 88.72.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = args
        shifted = _fma(builder, x, _constant(LOG2_E), _constant(_ROUND))
        whole = builder.fsub(shifted, _constant(_ROUND))
        rest = _fma(builder, whole, _constant(-_LN2_HIGH), x)
        rest = _fma(builder, whole, _constant(-_LN2_LOW), rest)
        series = _constant(_EXP[0])
        for factor in _EXP[1:]:
            series = _fma(builder, series, rest, _constant(factor))
        series = _fma(builder, series, builder.fmul(rest, rest), rest)
        value = _scaled(builder, builder.fadd(series, _constant(1.0)), shifted)
        small = builder.fcmp_ordered("<", x, _constant(-87.33))
        value = builder.select(small, _constant(0.0), value)
        large = builder.fcmp_ordered(">", x, _constant(88.72))
        value = builder.select(large, _constant(float("inf")), value)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, value)

    return float32x16(float32x16), generate
