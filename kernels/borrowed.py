"""Arrays whose references are not counted.

A kernel's slices and calls count references to the arrays that they touch, with atomic
instructions of some 20 cycles each: too much for what works on 16 numbers. The caller of a kernel
holds its arrays until the kernel returns, so the kernel may do without.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["borrowed"]


@intrinsic
def borrowed(typing: Any, array: Any) -> Any:
    """Return an array (or a tuple of arrays) without its owner; valid while the array is."""

    def without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        made = context.make_array(kind)(context, builder, value)
        for name in ("meminfo", "parent"):
            setattr(made, name, ir.Constant(getattr(made, name).type, None))
        return made._getvalue()

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if isinstance(array, types.Array):
            return without_owner(context, builder, array, args[0])
        parts = cgutils.unpack_tuple(builder, args[0])
        found = [
            without_owner(context, builder, kind, part)
            for kind, part in zip(array.types, parts, strict=True)
        ]
        return context.make_tuple(builder, sig.return_type, found)

    return array(array), generate
