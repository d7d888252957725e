"""Sketches on the device: magnitudes near the greatest find their buckets by float32 arithmetic.

A bucket is the whole part of a cubic in the mantissa's bits, times a scale. In float32 that is
right but for values near the beginning of a bucket, whose place says so
(:mod:`~numbatch.kernels.statistics.cuda.fixed_places`); they, and all that are not in the window,
are looked at again as the CPU does. A table of leading bits took as many instructions, and its
look-ups waited for one another in the shared memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel, is_simulated
from numbatch.kernels.cuda.assembly import assembly
from numbatch.kernels.statistics.cuda.counters import (
    COUNT_THREADS,
    SHARED_COUNTERS,
    clear,
)
from numbatch.kernels.statistics.cuda.fixed_places import FixedPlaces, fixed_places, whole_place
from numbatch.kernels.statistics.cuda.sketch import bucket_of, special_of
from numbatch.kernels.statistics.cuda.strides import REGISTERS, pass_over
from numbatch.kernels.statistics.sketch import SPECIAL_COUNTS, A, B, C

__all__ = ["SketchWindow", "window_below", "window_kernel"]

SPECIAL_COPIES = 5
"""Binary logarithm of the copies of the counters of what has no bucket."""
ROOM = SHARED_COUNTERS - (SPECIAL_COUNTS << SPECIAL_COPIES)
FEWEST_OCTAVES, MOST_OCTAVES = 16, 24
A32, B32, C32 = np.float32(A), np.float32(B), np.float32(C)
ONE32 = np.float32(1)
FRACTION, ONE_BITS = np.uint32(0x007FFFFF), np.uint32(0x3F800000)
WHOLE, WHOLE_BITS = 1 << 23, np.uint32(0x4B000000)
"""A float32 whose last bit is worth 1, and its bits."""
BEYOND = {np.dtype(np.float32): 1023 - 127, np.dtype(np.float64): 0}
"""By how much a float64's biased exponent is the greater."""
LAST_EXPONENT = {np.dtype(np.float32): 254, np.dtype(np.float64): 2046}


class SketchWindow(NamedTuple):
    """The magnitudes whose buckets are counted in shared memory."""

    bottom: int
    """The least biased exponent, of the values' dtype."""
    base: int
    """The bucket in which it begins."""
    buckets: int
    start: float
    """Where in its bucket it begins."""
    places: FixedPlaces


def window_below(greatest: float, scale: float, dtype: np.dtype) -> SketchWindow | None:
    """Return the window of magnitudes up to some times ``greatest``, or None if it is too small.

    Parameters
    ----------
    greatest : float
        Of the greatest magnitudes, finite.
    scale : float
        Buckets for each doubling of the magnitude.
    dtype : dtype
        The values'.
    """
    octaves = min(int((ROOM // 2 - 2) / scale), MOST_OCTAVES)
    if octaves < FEWEST_OCTAVES or greatest == 0:
        return None
    beyond = BEYOND[dtype]
    exponent = int(np.frexp(greatest)[1]) + 1022 - beyond
    top = min(exponent + 4, LAST_EXPONENT[dtype])
    bottom = max(top - octaves, 1)
    begin = (bottom + beyond - 1.0) * scale
    buckets = int((top - bottom) * scale) + 2
    # Roundings of the scale and of the logarithm, half a step of the window's end each.
    margin = 2 * float(np.finfo(np.float32).eps) * buckets
    places = fixed_places(buckets, np.dtype(np.float32), margin)
    return SketchWindow(bottom, int(begin), buckets, begin - int(begin), places)


if is_simulated():

    def add_if_negative(x: Any, place: Any, more: Any) -> Any:
        """Return a place, with ``more`` added where a value is negative."""
        return np.uint32(place + more) if x < 0 else place

else:

    @intrinsic
    def add_if_negative(typingctx, x, place, more):
        """Return a place, with ``more`` added where a value is negative.

        The compiler made three operations of this, here it is two of the 27 that a value took.
        """
        kind, letter = ("f32", "f") if x.bitwidth == 32 else ("f64", "d")
        zero = "0f00000000" if x.bitwidth == 32 else "0d0000000000000000"
        template = (
            f"{{ .reg .pred p; setp.lt.{kind} p, $1, {zero}; mov.u32 $0, $2; "
            "@p add.u32 $0, $2, $3; }"
        )

        def emit(context, builder, signature, args):
            return assembly(builder, template, ir.IntType(32), f"=&r,{letter},r,r", args)

        return types.uint32(x, types.uint32, types.uint32), emit


def _parts_of(kind: Any) -> Any:
    """Make the function that takes a number of a dtype apart."""
    narrow = kind == np.float32

    @cuda_device
    def parts_of(x):
        """Return biased exponent, and mantissa as a float32 from 1 on, cut off."""
        if narrow:
            bits = np.uint32(x.view(np.uint32))
            exponent = np.uint32(np.uint32(bits >> np.uint32(23)) & np.uint32(0xFF))
        else:
            wide = np.uint64(x.view(np.uint64))
            exponent = np.uint32(np.uint32(wide >> np.uint64(52)) & np.uint32(0x7FF))
            bits = np.uint32(wide >> np.uint64(29))
        return exponent, np.uint32(np.uint32(bits & FRACTION) | ONE_BITS).view(np.float32)

    return parts_of


def window_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype."""
    parts_of, place_of = _parts_of(kind), whole_place

    @cuda_device
    def find(x, given):
        _, _, _, below, scale, start, first, layout, copy, _ = given
        whole, near, span, _, buckets, several, unread = layout
        exponent, mantissa = parts_of(kind(x))
        s = np.float32(mantissa - ONE32)
        octave = np.float32(np.uint32(exponent | WHOLE_BITS).view(np.float32) - below)
        logarithm = np.float32(((A32 * s + B32) * s + C32) * s + octave)
        moved = np.float32(logarithm * scale + start)
        distance = np.uint32(moved.view(np.uint32) - first)
        place, again = place_of(distance, whole, near)
        again = again | (distance >= span)
        place = add_if_negative(kind(x), place, buckets)
        # A counter that nobody reads, so that no thread branches.
        place = unread if again else place
        return np.uint32(np.uint32(place * several) + copy), np.uint32(again)

    @cuda_device
    def count(place, given):
        cuda.atomic.add(given[0], place, np.int32(1))

    @cuda_device
    def look_again(x, given):
        """Count a value that is near the beginning of a bucket, or not in the window."""
        counters, counts, exact, _, _, _, _, layout, copy, lane = given
        _, _, _, base, buckets, several, _ = layout
        wide = np.float64(x)
        key, negative = bucket_of(wide, exact), np.int64(wide < 0.0)
        if base <= key < base + np.int64(buckets):
            place = np.uint32(key - base) + np.uint32(np.uint32(negative) * buckets)
            cuda.atomic.add(counters, np.uint32(np.uint32(place) * several) + copy, np.int32(1))
        elif key >= 0:
            cuda.atomic.add(counts, negative * (counts.size // 2) + key, np.int64(1))
        else:
            place = (special_of(wide) << SPECIAL_COPIES) | lane
            cuda.atomic.add(counters, ROOM + place, np.int32(1))

    over = pass_over(kind, find, count, look_again)

    @cuda_kernel(registers=REGISTERS)
    def count_in_window(
        values, first, scale, bottom, start, origin, whole, near, base, buckets, copies,
        counts, special,
    ):  # fmt: skip
        """Add the values to the buckets of their magnitudes; no error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[first:]`` begins at a multiple of 16 bytes.
        first : int
        scale : float64
            As the CPU's sketch has it.
        bottom : int
        start : float32
        origin : float32
        whole, near : uint32
        base : int
        buckets : uint32
            As :class:`SketchWindow` and its places have them.
        copies : uint32
            Of the counters the binary logarithm.
        counts : int64 array, shape (2 * all buckets,)
            Modified in place: of positive values, of negative values.
        special : int64 array, shape (4,)
            Modified in place: zero, inf, -inf, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        clear(counters)
        several = np.uint32(np.uint32(1) << copies)
        copy = np.uint32(cuda.threadIdx.x) & np.uint32(several - np.uint32(1))
        # Bits of the window's first place and of its last, less the former: no place is clamped.
        zero = np.uint32(np.uint32(origin.view(np.uint32) >> whole) << whole)
        layout = (
            whole, near, np.uint32(buckets << whole), base, buckets, several,
            np.uint32(buckets + buckets),
        )  # fmt: skip
        given = (
            counters, counts, scale, np.float32(WHOLE + bottom), np.float32(scale),
            np.float32(origin + start), zero, layout, copy, cuda.threadIdx.x & 31,
        )  # fmt: skip
        over(values, first, given)
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < 2 * np.int64(buckets):
            total = np.int64(0)
            for k in range(1 << np.int64(copies)):
                total += counters[(i << np.int64(copies)) + k]
            if total > 0:
                half = counts.size // 2 if i >= buckets else 0
                cuda.atomic.add(counts, half + base + i % np.int64(buckets), total)
            i += COUNT_THREADS
        if cuda.threadIdx.x < SPECIAL_COUNTS:
            total = np.int64(0)
            for k in range(1 << SPECIAL_COPIES):
                total += counters[ROOM + (cuda.threadIdx.x << SPECIAL_COPIES) + k]
            cuda.atomic.add(special, cuda.threadIdx.x, total)

    return count_in_window
