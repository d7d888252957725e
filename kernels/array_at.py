"""Arrays over memory that a kernel knows by its address."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["array_at"]

_LONG = ir.IntType(64)


@intrinsic
def array_at(typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """Return the memory at an address as a C-contiguous array, as ``numba.carray`` does.

    ``shape`` is a tuple of int64, ``dtype`` a NumPy type. ``carray`` asks for counted references,
    which kernels do without (see jit.py); whoever holds the memory must outlive the array.
    """
    kind = types.Array(dtype.instance_type, len(shape), "C")

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(kind)(context, builder)
        item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        sizes, strides = cgutils.unpack_tuple(builder, args[1]), [_LONG(item)]
        for size in sizes[:0:-1]:
            strides.insert(0, builder.mul(strides[0], size))
        data = builder.inttoptr(args[0], made.data.type)
        context.populate_array(
            made, data=data, shape=sizes, strides=strides, itemsize=_LONG(item), meminfo=None
        )
        return made._getvalue()

    return kind(types.int64, types.UniTuple(types.int64, len(shape)), dtype), generate
