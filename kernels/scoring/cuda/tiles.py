"""Tensor-core tiles for one warp: products, softmax parts and copies, as PTX through LLVM.

A tile's numbers lie in the registers of a warp's 32 lanes as ``mma.m16n8k16`` lays them out
(PTX ISA, 9.7.14.5). Lane ``4 * g + t`` holds, of a 16 x 8 result, row ``g`` at columns ``2 * t``
and ``2 * t + 1`` (numbers 0 and 1) and row ``g + 8`` at the same columns (2 and 3).

A fragment is a tuple; the loops over it run while a kernel is compiled, so that every number stays
in a register. Numba would index a tuple at run time, through memory.

Rows of a tile in shared memory are cut into pieces of 16 bytes; piece ``p`` of row ``r`` stands at
place ``p ^ (r & 7)``, so that eight rows of one piece lie in different banks.

The simulator has none of this; there the plain kernels run.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of

__all__ = [
    "copies_done",
    "copy_words",
    "exponential_tile",
    "finish_copies",
    "load_rows",
    "mask_tile",
    "multiply",
    "pack_tile",
    "row_largest",
    "row_sums",
    "scale_tile",
    "score_tile",
    "shared_address",
    "softcap_tile",
    "store_tile",
    "value_tile",
    "zero_tile",
]

_I1, _I32, _I64, _F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
_QUAD = ir.LiteralStructType([_F32] * 4)
_WORDS = ir.LiteralStructType([_I32] * 4)
_SIZE = 16


def int_constant(value: int) -> Any:
    return ir.Constant(_I32, value)


def mma(builder: Any, c: list[Any], a: list[Any], b: list[Any]) -> list[Any]:
    """Return ``c + a @ b`` for 16 x 16 and 16 x 8 bfloat16 fragments."""
    template = (
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    constraints = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
    return elements(builder, assembly(builder, template, _QUAD, constraints, [*a, *b, *c]), 4)


def _load_matrices(builder: Any, address: Any, *, transposed: bool) -> list[Any]:
    """Load four 8 x 8 matrices of 16-bit numbers; lane ``i`` names a row of matrix ``i // 8``."""
    kind = ".trans" if transposed else ""
    template = f"ldmatrix.sync.aligned.m8n8.x4{kind}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
    loaded = assembly(builder, template, _WORDS, "=r,=r,=r,=r,r,~{memory}", [address], effects=True)
    return elements(builder, loaded, 4)


def _place(builder: Any, base: Any, piece_pair: int, row: int, width: int) -> Any:
    """Address of this lane's piece, two pieces a step; ``base`` is the lane's for step 0."""
    address = builder.xor(base, int_constant(32 * piece_pair))
    return builder.add(address, int_constant(row * width * 2)) if row else address


def _literal(kind: Any) -> int:
    return int(kind.literal_value)


@intrinsic
def multiply(typingctx, c, a, b):
    """``c + a @ b``: tuples of four float32, four and two uint32."""

    def emit(context, builder, signature, args):
        c, a, b = args
        parts = (elements(builder, c, 4), elements(builder, a, 4), elements(builder, b, 2))
        return tuple_of(builder, mma(builder, *parts))

    return c(c, a, b), emit


@intrinsic
def shared_address(typingctx, array):
    """Return the address of a shared array within shared memory, as uint32."""

    def emit(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        number = builder.ptrtoint(data, _I64)
        template = "{ .reg .u64 t; cvta.to.shared.u64 t, $1; cvt.u32.u64 $0, t; }"
        return assembly(builder, template, _I32, "=r,l", [number])

    return types.uint32(array), emit


@intrinsic
def copy_words(typingctx, address, array, at, is_there):
    """Begin to copy 16 bytes from flat element ``at`` to shared memory; zeros if not there."""

    def emit(context, builder, signature, args):
        address, array, at, is_there = args
        pointer = element_pointer(context, builder, signature.args[1], array, at)
        size = builder.select(is_there, int_constant(_SIZE), int_constant(0))
        template = (
            "{ .reg .u64 t; cvta.to.global.u64 t, $1; "
            "cp.async.cg.shared.global [$0], [t], 16, $2; }"
        )
        operands = [address, builder.ptrtoint(pointer, _I64), size]
        assembly(builder, template, ir.VoidType(), "r,l,r,~{memory}", operands, effects=True)
        return context.get_dummy_value()

    return types.none(types.uint32, array, types.intp, types.boolean), emit


@intrinsic
def finish_copies(typingctx):
    """End a group of copies."""

    def emit(context, builder, signature, args):
        template = "cp.async.commit_group;"
        assembly(builder, template, ir.VoidType(), "~{memory}", [], effects=True)
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic(prefer_literal=True)
def copies_done(typingctx, left):
    """Wait until all but the last ``left`` (a literal) groups of this thread have arrived."""
    number = _literal(left)

    def emit(context, builder, signature, args):
        template = f"cp.async.wait_group {number};"
        assembly(builder, template, ir.VoidType(), "~{memory}", [], effects=True)
        return context.get_dummy_value()

    return types.none(left), emit


@intrinsic(prefer_literal=True)
def load_rows(typingctx, base, width):
    """Load 16 rows of ``width`` (a literal) bfloat16 numbers as the left side of products."""
    columns = _literal(width)

    def emit(context, builder, signature, args):
        values: list[Any] = []
        for step in range(columns // 16):
            address = _place(builder, args[0], step, 0, columns)
            values += _load_matrices(builder, address, transposed=False)
        return tuple_of(builder, values)

    return types.UniTuple(types.uint32, columns // 4)(types.uint32, width), emit


@intrinsic(prefer_literal=True)
def score_tile(typingctx, queries, base, keys):
    """Products of 16 queries with ``keys`` (a literal) keys in shared memory: a 16 x keys tile."""
    steps = queries.count // 4
    count = _literal(keys)

    def emit(context, builder, signature, args):
        queries = elements(builder, args[0], 4 * steps)
        zero = ir.Constant(_F32, 0.0)
        tile = [[zero] * 4 for _ in range(count // 8)]
        for step in range(steps):
            a = queries[4 * step : 4 * step + 4]
            for pair in range(count // 16):
                address = _place(builder, args[1], step, 16 * pair, 16 * steps)
                b = _load_matrices(builder, address, transposed=False)
                for half in range(2):
                    place = 2 * pair + half
                    tile[place] = mma(builder, tile[place], a, b[2 * half : 2 * half + 2])
        return tuple_of(builder, [value for quad in tile for value in quad])

    return types.UniTuple(types.float32, count // 2)(queries, types.uint32, keys), emit


@intrinsic
def value_tile(typingctx, total, weights, base):
    """Add the product of a 16 x keys tile of weights with values in shared memory to ``total``."""
    columns, steps = total.count * 2, weights.count // 4

    def emit(context, builder, signature, args):
        totals = elements(builder, args[0], total.count)
        tile = [totals[4 * i : 4 * i + 4] for i in range(columns // 8)]
        a = elements(builder, args[1], weights.count)
        for step in range(steps):
            for pair in range(columns // 16):
                address = _place(builder, args[2], pair, 16 * step, columns)
                b = _load_matrices(builder, address, transposed=True)
                for half in range(2):
                    place = 2 * pair + half
                    tile[place] = mma(
                        builder, tile[place], a[4 * step : 4 * step + 4], b[2 * half : 2 * half + 2]
                    )
        return tuple_of(builder, [value for quad in tile for value in quad])

    return total(total, weights, types.uint32), emit


@intrinsic(prefer_literal=True)
def zero_tile(typingctx, numbers):
    """Return a tuple of ``numbers`` (a literal) zeros."""
    count = _literal(numbers)

    def emit(context, builder, signature, args):
        return tuple_of(builder, [ir.Constant(_F32, 0.0)] * count)

    return types.UniTuple(types.float32, count)(numbers), emit


@intrinsic
def mask_tile(typingctx, tile, column, first, last, first_below, last_below):
    """Set scores of keys that a row does not see to minus infinity.

    ``column`` is the key of this lane's number 0; rows ``g`` and ``g + 8`` see keys ``first`` to
    ``last`` and ``first_below`` to ``last_below``.
    """

    def emit(context, builder, signature, args):
        column = args[1]
        out = []
        for i, value in enumerate(elements(builder, args[0], tile.count)):
            key = builder.add(column, int_constant(8 * (i // 4) + i % 2))
            low, high = args[2:4] if i % 4 < 2 else args[4:6]
            seen = builder.and_(
                builder.icmp_signed(">=", key, low), builder.icmp_signed("<=", key, high)
            )
            out.append(builder.select(seen, value, ir.Constant(_F32, float("-inf"))))
        return tuple_of(builder, out)

    whole = types.int32
    return tile(tile, whole, whole, whole, whole, whole), emit


@intrinsic
def softcap_tile(typingctx, tile, inward, outward):
    """``outward * tanh(inward * x)`` of each number."""

    def emit(context, builder, signature, args):
        out = []
        for value in elements(builder, args[0], tile.count):
            inner = builder.fmul(value, args[1])
            bent = assembly(builder, "tanh.approx.f32 $0, $1;", _F32, "=f,f", [inner])
            out.append(builder.fmul(bent, args[2]))
        return tuple_of(builder, out)

    return tile(tile, types.float32, types.float32), emit


def _by_row(values: list[Any], row: int) -> list[Any]:
    """Return the numbers of a lane's row 0 (``g``) or 1 (``g + 8``)."""
    return [value for i, value in enumerate(values) if i % 4 // 2 == row]


@intrinsic
def row_largest(typingctx, tile):
    """Largest number that this lane holds of each of its two rows."""

    def emit(context, builder, signature, args):
        values = elements(builder, args[0], tile.count)
        largest = []
        for row in range(2):
            top, *rest = _by_row(values, row)
            for value in rest:
                top = assembly(builder, "max.f32 $0, $1, $2;", _F32, "=f,f,f", [top, value])
            largest.append(top)
        return tuple_of(builder, largest)

    return types.UniTuple(types.float32, 2)(tile), emit


@intrinsic
def row_sums(typingctx, tile):
    """Sum of the numbers that this lane holds of each of its two rows, in order."""

    def emit(context, builder, signature, args):
        values = elements(builder, args[0], tile.count)
        sums = []
        for row in range(2):
            total, *rest = _by_row(values, row)
            for value in rest:
                total = builder.fadd(total, value)
            sums.append(total)
        return tuple_of(builder, sums)

    return types.UniTuple(types.float32, 2)(tile), emit


@intrinsic
def exponential_tile(typingctx, tile, factor, shift, shift_below):
    """``2 ** (factor * x - shift)`` of each number, with a shift for each of the two rows."""

    def emit(context, builder, signature, args):
        out = []
        for i, value in enumerate(elements(builder, args[0], tile.count)):
            shift = args[2] if i % 4 < 2 else args[3]
            moved = assembly(
                builder, "fma.rn.f32 $0, $1, $2, $3;", _F32, "=f,f,f,f",
                [value, args[1], builder.fsub(ir.Constant(_F32, -0.0), shift)],
            )  # fmt: skip
            out.append(assembly(builder, "ex2.approx.ftz.f32 $0, $1;", _F32, "=f,f", [moved]))
        return tuple_of(builder, out)

    return tile(tile, types.float32, types.float32, types.float32), emit


@intrinsic
def scale_tile(typingctx, tile, factor, factor_below):
    """Multiply the rows ``g`` and ``g + 8``."""

    def emit(context, builder, signature, args):
        values = elements(builder, args[0], tile.count)
        out = [
            builder.fmul(value, args[1] if i % 4 < 2 else args[2]) for i, value in enumerate(values)
        ]
        return tuple_of(builder, out)

    return tile(tile, types.float32, types.float32), emit


@intrinsic
def pack_tile(typingctx, tile):
    """Round a tile to bfloat16, laid out as the left side of a product."""

    def emit(context, builder, signature, args):
        values = elements(builder, args[0], tile.count)
        template = "cvt.rn.bf16x2.f32 $0, $1, $2;"
        out = [
            assembly(builder, template, _I32, "=r,f,f", [values[i + 1], values[i]])
            for i in range(0, tile.count, 2)
        ]
        return tuple_of(builder, out)

    return types.UniTuple(types.uint32, tile.count // 2)(tile), emit


@intrinsic
def store_tile(typingctx, tile, out, at, at_below, column, columns):
    """Round a tile to bfloat16 and write it to two rows of a uint16 array.

    ``at`` and ``at_below`` are the flat elements of column 0 in rows ``g`` and ``g + 8``, negative
    where the row is not wanted; ``column`` is that of this lane's number 0. Columns from
    ``columns``, an even number, are not written.
    """

    def emit(context, builder, signature, args):
        tile_value, array, at, at_below, column, columns = args
        values = elements(builder, tile_value, tile.count)
        kind = signature.args[1]
        for row, start in enumerate((at, at_below)):
            wanted = builder.icmp_signed(">=", start, ir.Constant(_I64, 0))
            with builder.if_then(wanted):
                for i in range(0, tile.count, 4):
                    place = builder.add(column, int_constant(2 * i))
                    pair = [values[i + 2 * row + 1], values[i + 2 * row]]
                    word = assembly(builder, "cvt.rn.bf16x2.f32 $0, $1, $2;", _I32, "=r,f,f", pair)
                    with builder.if_then(builder.icmp_signed("<", place, columns)):
                        element = builder.add(start, builder.sext(place, _I64))
                        pointer = element_pointer(context, builder, kind, array, element)
                        builder.store(word, builder.bitcast(pointer, _I32.as_pointer()), align=4)
        return context.get_dummy_value()

    whole = types.int32
    return types.none(tile, out, types.int64, types.int64, whole, whole), emit
