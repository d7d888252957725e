"""Eight values of a thread at a time, whose loads are under way from where they are begun.

Left to itself the compiler moves loads to where they are used, so that few are under way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.statistics.cuda.sums import WARP

__all__ = ["read_eight"]

BYTES = 16
"""Of a load, where values lie at a multiple of it."""

if is_simulated():

    def read_eight(values: Any, place: Any, lane: Any, whole: Any) -> Any:
        """Return a thread's eight of a warp's 256 values from ``place`` on."""
        each = BYTES // values.dtype.itemsize
        first = int(place) + each * int(lane)
        lines = range(first, first + 8 * WARP, each * WARP)
        return tuple(values[line + i] for line in lines for i in range(each))

else:

    def _load(builder: Any, pointer: Any, number: Any, count: int) -> list[Any]:
        """Emit a load of some numbers."""
        letter, kind = ("f", "f32") if isinstance(number, ir.FloatType) else ("d", "f64")
        vector, braces = ("", "$0")
        if count > 1:
            vector, braces = f".v{count}", "{" + ",".join(f"${i}" for i in range(count)) + "}"
        template = (
            f"{{ .reg .u64 t; cvta.to.global.u64 t, ${count}; "
            f"ld.global.nc{vector}.{kind} {braces}, [t]; }}"
        )
        address = builder.ptrtoint(pointer, ir.IntType(64))
        constraints = f"={letter}," * count + "l"
        result = number if count == 1 else ir.LiteralStructType([number] * count)
        loaded = assembly(builder, template, result, constraints, [address], effects=True)
        return [loaded] if count == 1 else elements(builder, loaded, count)

    @intrinsic(prefer_literal=True)
    def read_eight(typingctx, values, place, lane, whole):
        """Return a thread's eight of a warp's 256 values from ``place`` on; all under way at once.

        Parameters
        ----------
        values : float32 or float64 array
        place : uintp
        lane : int32
        whole : int
            A literal: whether ``place`` is a multiple of 16 bytes, which a load then has.
        """
        size = values.dtype.bitwidth // 8
        each = BYTES // size
        count = each if int(whole.literal_value) else 1

        def emit(context, builder, signature, args):
            lane_ = builder.zext(builder.mul(args[2], ir.Constant(ir.IntType(32), each)),
                                 ir.IntType(64))  # fmt: skip
            at = builder.add(args[1], lane_)
            first = element_pointer(context, builder, signature.args[0], args[0], at)
            out: list[Any] = []
            for line in range(8 // each):
                for i in range(0, each, count):
                    offset = ir.Constant(ir.IntType(64), line * each * WARP + i)
                    pointer = builder.gep(first, [offset])
                    out += _load(builder, pointer, pointer.type.pointee, count)
            return tuple_of(builder, out)

        eight = types.UniTuple(values.dtype, 8)
        return eight(values, types.uintp, types.int32, whole), emit
