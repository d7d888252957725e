"""64-bit words for Numba: bit counts, unaligned access to memory, masks of 64 bytes.

Functions that kernels call take pointers (``pointer_to(array)``, indexed like arrays) where an
array would cost: Numba counts references to an array in every function that it passes through,
with atomic instructions, and compiles seven fields of it.

A mask has a bit for each of 64 bytes of text, the lowest for the first. LLVM compares them as one
vector: two registers of AVX2, one of AVX-512, four of SSE or NEON.

No bounds are checked: whoever calls these keeps the access inside the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "bytes_between",
    "bytes_from_0x80",
    "copy_bytes",
    "count_ones",
    "deposit_bits",
    "equal_words",
    "extract_bits",
    "int64_pointer",
    "leading_zeros",
    "load_word",
    "pointer_to",
    "prefetch",
    "store_word",
    "trailing_zeros",
    "uint8_at",
    "uint8_pointer",
    "uint16_at",
    "uint32_at",
    "uint32_pointer",
    "uint64_pointer",
]

_BYTE, _WORD, _BIT = ir.IntType(8), ir.IntType(64), ir.IntType(1)
_BLOCK = ir.VectorType(_BYTE, 64)


def _address(builder: Any, pointer: Any, byte: Any) -> Any:
    """Return the address that lies ``byte`` bytes behind ``pointer``."""
    return builder.gep(builder.bitcast(pointer, _BYTE.as_pointer()), [byte])


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_BLOCK, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    return builder.shuffle_vector(one, undefined, zeros)


def _block(builder: Any, text: Any, at: Any) -> Any:
    pointer = builder.bitcast(_address(builder, text, at), _BLOCK.as_pointer())
    return builder.load(pointer, align=1)


@intrinsic
def pointer_to(typing: Any, array: Any) -> Any:
    """Return the address of an array's first element; the array must outlive it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def bytes_between(typing: Any, text: Any, at: Any, fold: Any, low: Any, count: Any) -> Any:
    """Return the mask of the bytes of ``text[at:at + 64]`` that are from ``low`` on, ``count``.

    Each byte is first combined with ``fold``: 0, or 0x20 to take capitals for small letters.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = _block(builder, args[0], args[1])
        fold, low, count = (_splat(builder, builder.trunc(arg, _BYTE)) for arg in args[2:])
        shifted = builder.sub(builder.or_(block, fold), low)
        return builder.bitcast(builder.icmp_unsigned("<", shifted, count), _WORD)

    byte = types.int64
    return types.uint64(text, types.intp, byte, byte, byte), generate


@intrinsic
def bytes_from_0x80(typing: Any, text: Any, at: Any) -> Any:
    """Return the mask of the bytes of ``text[at:at + 64]`` that are not ASCII."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = _block(builder, args[0], args[1])
        return builder.bitcast(
            builder.icmp_signed("<", block, ir.Constant(_BLOCK, [0] * 64)), _WORD
        )

    return types.uint64(text, types.intp), generate


@intrinsic
def equal_words(typing: Any, pointer: Any, byte: Any, kept: Any, value: Any) -> Any:
    """Return the mask of the 8 words from ``byte`` on that are ``value`` in the bits of ``kept``.

    They must begin a cache line.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        eight = ir.VectorType(_WORD, 8)
        address = builder.bitcast(_address(builder, args[0], args[1]), eight.as_pointer())
        undefined = ir.Constant(eight, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        kept, value = (
            builder.shuffle_vector(
                builder.insert_element(undefined, each, ir.IntType(32)(0)), undefined, zeros
            )
            for each in args[2:]
        )
        found = builder.and_(builder.load(address, align=64), kept)
        return builder.zext(
            builder.bitcast(builder.icmp_unsigned("==", found, value), _BYTE), _WORD
        )

    return types.uint64(pointer, types.intp, types.uint64, types.uint64), generate


@intrinsic
def load_word(typing: Any, pointer: Any, byte: Any) -> Any:
    """Return the eight bytes from ``byte`` on, the first the lowest."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(builder, args[0], args[1])
        return builder.load(builder.bitcast(address, _WORD.as_pointer()), align=1)

    return types.uint64(pointer, types.intp), generate


@intrinsic
def store_word(typing: Any, pointer: Any, byte: Any, value: Any) -> Any:
    """Write eight bytes from ``byte`` on, the lowest first."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(builder, args[0], args[1])
        builder.store(args[2], builder.bitcast(address, _WORD.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.uint64), generate


def _pointer_behind(kind: Any) -> Any:
    """Make the intrinsic that takes an address behind a pointer for that of numbers of a kind."""

    def behind(typing: Any, pointer: Any, byte: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            number = ir.IntType(kind.bitwidth).as_pointer()
            return builder.bitcast(_address(builder, args[0], args[1]), number)

        return types.CPointer(kind)(pointer, types.intp), generate

    behind.__name__ = f"{kind}_pointer"
    behind.__doc__ = f"Return the address ``byte`` bytes behind the pointer, as that of {kind}."
    return intrinsic(behind)


int64_pointer, uint64_pointer = _pointer_behind(types.int64), _pointer_behind(types.uint64)
uint32_pointer, uint8_pointer = _pointer_behind(types.uint32), _pointer_behind(types.uint8)


def _memory(kind: Any, name: str) -> Any:
    """Make the intrinsic that takes an address for a pointer to numbers of a kind."""

    def at(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], ir.IntType(kind.bitwidth).as_pointer())

        return types.CPointer(kind)(types.int64), generate

    at.__name__ = name
    at.__doc__ = f"Return the {kind} numbers at an address."
    return intrinsic(at)


uint8_at = _memory(types.uint8, "uint8_at")
uint16_at = _memory(types.uint16, "uint16_at")
uint32_at = _memory(types.uint32, "uint32_at")


@intrinsic
def copy_bytes(typing: Any, out: Any, to: Any, source: Any, at: Any, size: Any) -> Any:
    """Copy ``size`` bytes from ``at`` bytes behind one pointer to ``to`` bytes behind another.

    The two may overlap.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _address(builder, args[0], args[1])
        origin = _address(builder, args[2], args[3])
        cgutils.raw_memmove(builder, target, origin, args[4], 1)
        return context.get_dummy_value()

    return types.void(out, types.intp, source, types.intp, types.intp), generate


@intrinsic
def prefetch(typing: Any, pointer: Any, byte: Any) -> Any:
    """Ask for the cache line that lies ``byte`` bytes behind the pointer."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(builder, args[0], args[1])
        number = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), number, number, number])
        name = "llvm.prefetch.p0" if address.type.is_opaque else "llvm.prefetch.p0i8"
        function = cgutils.get_or_insert_function(builder.module, signature, name)
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), generate


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Return the place of the lowest set bit; 64 where there is none."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], _BIT(0))

    return types.intp(types.uint64), generate


@intrinsic
def leading_zeros(typing: Any, word: Any) -> Any:
    """Return how many bits lie above the highest set bit; 64 where there is none."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctlz(args[0], _BIT(0))

    return types.intp(types.uint64), generate


@intrinsic
def count_ones(typing: Any, word: Any) -> Any:
    """Return how many bits are set."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.intp(types.uint64), generate


def _bit_mover(name: str, doc: str) -> Any:
    """Make the intrinsic of an instruction of BMI2."""

    def move(typing: Any, word: Any, mask: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            signature = ir.FunctionType(_WORD, [_WORD, _WORD])
            function = cgutils.get_or_insert_function(
                builder.module, signature, f"llvm.x86.bmi.{name}.64"
            )
            return builder.call(function, args)

        return types.uint64(types.uint64, types.uint64), generate

    move.__name__ = name
    move.__doc__ = doc
    return intrinsic(move)


@cpu_device
def _extract_one_by_one(word, mask):
    """As ``extract_bits``, on a CPU without BMI2."""
    found, bit = np.uint64(0), np.uint64(1)
    while mask:
        if word & mask & (~mask + np.uint64(1)):
            found |= bit
        bit <<= np.uint64(1)
        mask &= mask - np.uint64(1)
    return found


@cpu_device
def _deposit_one_by_one(word, mask):
    """As ``deposit_bits``, on a CPU without BMI2."""
    found = np.uint64(0)
    while mask and word:
        if word & np.uint64(1):
            found |= mask & (~mask + np.uint64(1))
        word >>= np.uint64(1)
        mask &= mask - np.uint64(1)
    return found


_HAS_BMI2 = simd_path() != "portable" and llvm.get_host_cpu_features().get("bmi2", False)

extract_bits = (
    _bit_mover("pext", "Return the bits that the mask picks out, side by side.")
    if _HAS_BMI2
    else _extract_one_by_one
)
deposit_bits = (
    _bit_mover("pdep", "Return the lowest bits, put where the mask has bits.")
    if _HAS_BMI2
    else _deposit_one_by_one
)
