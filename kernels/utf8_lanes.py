"""UTF-8 of 16 characters at a time, where the CPU can press bytes together (AVX-512 VBMI2)."""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.simd_path import simd_path

__all__ = ["COMPRESSES", "store_ascii", "store_places", "store_utf8", "widen_places"]

COMPRESSES = simd_path() in ("amx", "avx512") and bool(
    llvm.get_host_cpu_features().get("avx512vbmi2", False)
)
"""Whether ``store_utf8`` and ``store_places`` may be called."""

_BYTE, _NUMBER, _WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BLOCK, _LANES = ir.VectorType(_BYTE, 64), ir.VectorType(_NUMBER, 16)
_MASK = ir.VectorType(ir.IntType(1), 64)


def _compress(builder: Any, block: Any, kept: Any) -> Any:
    """Return the bytes of a block whose bits are set, one after another."""
    signature = ir.FunctionType(_BLOCK, [_BLOCK, _BLOCK, _MASK])
    name = "llvm.x86.avx512.mask.compress.v64i8"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [block, ir.Constant(_BLOCK, None), kept])


def _vector_at(builder: Any, pointer: Any, byte: Any, vector: ir.VectorType) -> Any:
    address = builder.gep(builder.bitcast(pointer, _BYTE.as_pointer()), [byte])
    return builder.bitcast(address, vector.as_pointer())


def _same(vector: ir.VectorType, number: int) -> ir.Constant:
    return ir.Constant(vector, [number] * vector.count)


@intrinsic
def store_ascii(typing: Any, characters: Any, index: Any, out: Any, at: Any) -> Any:
    """Write the low bytes of 32 characters from ``index`` on; return whether all are ASCII."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = sig.args[0].dtype.bitwidth
        source = ir.VectorType(ir.IntType(width), 32)
        byte = builder.mul(args[1], _WORD(width // 8))
        value = builder.load(_vector_at(builder, args[0], byte, source), align=width // 8)
        beyond = builder.icmp_unsigned(">", value, _same(source, 0x7F))
        low = value if width == 8 else builder.trunc(value, ir.VectorType(_BYTE, 32))
        builder.store(low, _vector_at(builder, args[2], args[3], low.type), align=1)
        return builder.icmp_unsigned("==", builder.bitcast(beyond, _NUMBER), _NUMBER(0))

    return types.boolean(characters, types.intp, out, types.intp), generate


@intrinsic
def store_utf8(typing: Any, characters: Any, index: Any, out: Any, at: Any) -> Any:
    """Write the UTF-8 of 16 characters from ``index`` on; return its size, -1 for surrogates.

    Writes 64 bytes, of which the first that many count. Each character is spread over the four
    bytes of a lane, its last byte the highest, and what is not needed is pressed out.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = sig.args[0].dtype.bitwidth
        source = ir.VectorType(ir.IntType(width), 16)
        byte = builder.mul(args[1], _WORD(width // 8))
        code = builder.load(_vector_at(builder, args[0], byte, source), align=width // 8)
        if width < 32:
            code = builder.zext(code, _LANES)

        def part(shift: int, place: int) -> Any:
            six = builder.and_(builder.lshr(code, _same(_LANES, shift)), _same(_LANES, 0x3F))
            return builder.shl(six, _same(_LANES, place))

        word = builder.or_(part(0, 24), _same(_LANES, 0x80000000))
        word = builder.or_(word, part(6, 16))
        kept = _same(_LANES, 0xFFFF0000)
        two = builder.or_(word, _same(_LANES, 0x00C00000))
        if width > 8:
            word = builder.or_(builder.or_(word, part(12, 8)), _same(_LANES, 0x00800000))
            three = builder.or_(word, _same(_LANES, 0x0000E000))
            many = builder.icmp_unsigned(">", code, _same(_LANES, 0x7FF))
            two = builder.select(many, three, two)
            kept = builder.select(many, _same(_LANES, 0xFFFFFF00), kept)
        if width > 16:
            four = builder.or_(builder.or_(word, part(18, 0)), _same(_LANES, 0x000080F0))
            many = builder.icmp_unsigned(">", code, _same(_LANES, 0xFFFF))
            two = builder.select(many, four, two)
            kept = builder.select(many, _same(_LANES, 0xFFFFFFFF), kept)
        one = builder.icmp_unsigned("<", code, _same(_LANES, 0x80))
        word = builder.select(one, builder.shl(code, _same(_LANES, 24)), two)
        kept = builder.select(one, _same(_LANES, 0xFF000000), kept)
        kept = builder.icmp_unsigned("!=", builder.bitcast(kept, _BLOCK), _same(_BLOCK, 0))
        packed = _compress(builder, builder.bitcast(word, _BLOCK), kept)
        builder.store(packed, _vector_at(builder, args[2], args[3], _BLOCK), align=1)
        size = builder.ctpop(builder.bitcast(kept, _WORD))
        if width == 8:
            return size
        high = builder.and_(code, _same(_LANES, 0xFFFFF800))
        surrogate = builder.icmp_unsigned("==", high, _same(_LANES, 0xD800))
        any_surrogate = builder.icmp_unsigned(
            "!=", builder.bitcast(surrogate, ir.IntType(16)), ir.IntType(16)(0)
        )
        return builder.select(any_surrogate, _WORD(-1), size)

    return types.intp(characters, types.intp, out, types.intp), generate


@intrinsic
def store_places(typing: Any, mask: Any, out: Any, byte: Any) -> Any:
    """Write the places of the set bits, a byte each, 64 bytes in all."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.Constant(_BLOCK, list(range(64)))
        packed = _compress(builder, places, builder.bitcast(args[0], _MASK))
        builder.store(packed, _vector_at(builder, args[1], args[2], _BLOCK), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, out, types.intp), generate


@intrinsic
def widen_places(typing: Any, places: Any, first: Any, base: Any, out: Any, index: Any) -> Any:
    """Write ``base + places[first + i]`` to ``out[index + i]`` for eight ``i``, int64."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        eight, wide = ir.VectorType(_BYTE, 8), ir.VectorType(_WORD, 8)
        value = builder.load(_vector_at(builder, args[0], args[1], eight), align=1)
        undefined = ir.Constant(wide, ir.Undefined)
        one = builder.insert_element(undefined, args[2], _NUMBER(0))
        base = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_NUMBER, 8), None))
        sums = builder.add(builder.zext(value, wide), base)
        byte = builder.mul(args[4], _WORD(8))
        builder.store(sums, _vector_at(builder, args[3], byte, wide), align=8)
        return context.get_dummy_value()

    return types.void(places, types.intp, types.intp, out, types.intp), generate
