"""What a product of 4-bit weights with one input does to a stage of a warp's weights.

A stage is 256 columns of 16 rows, 128 bytes of codes and 16 of scales each. A code ``n`` becomes
the bfloat16 128 + n, which takes a mask; the sum of a block's products begins with -136 times that
of its inputs, so that no weight has to be moved by 136 itself: that was a third of the operations
that turn codes into weights. Of the eight columns of a tensor core's result all are the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, elements, tuple_of
from numbatch.kernels.scoring.cuda.matvec_stages import ROW_BYTES, halves, shared_words
from numbatch.kernels.scoring.cuda.tiles import int_constant, mma

__all__ = [
    "INPUT_BYTES",
    "SUMS_AT",
    "array_address",
    "bring_input",
    "copy_piece",
    "load_piece",
    "multiply_stage",
    "store_input",
]

_I64, _F32 = ir.IntType(64), ir.FloatType()
_VOID = ir.VoidType()

SUMS_AT, INPUT_BYTES = 512, 640
"""Where the sums of a stage's input lie behind its 256 numbers, four times each, and how far stages
are apart."""

MOVED = -136.0
"""128 that each code is too large by, and 8 that it is less in a weight."""


@intrinsic
def array_address(typingctx, array):
    """Return the address of an array's memory."""

    def emit(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), emit


@intrinsic
def copy_piece(typingctx, address, source):
    """Begin to copy 16 bytes from an address in device memory to one in shared memory."""

    def emit(context, builder, signature, args):
        template = (
            "{ .reg .u64 t; cvta.to.global.u64 t, $1; "
            "cp.async.cg.shared.global.L2::128B [$0], [t], 16; }"
        )
        assembly(builder, template, _VOID, "r,l,~{memory}", args, effects=True)
        return context.get_dummy_value()

    return types.none(types.uint32, types.int64), emit


def _store_input(builder: Any, address: Any, lane: Any, four: list[Any]) -> None:
    """Write a lane's piece of an input, as :func:`store_input` says."""
    total = ir.Constant(_F32, 0.0)
    for word in four:
        low = builder.bitcast(builder.shl(word, int_constant(16)), _F32)
        high = builder.bitcast(builder.and_(word, int_constant(0xFFFF0000)), _F32)
        total = builder.fadd(builder.fadd(total, low), high)
    for apart in (1, 2):
        template = f"shfl.sync.bfly.b32 $0, $1, {apart}, 0x1f, 0xffffffff;"
        other = assembly(builder, template, _F32, "=f,f", [total], effects=True)
        total = builder.fadd(total, other)
    moved = builder.fmul(total, ir.Constant(_F32, MOVED))
    place = builder.add(address, builder.shl(lane, int_constant(4)))
    template = "st.shared.v4.u32 [$0], {$1, $2, $3, $4};"
    assembly(builder, template, _VOID, "r,r,r,r,r,~{memory}", [place, *four], effects=True)
    block = builder.add(address, builder.shl(lane, int_constant(2)))
    template = f"st.shared.f32 [$0+{SUMS_AT}], $1;"
    assembly(builder, template, _VOID, "r,f,~{memory}", [block, moved], effects=True)


_PIECE = ir.LiteralStructType([ir.IntType(32)] * 4)


def _load_piece(builder: Any, address: Any) -> list[Any]:
    """Load 16 bytes of device memory, in the order in which it is said."""
    template = "{ .reg .u64 t; cvta.to.global.u64 t, $4; ld.global.v4.u32 {$0,$1,$2,$3}, [t]; }"
    constraints = "=r,=r,=r,=r,l,~{memory}"
    return elements(
        builder, assembly(builder, template, _PIECE, constraints, [address], effects=True), 4
    )


@intrinsic
def load_piece(typingctx, address):
    """Begin to load 16 bytes of device memory, as four words."""

    def emit(context, builder, signature, args):
        return tuple_of(builder, _load_piece(builder, args[0]))

    return types.UniTuple(types.uint32, 4)(types.int64), emit


@intrinsic
def store_input(typingctx, address, lane, words):
    """Write a lane's eight bfloat16 numbers of a stage's input, and what a block's sum is off by.

    Four lanes have the 32 numbers of a block.
    """

    def emit(context, builder, signature, args):
        _store_input(builder, args[0], args[1], elements(builder, args[2], 4))
        return context.get_dummy_value()

    return types.none(types.uint32, types.uint32, types.UniTuple(types.uint32, 4)), emit


@intrinsic(prefer_literal=True)
def bring_input(typingctx, address, lane, source, count, most):
    """:func:`store_input` for the first stages, whose loads are under way at once.

    Parameters
    ----------
    address : uint32
        In shared memory; stages are ``INPUT_BYTES`` apart.
    lane : uint32
    source : int64
        The address of this lane's first eight numbers.
    count : int32
        How many stages there are.
    most : int
        A literal: how many are brought. Where there are fewer, the first is brought again.
    """
    stages = int(most.literal_value)

    def emit(context, builder, signature, args):
        address, lane, source, count = args[:4]
        words = [_load_piece(builder, source)]
        for stage in range(1, stages):
            here = builder.add(source, ir.Constant(_I64, 512 * stage))
            is_there = builder.icmp_signed(">", count, int_constant(stage))
            words.append(_load_piece(builder, builder.select(is_there, here, source)))
        for stage, four in enumerate(words):
            place = builder.add(address, int_constant(INPUT_BYTES * stage)) if stage else address
            _store_input(builder, place, lane, four)
        return context.get_dummy_value()

    word = types.uint32
    return types.none(word, word, types.int64, types.int32, most), emit


def _raised(builder: Any, word: Any, shift: int) -> Any:
    """Turn two codes of a word into the bfloat16 numbers 128 + n."""
    moved = builder.lshr(word, int_constant(shift)) if shift else word
    template = "lop3.b32 $0, $1, 0x000F000F, 0x43004300, 0xEA;"  # (a & b) | c
    return assembly(builder, template, ir.IntType(32), "=r,r", [moved])


def _chunks(builder: Any, address: Any) -> list[list[Any]]:
    """Return a lane's words of a row: four of pairs of numbers for each 32 columns."""
    words = shared_words(builder, address)
    words += shared_words(builder, builder.xor(address, int_constant(64)))
    return [[_raised(builder, word, shift) for shift in (0, 4, 8, 12)] for word in words]


@intrinsic
def multiply_stage(typingctx, total, address, scale_address, x_address, sums_address):
    """Add the products of a stage of weights with an input.

    Parameters
    ----------
    total : tuple of two float32
        Of the rows ``g`` and ``g + 8``.
    address, scale_address, x_address, sums_address : uint32
        In shared memory: this lane's first piece of row ``g``, the scales of row ``g``, this lane's
        piece of the input, and what the sums of its blocks are off by.
    """

    def emit(context, builder, signature, args):
        total_, address, scale_at, x_at, sums_at = args
        totals = elements(builder, total_, 2)
        own = _chunks(builder, address)
        below = _chunks(builder, builder.add(address, int_constant(8 * ROW_BYTES)))
        factors = [
            halves(builder, shared_words(builder, each))
            for each in (scale_at, builder.add(scale_at, int_constant(8 * 16)))
        ]
        for chunk in range(8):
            b = shared_words(builder, builder.add(x_at, int_constant(64 * chunk)))
            # Four times what the sum of the block is off by, for products to begin with.
            moved = shared_words(builder, builder.add(sums_at, int_constant(16 * chunk)))
            tile = [builder.bitcast(word, _F32) for word in moved]
            for i in (0, 2):
                a = [own[chunk][i], below[chunk][i], own[chunk][i + 1], below[chunk][i + 1]]
                tile = mma(builder, tile, a, b[i : i + 2])
            for row in (0, 1):
                operands = [tile[2 * row], factors[row][chunk], totals[row]]
                template = "fma.rn.f32 $0, $1, $2, $3;"
                totals[row] = assembly(builder, template, _F32, "=f,f,f,f", operands)
        return tuple_of(builder, totals)

    word = types.uint32
    return total(total, word, word, word, word), emit
