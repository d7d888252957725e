"""Intel's tile registers (AMX) for Numba: products of 16 x 16 numbers in one instruction.

Eight registers, named by the literals 0 to 7, hold tiles of up to 16 rows of 64 bytes. With ``c``
of 16 rows of 16 32-bit numbers, ``a`` of 16 rows and ``b`` of up to 16 rows of 64 bytes:

``dot_int8(c, a, b)``
    ``c[m, n] += sum(a[m, 4 * k + i] * b[k, 4 * n + i])``, exact in int32. Both signed.
``dot_bfloat16(c, a, b)``
    ``c[m, n] += sum(a[m, 2 * k + i] * b[k, 2 * n + i])`` in float32. An element's bits depend on
    its own row and column alone, never on how many rows the tiles have.

So ``b`` holds a matrix with 4 (or 2) neighbours of a column side by side. ``configure(shapes)``
comes first in each thread and each kernel call, ``release()`` last. One core of a Sapphire Rapids
reaches 4.6 TOP/s in int8 and 2.3 TFLOP/s in bfloat16 from the L1 cache, seven times what its vector
units reach.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "allowed",
    "configure",
    "dot_bfloat16",
    "dot_int8",
    "dot_signed_unsigned",
    "load_tile",
    "release",
    "store_tile",
    "stream_tile",
    "tile_shapes",
    "zero_tile",
]

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18


@functools.cache
def allowed() -> bool:
    """Return whether this process may use tiles; Linux wants to be asked first."""
    features = llvm.get_host_cpu_features()
    wanted = ("amx-tile", "amx-int8", "amx-bf16")
    if platform.system() != "Linux" or not all(features.get(name, False) for name in wanted):
        return False
    system = ctypes.CDLL(None, use_errno=True).syscall
    return bool(system(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0)


def tile_shapes(rows: Sequence[int], row_bytes: Sequence[int]) -> np.ndarray:
    """Describe the eight tiles for :func:`configure`.

    Parameters
    ----------
    rows, row_bytes : 8 ints each
        Up to 16 rows of up to 64 bytes.

    Returns
    -------
    uint8 array, shape (64,)
    """
    shapes = np.zeros(64, np.uint8)
    shapes[0] = 1  # the one palette there is
    shapes[16:32].view(np.uint16)[:] = row_bytes
    shapes[48:56] = rows
    return shapes


_BYTE, _LONG = ir.IntType(8), ir.IntType(64)


def _call(builder: Any, name: str, args: Sequence[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), args)


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    made = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(made.data, [at]), _BYTE.as_pointer())


@intrinsic
def configure(typing: Any, shapes: Any) -> Any:
    """Set the shapes of this thread's tiles, from :func:`tile_shapes`; the tiles become zero."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, "ldtilecfg", [_address(context, builder, shapes, args[0], _LONG(0))])
        return context.get_dummy_value()

    return types.void(shapes), generate


@intrinsic
def release(typing: Any) -> Any:
    """Give the tiles back, so that the system need not keep them for this thread."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, "tilerelease", [])
        return context.get_dummy_value()

    return types.void(), generate


def _number(tile: Any) -> Any:
    return _BYTE(tile.literal_value)


def _memory(name: str, instruction: str, doc: str) -> Any:
    def transfer(typing: Any, tile: Any, array: Any, at: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = _address(context, builder, array, args[1], args[2])
            _call(builder, instruction, [_number(tile), place, args[3]])
            return context.get_dummy_value()

        return types.void(tile, array, types.intp, types.intp), generate

    transfer.__name__, transfer.__doc__ = name, doc
    return intrinsic(prefer_literal=True)(transfer)


load_tile = _memory(
    "load_tile",
    "tileloadd64",
    "Load a tile from element ``at`` of an array; its rows are ``stride`` bytes apart.",
)
stream_tile = _memory(
    "stream_tile",
    "tileloaddt164",
    "As ``load_tile``, with the hint that the tile need not stay in the first level of the cache.",
)
store_tile = _memory(
    "store_tile",
    "tilestored64",
    "Store a tile to element ``at`` of an array; its rows are ``stride`` bytes apart.",
)


@intrinsic(prefer_literal=True)
def zero_tile(typing: Any, tile: Any) -> Any:
    """Set a tile to zero."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _call(builder, "tilezero", [_number(tile)])
        return context.get_dummy_value()

    return types.void(tile), generate


def _product(name: str, instruction: str, doc: str) -> Any:
    def multiply(typing: Any, c: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            _call(builder, instruction, [_number(tile) for tile in (c, a, b)])
            return context.get_dummy_value()

        return types.void(c, a, b), generate

    multiply.__name__, multiply.__doc__ = name, doc
    return intrinsic(prefer_literal=True)(multiply)


dot_int8 = _product("dot_int8", "tdpbssd", "Add the int8 products of tiles a and b to tile c.")
dot_signed_unsigned = _product(
    "dot_signed_unsigned", "tdpbsud", "As ``dot_int8``, but the bytes of tile b are unsigned."
)
dot_bfloat16 = _product(
    "dot_bfloat16", "tdpbf16ps", "Add the bfloat16 products of tiles a and b to tile c."
)
