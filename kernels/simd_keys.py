"""Vectors of 64 bytes of unsigned integers, 16 uint32 or 8 uint64: compared and packed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from numbatch.kernels.simd_masks import pack_lanes

__all__ = ["keys_below", "keys_in_line", "load_keys", "store_keys_where"]

BITS = 512


class KeyLine(types.Type):
    """64 bytes of uint32 or uint64."""

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(name=f"KeyLine({element})")

    @property
    def layout(self) -> ir.VectorType:
        """LLVM's type."""
        return ir.VectorType(ir.IntType(self.element.bitwidth), BITS // self.element.bitwidth)


@register_model(KeyLine)
class _KeyLineModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, numba_type.layout)


@intrinsic
def keys_in_line(typing: Any, array: Any) -> Any:
    """Return how many elements of a uint32 or uint64 array a line holds."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, KeyLine(array.dtype).layout.count)

    return types.intp(array), generate


@intrinsic
def load_keys(typing: Any, array: Any, at: Any) -> Any:
    """Return the line from element ``at`` on of a C-contiguous uint32 or uint64 array."""
    line = KeyLine(array.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(array)(context, builder, args[0])
        place = builder.gep(made.data, [args[1]])
        place = builder.bitcast(place, line.layout.as_pointer())
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return line(array, types.intp), generate


@intrinsic
def keys_below(typing: Any, line: Any, bound: Any) -> Any:
    """Return the mask, an int64, of the lanes that are less than a number of their type."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        layout, word = line.layout, ir.IntType(32)
        undefined = ir.Constant(layout, ir.Undefined)
        one = builder.insert_element(undefined, args[1], word(0))
        places = ir.Constant(ir.VectorType(word, layout.count), [0] * layout.count)
        every = builder.shuffle_vector(one, undefined, places)
        bits = builder.icmp_unsigned("<", args[0], every)
        mask = builder.bitcast(bits, ir.IntType(layout.count))
        return builder.zext(mask, ir.IntType(64))

    return types.int64(line, line.element), generate


@intrinsic
def store_keys_where(typing: Any, array: Any, at: Any, line: Any, mask: Any) -> Any:
    """Write the lanes of the mask next to each other from element ``at`` of an array.

    What follows them is overwritten: a line from ``at`` on is all that may be.
    """
    return types.void(array, types.intp, line, types.int64), pack_lanes(line.layout)
