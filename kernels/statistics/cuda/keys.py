"""Keys: whole numbers in the order of the floats; their places among a few edges, in PTX.

Keys are those of :mod:`~numbatch.kernels.statistics.digits`; NaN, of either sign, has the greatest.
The compiler spent four operations on each halving of the search; written here, it takes two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda_device, is_simulated
from numbatch.kernels.scoring.cuda.tiles import shared_address
from numbatch.kernels.scoring.cuda.words import _assembly, _elements, _tuple

__all__ = ["COPIES", "PLACES", "addresses_of", "count_class", "find_class", "key_of"]

COPIES = 5
"""Binary logarithm of the copies of counters, one for each bank of the shared memory."""
PLACES = 16
"""Edges, and after them a mark for each."""

_I32 = ir.IntType(32)


def _search(size: int, levels: int) -> str:
    """Return PTX that leaves the address of the last edge not above a key in ``r``."""
    kind = "u32" if size == 4 else "u64"
    steps = [size << level for level in reversed(range(levels))]
    return "".join(
        f"ld.shared.{kind} e, [r + {step}]; setp.le.{kind} p, e, $2; @p add.u32 r, r, {step}; "
        for step in steps
    )


if is_simulated():

    def key_of(x: Any) -> Any:
        """Return the key of a float32 or float64."""
        kind = np.uint32 if x.dtype == np.float32 else np.uint64
        if x != x:
            return kind(np.iinfo(kind).max)
        sign = kind(1 << 8 * x.dtype.itemsize - 1)
        bits = x.view(kind)
        return ~bits if bits & sign else bits | sign

    def addresses_of(table: Any, counters: Any, copy: Any) -> Any:
        """Return where edges lie in shared memory, and counters by an edge's address."""
        return copy, copy

    def find_class(key: Any, table: Any, copy: Any, counters_at: Any, levels: Any) -> Any:
        """Return where a key is counted, in the class of its place, and the mark of that."""
        place = 0
        for level in reversed(range(levels)):
            place += (1 << level) if table[place + (1 << level)] <= key else 0
        is_edge = table[place] == key
        counter = ((2 * place - int(is_edge)) << COPIES) + int(copy)
        return counter, np.uint32(0 if is_edge else table[PLACES + place])

    def count_class(place: Any, counters: Any) -> None:
        """Count a key."""
        from numbatch.kernels.cuda import cuda

        cuda.atomic.add(counters, place, 1)

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
                return _assembly(builder, wide_template, ir.IntType(64), "=&l,d", args)
            return _assembly(builder, narrow_template, _I32, "=&r,f", args)

        return (types.uint64 if wide else types.uint32)(x), emit

    @cuda_device
    def addresses_of(table, counters, copy):
        """Return where edges lie in shared memory, and counters by an edge's address."""
        edges_at = shared_address(table)
        # Two classes, of all copies, for each edge: 256 bytes for the 4 or 8 of the edge.
        apart = np.uint32(np.uint32(8 << COPIES) // np.uint32(table.itemsize))
        own = np.uint32(shared_address(counters) + np.uint32(np.uint32(copy) << np.uint32(2)))
        return edges_at, np.uint32(own - np.uint32(edges_at * apart))

    @intrinsic(prefer_literal=True)
    def find_class(typingctx, key, table, edges_at, counters_at, levels):
        """Return where a key is counted, in the class of its place, and the mark of that.

        Nothing but what it returns comes of it, so that several are under way at a time.

        Parameters
        ----------
        key : uint32 or uint64
        table : shared array
            Edges, the first of which is 0, and their marks; not changed by then.
        edges_at, counters_at : uint32
            Of :func:`addresses_of`.
        levels : int
            A literal: the edges after the first are ``2**levels - 1``.
        """
        size = key.bitwidth // 8
        kind = "u32" if size == 4 else "u64"
        search = _search(size, int(levels.literal_value))
        template = (
            f"{{ .reg .pred p; .reg .u32 r; .reg .{kind} e; mov.u32 r, $3; {search}"
            f"ld.shared.{kind} e, [r]; ld.shared.u32 $1, [r + {PLACES * size}]; "
            f"setp.eq.{kind} p, e, $2; mad.lo.u32 $0, r, {(8 << COPIES) // size}, $4; "
            f"@p sub.u32 $0, $0, {4 << COPIES}; @p mov.u32 $1, 0; }}"
        )

        def emit(context, builder, signature, args):
            operands = [args[0], args[2], args[3]]
            result = ir.LiteralStructType([_I32, _I32])
            letter = "r" if size == 4 else "l"
            found = _assembly(builder, template, result, f"=&r,=&r,{letter},r,r", operands)
            return _tuple(builder, _elements(builder, found, 2))

        word = types.uint32
        return types.UniTuple(word, 2)(key, table, word, word, levels), emit

    @intrinsic
    def count_class(typingctx, place, counters):
        """Count a key."""

        def emit(context, builder, signature, args):
            template = "red.shared.add.u32 [$0], 1;"
            _assembly(builder, template, ir.VoidType(), "r,~{memory}", [args[0]], effects=True)
            return context.get_dummy_value()

        return types.none(types.uint32, counters), emit
