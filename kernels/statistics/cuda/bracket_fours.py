"""Four values at a time are told apart by slots, counted, and kept where a quantile may be.

What limits the pass are comparisons and whole numbers, of which a multiprocessor does 64 in a
cycle, while memory brings it five float32. So a value takes some fourteen instructions: each thread
counts in its own registers, four bits a slot (a look-up gives the 1 at the slot's place), and what
it keeps goes to its own column of shared memory, by a store that is left out for other values. Sums
that multiply by a 1 which the compiler does not know are done where comparisons are not.
(Counters in shared memory and marks for values that are looked at again took 15, and some 40 more
for each value kept.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, elements, tuple_of
from numbatch.kernels.device_arrays import threads_of
from numbatch.kernels.scoring.cuda.tiles import shared_address
from numbatch.kernels.statistics.cuda.bracket_slots import CELLS
from numbatch.kernels.statistics.cuda.bracket_table import (
    COUNTERS,
    HIGH_ONE,
    HURDLES,
    LOW_ONE,
    PAIR,
    SCALES,
    cell_maker,
    is_below_hurdle,
    slot_maker,
)

__all__ = [
    "PASS_THREADS",
    "apart_in_column",
    "column_of",
    "count_fours",
    "find_fours",
    "first_search",
]

PASS_THREADS = threads_of(256, 8)

_I32 = ir.IntType(32)


def apart_in_column(size: int) -> int:
    """Return how far apart the values of a column are, of so many bytes."""
    return PASS_THREADS if is_simulated() else PASS_THREADS * size


if is_simulated():

    def column_of(stage: Any) -> Any:
        """Return where the thread's column begins."""
        return np.uint32(cuda.threadIdx.x)

    def first_search(table: Any, levels: Any) -> Any:
        """Return what :func:`find_fours` needs of slots."""
        return table, slot_maker(levels)

    def find_fours(four: Any, given: Any, column: Any, stage: Any, levels: Any) -> Any:
        """Return the column's new end, and counts of slots."""
        table, slot_of = given
        low, high = np.uint32(0), np.uint32(0)
        for x in four:
            slot = int(slot_of(x, table))
            one = np.uint32(1 << 4 * (slot & 7))
            low, high = (low + one, high) if slot < 8 else (low, high + one)
            if is_below_hurdle(x, np.uint32(slot), table):
                stage[int(column)] = x
                column = np.uint32(column + PASS_THREADS)
        return column, low, high

    def count_fours(four: Any, there: Any, given: Any, cells: Any, levels: Any) -> Any:
        """Count the first values of four, as many as are there, in their cells."""
        table, slot_of = given
        cell_of = cell_maker(four[0].dtype.type)
        for i, x in enumerate(four):
            if i < there:
                cuda.atomic.add(cells, int(cell_of(x, slot_of(x, table), table)), np.int32(1))

else:

    @cuda_device
    def column_of(stage):
        """Return where the thread's column begins."""
        own = np.uint32(cuda.threadIdx.x * stage.itemsize)
        return np.uint32(shared_address(stage) + own)

    @cuda_device
    def first_search(table, levels):
        """Return what :func:`find_fours` needs of slots.

        Parameters
        ----------
        table : shared array of floats, shape (TABLE,)
        levels : int
            There are no more than ``2**levels`` slots, at least 2.
        """
        half = 1 << (levels - 1)
        quarter = half >> 1
        begins = table[PAIR * half], table[PAIR * quarter], table[PAIR * (half + quarter)]
        return begins, (shared_address(table), np.uint32(min(cuda.blockDim.x, 1)))

    def _search(size: int, levels: int, first: int) -> list[str]:
        """Return the steps of PTX that find the place ``r`` of a value's slot, for each of four.

        The first two levels are compared with registers, the rest with shared memory. ``first`` is
        the number of the operand that begins what :func:`first_search` returns.
        """
        pair = PAIR * size
        names = {"middle": first, "low": first + 1, "high": first + 2, "table": first + 3}
        further = f"@p{{i}} mad.lo.u32 r{{i}}, ${first + 4}, STEP, r{{i}};"
        steps = [
            f"setp.ge.{{k}} p{{i}}, {{x}}, ${names['middle']};",
            f"mov.u32 r{{i}}, ${names['table']};",
            further.replace("STEP", str(pair << (levels - 1))),
        ]
        if levels > 1:
            steps += [
                f"selp.{{k}} e{{i}}, ${names['high']}, ${names['low']}, p{{i}};",
                "setp.ge.{k} p{i}, {x}, e{i};",
                further.replace("STEP", str(pair << (levels - 2))),
            ]
        for level in reversed(range(levels - 2)):
            steps += [
                f"ld.shared.{{k}} e{{i}}, [r{{i}} + {pair << level}];",
                "setp.ge.{k} p{i}, {x}, e{i};",
                further.replace("STEP", str(pair << level)),
            ]
        return steps

    def _found(size: int, levels: int) -> list[str]:
        """Return the steps that find a value's slot, and look it up.

        At last ``q`` says whether the value is to be kept, and ``l`` and ``h`` are the ones for
        counters.
        """
        steps = _search(size, levels, 8)
        if levels > 3:
            steps.append(f"ld.shared.u32 h{{i}}, [r{{i}} + {HIGH_ONE * size}];")
        if size == 4:
            steps.append(f"ld.shared.v2.b32 {{{{w{{i}}, l{{i}}}}}}, [r{{i}} + {HURDLES * size}];")
            steps.append("mov.b32 e{i}, w{i};")
        else:
            steps.append(f"ld.shared.u32 l{{i}}, [r{{i}} + {LOW_ONE * size}];")
            steps.append(f"ld.shared.f64 e{{i}}, [r{{i}} + {HURDLES * size}];")
        steps.append("setp.ltu.{k} q{i}, {x}, e{i};")
        return _of_four(steps, size, 4)

    def _of_four(steps: list[str], size: int, first: int) -> list[str]:
        """Return steps for each of four values, whose operands begin with number ``first``."""
        kind = "f32" if size == 4 else "f64"
        return [step.format(i=i, x=f"${first + i}", k=kind) for step in steps for i in range(4)]

    def _counted(size: int, levels: int) -> str:
        """Return PTX that counts four values in their cells."""
        kind, bits = ("f32", "b32") if size == 4 else ("f64", "b64")
        names = [
            f".reg .pred p{i}; .reg .u32 r{i}, l{i}; .reg .{kind} e{i}, s{i}; .reg .{bits} w{i};"
            for i in range(4)
        ]
        narrow = "mov.b32 l{i}, w{i};" if size == 4 else "cvt.u32.u64 l{i}, w{i};"
        steps = [
            *_search(size, levels, 5),
            "ld.shared.{k} e{i}, [r{i}];",
            f"ld.shared.{{k}} s{{i}}, [r{{i}} + {SCALES * size}];",
            f"ld.shared.{bits} w{{i}}, [r{{i}} + {COUNTERS * size}];",
            narrow,
            "sub.rn.{k} e{i}, {x}, e{i};",
            "mul.rn.{k} e{i}, e{i}, s{i};",
            "cvt.rzi.u32.{k} r{i}, e{i};",
            f"min.u32 r{{i}}, r{{i}}, {CELLS - 1};",
            "mad.lo.u32 r{i}, r{i}, 4, l{i};",
            "setp.gt.s32 p{i}, $4, {i};",
            "@p{i} red.shared.add.u32 [r{i}], 1;",
        ]
        return "{ " + " ".join(names) + " ".join(_of_four(steps, size, 0)) + " }"

    def _template(size: int, levels: int) -> str:
        kind = "f32" if size == 4 else "f64"
        names = [
            f".reg .pred p{i}, q{i}; .reg .u32 r{i}, h{i}, l{i}, w{i}; .reg .{kind} e{i};"
            for i in range(4)
        ]
        sums = "add.u32 l0, l0, l1; add.u32 l2, l2, l3; add.u32 $1, l0, l2; "
        high = "add.u32 h0, h0, h1; add.u32 h2, h2, h3; add.u32 $2, h0, h2; "
        kept = "".join(
            f"@q{i} st.shared.{kind} [$0], ${4 + i}; "
            f"@q{i} mad.lo.u32 $0, $12, {size * PASS_THREADS}, $0; "
            for i in range(4)
        )
        body = " ".join(_found(size, levels)) + sums + (high if levels > 3 else "mov.u32 $2, 0; ")
        return "{ " + " ".join(names) + " mov.u32 $0, $3; " + body + kept + "}"

    @intrinsic(prefer_literal=True)
    def find_fours(typingctx, four, given, column, stage, levels):
        """Count four values by slot, and write those that are kept to a column.

        Parameters
        ----------
        four : tuple
            float32 or float64.
        given : tuple
            Of :func:`first_search`.
        column : uint32
            Address of where the next value is written.
        stage : shared array
            That the column is part of.
        levels : int
            A literal.

        Returns
        -------
        tuple of uint32
            The column's new end; values in each slot, four bits a slot; the same of slots from 8
            on.
        """
        size = four.dtype.bitwidth // 8
        letter = "f" if size == 4 else "d"
        template = _template(size, int(levels.literal_value))
        constraints = f"=&r,=&r,=&r,r,{letter},{letter},{letter},{letter},"
        constraints += f"{letter},{letter},{letter},r,r,~{{memory}}"

        def emit(context, builder, signature, args):
            begins, places = elements(builder, args[1], 2)
            operands = [
                args[2], *elements(builder, args[0], 4), *elements(builder, begins, 3),
                *elements(builder, places, 2),
            ]  # fmt: skip
            result = ir.LiteralStructType([_I32] * 3)
            found = assembly(builder, template, result, constraints, operands, effects=True)
            return tuple_of(builder, elements(builder, found, 3))

        return types.UniTuple(types.uint32, 3)(four, given, column, stage, levels), emit

    @intrinsic(prefer_literal=True)
    def count_fours(typingctx, four, there, given, cells, levels):
        """Count the first values of four, as many as are there, in their cells; NaN in the first.

        Parameters
        ----------
        four : tuple
            float32 or float64.
        there : int32
        given : tuple
            Of :func:`first_search`.
        cells : shared int32 array
            The counters that the table says where they are.
        levels : int
            A literal.
        """
        size = four.dtype.bitwidth // 8
        letter = "f" if size == 4 else "d"
        template = _counted(size, int(levels.literal_value))
        constraints = f"{letter},{letter},{letter},{letter},r,{letter},{letter},{letter},r,r"

        def emit(context, builder, signature, args):
            begins, places = elements(builder, args[2], 2)
            operands = [
                *elements(builder, args[0], 4), args[1], *elements(builder, begins, 3),
                *elements(builder, places, 2),
            ]  # fmt: skip
            assembly(
                builder,
                template,
                ir.VoidType(),
                f"{constraints},~{{memory}}",
                operands,
                effects=True,
            )
            return context.get_dummy_value()

        return types.none(four, types.int32, given, cells, levels), emit
