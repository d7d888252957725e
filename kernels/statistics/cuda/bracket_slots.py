"""Slots: stretches of numbers, told apart by comparisons.

A slot begins at a number and ends before the next slot's. In its first part, up to its hurdle, a
quantile may be: a value there is kept, all others are counted by slot. So a value needs no key, and
is not compared with both ends of each bracket: that took 27 operations of seven quantiles' values,
and seven accesses to the shared memory, which can do one in a cycle.

Where the ends of a bracket are the same number, as they are where many values are, that has a slot
of its own, from it to the next number, without a hurdle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, elements, tuple_of
from numbatch.kernels.scoring.cuda.tiles import shared_address
from numbatch.kernels.statistics.cuda.keys import COPIES, PLACES

__all__ = ["SLOTS", "find_slot", "first_slots", "slots_maker"]

SLOTS = PLACES
"""At most, the one below all brackets among them."""

_I32 = ir.IntType(32)


def slots_maker(kind: Any) -> Any:
    """Make the function that lays out slots for keys of a dtype, uint32 or uint64."""
    floats = np.float32 if kind == np.uint32 else np.float64
    sign = kind(1 << (8 * np.dtype(kind).itemsize - 1))
    ones, one = kind(np.iinfo(kind).max), kind(1)
    minus_zero = kind(sign - one)
    least = floats(-np.inf)

    @cuda_device
    def number_of(key):
        """Return the number of a key; minus infinity for lesser keys, NaN for greater ones."""
        bits = kind(key ^ sign) if key >= sign else kind(key ^ ones)
        number = floats(kind(bits).view(floats))
        return least if number != number and key < sign else number

    @cuda_device
    def hurdle_of(key):
        """Return the least number above a key's; zeros are of the same size."""
        return number_of(kind(key + one + one) if key == minus_zero else kind(key + one))

    @cuda_device
    def is_point(table, first, last):
        """Whether a stretch of edges is one number, and no zero of the other sign is an edge."""
        key = table[first]
        if key != table[last]:
            return False
        if key in (sign, minus_zero):
            for k in range(1, PLACES):
                if table[k] == (minus_zero if key == sign else sign):
                    return False
        return True

    @cuda_device
    def lay_out(table, edges, begins, classes):
        """Write where slots begin, their hurdles and classes; all threads call.

        Parameters
        ----------
        table : shared array, shape (2 * PLACES,)
            A 0, increasing edges, then the key of NaN; behind them a mark for each place above an
            edge whose keys are kept.
        edges : int
        begins : shared array of floats, shape (2 * SLOTS,)
            Modified in place: where slots begin, behind that their hurdles. Nothing is compared
            with the beginning of slot 0; slots that are not used begin at NaN.
        classes : shared int32 array, shape (SLOTS + 1,)
            Modified in place: where the values of a slot are counted among the keys' classes, and
            at last how many slots there are.
        """
        thread = cuda.threadIdx.x
        i = thread
        while i < SLOTS:
            begins[i], begins[SLOTS + i], classes[i] = floats(np.nan), least, np.int32(0)
            i += cuda.blockDim.x
        cuda.syncthreads()
        last = thread + 1
        while last <= edges:
            slot, first = 1, 1
            for k in range(1, last):
                if table[PLACES + k] == 0:
                    slot += 2 if is_point(table, first, k) else 1
                    first = k + 1
            if table[PLACES + last] == 0:
                if is_point(table, first, last):
                    begins[slot], classes[slot] = number_of(table[last]), np.int32(2 * last - 1)
                    slot += 1
                    begins[slot] = hurdle_of(table[last])
                else:
                    begins[slot] = number_of(table[first])
                    begins[SLOTS + slot] = hurdle_of(table[last])
                classes[slot] = np.int32(2 * last)
            if last == edges:
                classes[SLOTS] = np.int32(slot + 1)
            last += cuda.blockDim.x
        cuda.syncthreads()

    return lay_out


def _search(size: int, levels: int) -> str:
    """Return PTX that finds a value's slot, and whether the value reaches the hurdle.

    The first two levels are compared with registers, the rest and the hurdle with shared memory.
    """
    kind = "f32" if size == 4 else "f64"
    steps = [size << level for level in reversed(range(levels))]
    first = (
        f"setp.ge.{kind} p, $2, $3; selp.{kind} e, $5, $4, p; selp.u32 r, $7, $6, p; "
        f"setp.ge.{kind} p, $2, e; @p add.u32 r, r, {steps[1]}; "
    )
    rest = "".join(
        f"ld.shared.{kind} e, [r + {step}]; setp.ge.{kind} p, $2, e; @p add.u32 r, r, {step}; "
        for step in steps[2:]
    )
    return first + rest + f"ld.shared.{kind} e, [r + {SLOTS * size}]; setp.ge.{kind} p, $2, e; "


if is_simulated():

    def first_slots(begins: Any, copy: Any, counters: Any, levels: Any) -> Any:
        """Return what :func:`find_slot` needs of slots and counters."""
        return begins, copy

    def find_slot(x: Any, given: Any, levels: Any) -> Any:
        """Return where a value is counted, and whether it is to be kept."""
        begins, copy = given
        slot = 0
        for level in reversed(range(levels)):
            slot += (1 << level) if x >= begins[slot + (1 << level)] else 0
        return (slot << COPIES) + int(copy), np.uint32(not x >= begins[SLOTS + slot])

else:

    @cuda_device
    def first_slots(begins, copy, counters, levels):
        """Return what :func:`find_slot` needs of slots and counters.

        Parameters
        ----------
        begins : shared array of floats, shape (2 * SLOTS,)
            Where slots begin, and behind that their hurdles.
        copy : uint32
            Which copy of the counters.
        counters : shared int32 array
            ``1 << COPIES`` copies for each slot.
        levels : int
            There are no more than ``2**levels`` slots, at least 4.
        """
        at = shared_address(begins)
        size, quarter = np.uint32(begins.itemsize), 1 << (levels - 2)
        further = np.uint32(at + np.uint32(size * np.uint32(2 * quarter)))
        # The copies of a slot's counter take as many bytes for each of its number's.
        apart = np.uint32(np.uint32(4 << COPIES) // size)
        own = np.uint32(shared_address(counters) + np.uint32(np.uint32(copy) << np.uint32(2)))
        own = np.uint32(own - np.uint32(at * apart))
        return (begins[2 * quarter], begins[quarter], begins[3 * quarter]), (at, further, own)

    @intrinsic(prefer_literal=True)
    def find_slot(typingctx, x, given, levels):
        """Return where a value is counted, and a 1 if it is to be kept, else a 0.

        NaN is; nothing but what this returns comes of it, so that several are under way at a time.

        Parameters
        ----------
        x : float32 or float64
        given : tuple
            Of :func:`first_slots`.
        levels : int
            A literal.
        """
        size = x.bitwidth // 8
        kind, letter = ("f32", "f") if size == 4 else ("f64", "d")
        search = _search(size, int(levels.literal_value))
        template = (
            f"{{ .reg .pred p; .reg .u32 r; .reg .{kind} e; {search}"
            f"selp.u32 $1, 0, 1, p; mad.lo.u32 $0, r, {(4 << COPIES) // size}, $8; }}"
        )
        constraints = f"=&r,=&r,{letter},{letter},{letter},{letter},r,r,r"

        def emit(context, builder, signature, args):
            numbers, places = elements(builder, args[1], 2)
            operands = [args[0], *elements(builder, numbers, 3), *elements(builder, places, 3)]
            result = ir.LiteralStructType([_I32, _I32])
            found = assembly(builder, template, result, constraints, operands)
            return tuple_of(builder, elements(builder, found, 2))

        return types.UniTuple(types.uint32, 2)(x, given, levels), emit
