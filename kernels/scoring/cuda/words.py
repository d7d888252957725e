"""bfloat16 numbers as their 16 bits, and loads of 16 bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of

__all__ = [
    "bfloat16_array",
    "block_max",
    "block_sum",
    "exp2",
    "float32_array",
    "larger",
    "load_floats",
    "load_words",
    "loads_begun",
    "pack_pair",
    "store_words",
    "to_bfloat16",
    "to_float",
    "warp_max",
    "warp_sum",
]


def bfloat16_array(values: np.ndarray) -> np.ndarray:
    """Round float32 numbers to bfloat16, to even where two are as near; uint16, NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def float32_array(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@cuda_device
def to_float(bits):
    """Return the float32 of a bfloat16."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


_I32, _F32 = ir.IntType(32), ir.FloatType()


def stream_words(builder: Any, pointer: Any) -> list[Any]:
    """Load 16 bytes that are read once: past the first cache, in the order in which it is said.

    Left to itself the compiler moves loads to where they are used, so that few are under way.
    """
    kind = ir.LiteralStructType([_I32] * 4)
    template = (
        "{ .reg .u64 t; cvta.to.global.u64 t, $4; "
        "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {$0,$1,$2,$3}, [t]; }"
    )
    address = builder.ptrtoint(pointer, ir.IntType(64))
    loaded = assembly(builder, template, kind, "=r,=r,=r,=r,l", [address], effects=True)
    return elements(builder, loaded, 4)


if is_simulated():

    def pack_pair(low, high):
        """Two float32 numbers as bfloat16, ``low`` in the low half of a uint32."""
        pair = bfloat16_array(np.array([low, high], np.float32)).astype(np.uint32)
        return np.uint32(pair[0] | (pair[1] << np.uint32(16)))

    def load_words(array, at):
        """Sixteen bytes from flat element ``at`` of a uint16 or uint32 array, as four uint32."""
        flat = array.reshape(-1)
        count = 16 // flat.dtype.itemsize
        values = np.array([flat[at + i] for i in range(count)])
        return tuple(values.view(np.uint32))

    def load_floats(array, at):
        """Four float32 or float64 from flat element ``at``, where a multiple of 16 bytes lies."""
        flat = array.reshape(-1)
        return flat[at], flat[at + 1], flat[at + 2], flat[at + 3]

    def store_words(array, at, words):
        """Write two or four uint32 to as many bytes from flat element ``at``."""
        flat = array.reshape(-1)
        values = np.array(words, np.uint32).view(flat.dtype)
        for i in range(len(values)):
            flat[at + i] = values[i]

    def exp2(x):
        """Two to the power of a float32."""
        return np.float32(2.0) ** np.float32(x)

    def loads_begun():
        """Keep the compiler from moving loads to where they are used."""

    def warp_sum(x):
        """Sum over the lanes of a warp, the same bits in each; in one order."""
        return x

    def warp_max(x):
        """Largest over the lanes of a warp."""
        return x

else:

    @intrinsic
    def pack_pair(typingctx, low, high):
        """Two float32 numbers as bfloat16, ``low`` in the low half of a uint32."""

        def emit(context, builder, signature, args):
            low, high = args
            template = "cvt.rn.bf16x2.f32 $0, $1, $2;"
            return assembly(builder, template, _I32, "=r,f,f", [high, low])

        return types.uint32(types.float32, types.float32), emit

    @intrinsic
    def load_words(typingctx, array, at):
        """Sixteen bytes from flat element ``at`` of a uint16 or uint32 array, as four uint32."""

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], *args)
            vector = ir.VectorType(_I32, 4)
            loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=16)
            return tuple_of(
                builder, [builder.extract_element(loaded, _I32(lane)) for lane in range(4)]
            )

        return types.UniTuple(types.uint32, 4)(array, types.intp), emit

    @intrinsic
    def load_floats(typingctx, array, at):
        """Four float32 or float64 from flat element ``at``, where a multiple of 16 bytes lies."""
        each = 16 // (array.dtype.bitwidth // 8)

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], *args)
            vector = ir.VectorType(pointer.type.pointee, each)
            pointer = builder.bitcast(pointer, vector.as_pointer())
            values = []
            for first in range(0, 4, each):
                place = builder.gep(pointer, [_I32(first // each)])
                loaded = builder.load(place, align=16)
                values += [builder.extract_element(loaded, _I32(lane)) for lane in range(each)]
            return tuple_of(builder, values)

        return types.UniTuple(array.dtype, 4)(array, types.intp), emit

    @intrinsic
    def store_words(typingctx, array, at, words):
        """Write two or four uint32 to as many bytes from flat element ``at``."""
        count = words.count

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[0], *args[:2])
            vector = ir.VectorType(_I32, count)
            value = ir.Constant(vector, ir.Undefined)
            for lane, word in enumerate(elements(builder, args[2], count)):
                value = builder.insert_element(value, word, _I32(lane))
            pointer = builder.bitcast(pointer, vector.as_pointer())
            builder.store(value, pointer, align=4 * count)
            return context.get_dummy_value()

        return types.none(array, types.intp, words), emit

    @intrinsic
    def exp2(typingctx, x):
        """Two to the power of a float32."""

        def emit(context, builder, signature, args):
            return assembly(builder, "ex2.approx.ftz.f32 $0, $1;", _F32, "=f,f", args)

        return types.float32(types.float32), emit

    @cuda_device
    def loads_begun():
        """Keep the compiler from moving loads to where they are used: all of a warp call.

        No load moves beyond a barrier, and this one waits for no data.
        """
        cuda.syncwarp()

    @cuda_device
    def warp_sum(x):
        """Sum over the lanes of a warp, the same bits in each; in one order."""
        for apart in (16, 8, 4, 2, 1):
            x += cuda.shfl_xor_sync(0xFFFFFFFF, x, apart)
        return x

    @cuda_device
    def warp_max(x):
        """Largest over the lanes of a warp."""
        for apart in (16, 8, 4, 2, 1):
            x = max(x, cuda.shfl_xor_sync(0xFFFFFFFF, x, apart))
        return x


@cuda_device
def larger(four, i, top, place):
    """Return the largest number so far and its place, after four from place ``i`` on."""
    a, b, c, d = four
    if a > top:
        top, place = a, i
    if b > top:
        top, place = b, i + 1
    if c > top:
        top, place = c, i + 2
    if d > top:
        top, place = d, i + 3
    return top, place


@cuda_device
def to_bfloat16(x):
    """Round a float32 to the 16 bits of a bfloat16."""
    return np.uint16(pack_pair(x, np.float32(0)) & np.uint32(0xFFFF))


@cuda_device
def block_sum(x, slots, thread, threads, lanes):
    """Sum a number of each thread of a block; every thread gets the same bits.

    Parameters
    ----------
    slots : shared array
        One number for each warp; free again after the next barrier.
    thread, threads, lanes : int
        This thread, how many there are, and how many in a warp.
    """
    x = warp_sum(x)
    if thread % lanes == 0:
        slots[thread // lanes] = x
    cuda.syncthreads()
    total = slots[0]
    for warp in range(1, threads // lanes):
        total += slots[warp]
    return total


@cuda_device
def block_max(x, slots, thread, threads, lanes):
    """Largest of a number of each thread of a block; arguments as in :func:`block_sum`."""
    x = warp_max(x)
    if thread % lanes == 0:
        slots[thread // lanes] = x
    cuda.syncthreads()
    top = slots[0]
    for warp in range(1, threads // lanes):
        top = max(top, slots[warp])
    return top
