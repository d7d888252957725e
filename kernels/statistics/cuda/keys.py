"""Keys: whole numbers in the order of the floats, and counters of them.

Keys are those of :mod:`~numbatch.kernels.statistics.digits`; NaN, of either sign, has the greatest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import is_simulated
from numbatch.kernels.cuda.assembly import assembly

__all__ = ["COPIES", "PLACES", "count_class", "key_of"]

COPIES = 5
"""Binary logarithm of the copies of counters, one for each bank of the shared memory."""
PLACES = 16
"""Edges, and after them a mark for each."""

_I32 = ir.IntType(32)

if is_simulated():

    def key_of(x: Any) -> Any:
        """Return the key of a float32 or float64."""
        kind = np.uint32 if x.dtype == np.float32 else np.uint64
        if x != x:
            return kind(np.iinfo(kind).max)
        sign = kind(1 << 8 * x.dtype.itemsize - 1)
        bits = x.view(kind)
        return ~bits if bits & sign else bits | sign

    def count_class(place: Any, counters: Any, number: Any) -> None:
        """Add a number to a counter."""
        from numbatch.kernels.cuda import cuda

        cuda.atomic.add(counters, place, number)

else:

    @intrinsic
    def key_of(typingctx, x):
        """Return the key of a float32 or float64.

        A sum makes each NaN of float32 the one whose bits are all 1 but the sign; adding -0.0
        changes nothing else. NaN of float64 keeps its bits.
        """
        wide = x.bitwidth == 64
        narrow_template = (
            "{ .reg .f32 t; .reg .b32 b, s; add.rn.f32 t, $1, 0f80000000; mov.b32 b, t; "
            "shr.s32 s, b, 31; or.b32 s, s, 0x80000000; xor.b32 $0, b, s; }"
        )
        wide_template = (
            "{ .reg .b64 b, s; .reg .pred p; mov.b64 b, $1; shr.s64 s, b, 63; "
            "or.b64 s, s, 0x8000000000000000; xor.b64 $0, b, s; setp.nan.f64 p, $1, $1; "
            "@p mov.b64 $0, -1; }"
        )

        def emit(context, builder, signature, args):
            if wide:
                return assembly(builder, wide_template, ir.IntType(64), "=&l,d", args)
            return assembly(builder, narrow_template, _I32, "=&r,f", args)

        return (types.uint64 if wide else types.uint32)(x), emit

    @intrinsic(prefer_literal=True)
    def count_class(typingctx, place, counters, number):
        """Add a number, a literal, to a counter."""
        template = f"red.shared.add.u32 [$0], {int(number.literal_value)};"

        def emit(context, builder, signature, args):
            assembly(builder, template, ir.VoidType(), "r,~{memory}", [args[0]], effects=True)
            return context.get_dummy_value()

        return types.none(types.uint32, counters, number), emit
