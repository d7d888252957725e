"""PTX instructions, and tuples and arrays as LLVM has them, for what Numba has no functions for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

__all__ = ["assembly", "element_pointer", "elements", "tuple_of"]


def assembly(
    builder: Any, template: str, result: Any, constraints: str, args: Any, *, effects: bool = False
) -> Any:
    """Emit one PTX instruction."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(ir.InlineAsm(kind, template, constraints, side_effect=effects), args)


def elements(builder: Any, aggregate: Any, count: int) -> list[Any]:
    """Return the first elements of a tuple or struct."""
    return [builder.extract_value(aggregate, i) for i in range(count)]


def tuple_of(builder: Any, values: list[Any]) -> Any:
    """Return values of one type as a Numba tuple."""
    out = ir.Constant(ir.ArrayType(values[0].type, len(values)), ir.Undefined)
    for i, value in enumerate(values):
        out = builder.insert_value(out, value, i)
    return out


def element_pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Return the address of the element with flat index ``at`` of a C-contiguous array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at])
