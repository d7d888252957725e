"""Powers of e in float64, from a table and a short polynomial; float32 differences in PTX.

A difference is a whole number of steps, of which a doubling has ``ENTRIES``, and a rest. The steps
below a doubling are looked up, doublings go to the exponent, and the rest is a polynomial's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, elements
from numbatch.kernels.scoring.cuda.tiles import shared_address
from numbatch.kernels.statistics.cuda.sums import THREADS

__all__ = ["TABLE", "fill_table", "power_adder", "table_of"]

ENTRIES = 128
COPIES = 16
"""Of the table, one for each pair of the shared memory's banks, so that no thread waits."""
TABLE = ENTRIES * COPIES
STEP = math.log(2.0) / ENTRIES
SHIFT = 13
"""From the bits above an entry's number to a float64's exponent, in its upper half."""
LOW_HALF = np.uint64(0xFFFFFFFF)
NOTHING = -650.0
"""A difference whose power is nothing beside a sum of at least 1; lesser ones count as it."""

HALF = STEP / 2
C4, C3 = 1 / 24, 1 / 6 + 5 / 4 * HALF**2 / 120
C1 = 1 - 5 / 16 * HALF**4 / 120
"""Of exp up to HALF; the fifth power is left out, but for what the lower ones can say of it."""

# Added to a number, they leave the nearest whole number in the low bits.
SHIFTER, WIDE_SHIFTER = 1.5 * 2.0**23, 1.5 * 2.0**52
# A float64 whose low half are the bits of a sum with SHIFTER is as much more than this as that.
WHOLE = float(np.uint64((0x433 << 52) + int(np.float32(SHIFTER).view(np.uint32))).view(np.float64))


@cuda_device
def _entry(i):
    """Return 2 to the power of ``i`` ENTRIES-ths, less what ``i`` adds in a power."""
    bits = np.float64(math.exp(i * STEP)).view(np.int64)
    return np.uint64(np.int64(bits) - (np.int64(i) << (32 + SHIFT)))


@cuda_device
def fill_table(table):
    """Write the table; all threads of a block call."""
    i = np.int32(cuda.threadIdx.x)
    while i < ENTRIES:
        table[i * COPIES] = _entry(i)
        i += THREADS
    cuda.syncthreads()
    i = np.int32(cuda.threadIdx.x)
    while i < TABLE:  # neighbours write to neighbours, in no bank twice
        entry = table[i & np.int32(-COPIES)]
        if i & np.int32(COPIES - 1):
            table[i] = entry
        i += THREADS
    cuda.syncthreads()


@cuda_device
def _wide_power(x, given, total):
    """Add the power of a float64 to a sum; ``given`` as :func:`table_of` returns it."""
    table, copy, reference, _, _ = given
    near = max(reference + NOTHING, x)  # that of NaN is the former
    d = near - reference
    moved = d * (1 / STEP) + WIDE_SHIFTER
    n = np.uint32(moved.view(np.uint64) & LOW_HALF)
    rest = d - (moved - WIDE_SHIFTER) * STEP
    tail = 1.0 + rest * (C1 + rest * (0.5 + rest * (C3 + rest * C4)))
    place = np.uint32(np.uint32(n * np.uint32(COPIES)) & np.uint32(TABLE - COPIES)) | copy
    bits = table[np.uintp(place)]
    # Whole powers of two go to the exponent, in a float64's upper half; the rest is in the entry.
    high = np.uint32(np.uint32(bits >> np.uint64(32)) + np.uint32(n * np.uint32(1 << SHIFT)))
    power = np.uint64((np.uint64(high) << np.uint64(32)) | (bits & LOW_HALF)).view(np.float64)
    return total + power * tail


@cuda_device
def _wide_add(x, given, state):
    total, greatest, strange = state
    return _wide_power(x, given, total), max(greatest, x), strange | (x != x)


def _hex(x: float) -> str:
    """Return a float64 as PTX has it."""
    return f"0d{int(np.float64(x).view(np.uint64)):016X}"


def _narrow(x: float) -> str:
    return f"0f{int(np.float32(x).view(np.uint32)):08X}"


# What is added: the largest of x and the least that counts, as a float32 difference, whose rounding
# does not matter for the steps; then the difference in float64, less the steps.
_POWER = (
    "{ .reg .f32 m, t; .reg .u32 n, a, lo, hi; .reg .f64 w, s, r, q; "
    "max.f32 m, $2, $4; sub.f32 t, m, $5; "
    f"fma.rn.f32 t, t, {_narrow(1 / STEP)}, {_narrow(SHIFTER)}; mov.b32 n, t; "
    f"and.b32 a, n, {ENTRIES - 1}; mad.lo.u32 a, a, {8 * COPIES}, $7; "
    f"ld.shared.v2.u32 {{lo, hi}}, [a]; mad.lo.u32 hi, n, {1 << SHIFT}, hi; "
    "cvt.f64.f32 w, m; sub.rn.f64 w, w, $6; mov.b64 s, {n, 0x43300000}; "
    f"sub.rn.f64 s, s, {_hex(WHOLE)}; fma.rn.f64 r, s, {_hex(-STEP)}, w; "
    f"fma.rn.f64 q, r, {_hex(C4)}, {_hex(C3)}; fma.rn.f64 q, q, r, {_hex(0.5)}; "
    f"fma.rn.f64 q, q, r, {_hex(C1)}; fma.rn.f64 q, q, r, {_hex(1.0)}; "
    "mov.b64 s, {lo, hi}; fma.rn.f64 $0, s, q, $3; max.NaN.f32 $1, $8, $2; }"
)

if is_simulated():

    def _narrow_add(x: Any, given: Any, state: Any) -> Any:
        table, copy, _, _, wide = given
        total, greatest, strange = state
        total = _wide_power(np.float64(x), (table, copy, wide, None, None), total)
        return total, max(greatest, x), strange | (x != x)

    def table_of(table: Any, copy: Any, reference: Any) -> Any:
        """Return what adders need of a table and a reference."""
        return table, copy, reference, None, np.float64(reference)

else:

    @cuda_device
    def table_of(table, copy, reference):
        """Return what adders need of a table, of which ``copy`` is used, and a reference."""
        own = np.uint32(shared_address(table) + np.uint32(copy << np.uint32(3)))
        return table, copy, reference, own, np.float64(reference)

    @intrinsic
    def _powers(typingctx, x, total, least, reference, wide, own, greatest):
        """Return a sum with a power added, and the greatest so far; NaN where one was NaN."""

        def emit(context, builder, signature, args):
            x, total, least, reference, wide, own, greatest = args
            result = ir.LiteralStructType([ir.DoubleType(), ir.FloatType()])
            operands = [x, total, least, reference, wide, own, greatest]
            made = assembly(builder, _POWER, result, "=&d,=&f,f,d,f,f,d,r,f", operands)
            return context.make_tuple(builder, signature.return_type, elements(builder, made, 2))

        pair = types.Tuple((types.float64, types.float32))
        return pair(x, total, least, reference, wide, own, greatest), emit

    @cuda_device
    def _narrow_add(x, given, state):
        _, _, reference, own, wide = given
        total, greatest, _ = state
        least = np.float32(reference + np.float32(NOTHING))
        total, greatest = _powers(x, total, least, reference, wide, own, greatest)
        return total, greatest, greatest != greatest


def power_adder(kind: Any) -> Any:
    """Return the function that adds the power of a value to a state.

    ``add(x, given, state)``: ``given`` is what :func:`table_of` returns, the state a sum, the
    greatest value, and whether there are NaN; the greatest may be NaN then. Right within a few
    units of the last place.
    """
    return _narrow_add if kind == np.float32 else _wide_add
