"""Values that a thread of the pass will count next, on their way to shared memory.

What a warp does with values that it keeps takes long, and loads to registers would not be under way
meanwhile: 1 GB of float32 took 290 us then, 283 so. Each thread copies for itself alone, so nobody
waits at a barrier: four pieces of 16 bytes are under way but while two of them are read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import LANES, cuda, cuda_device, is_simulated
from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.scoring.cuda.tiles import (
    copies_done,
    finish_copies,
    shared_address,
)
from numbatch.kernels.statistics.cuda.bracket_fours import PASS_THREADS

__all__ = ["AHEAD_BYTES", "FOURS", "TURNS_AHEAD", "Copies", "copies_maker", "first_place"]

PIECE = 16
FOURS = {4: 2, 8: 1}
"""Fours of values of so many bytes that a thread counts in a turn: those in two pieces."""
TURNS_AHEAD = 2
LINE = 128
"""Bytes, of which the place that pieces are copied to is a multiple. Half a line beside it, a pass
took a tenth longer."""
AHEAD_BYTES = 4 * PIECE * PASS_THREADS + LINE
TWICE = np.uint32(2)
WHOLE_LINES = np.uint32(~(LINE - 1) & 0xFFFFFFFF)
_APART = PIECE * PASS_THREADS
"""Bytes from one piece of a thread to its next."""

if is_simulated():

    def first_place(ahead: Any) -> Any:
        """Return where a thread's pieces begin."""
        return np.uint32(cuda.threadIdx.x * (PIECE // ahead.itemsize))

    def _begin_copy(place: Any, values: Any, at: Any, is_there: Any, ahead: Any) -> None:
        for k in range(PIECE // ahead.itemsize):
            ahead[int(place) + k] = values[at + k] if is_there else 0

    def _read(place: Any, ahead: Any) -> Any:
        each = PIECE // ahead.itemsize
        pieces = (int(place), int(place) + each * PASS_THREADS)
        return tuple(ahead[piece + k] for piece in pieces for k in range(each))

    def finish_pieces() -> None:
        """Do nothing."""

    def wait_for_pieces() -> None:
        """Do nothing."""

else:

    @cuda_device
    def first_place(ahead):
        """Return where a thread's pieces begin."""
        begin = np.uint32(np.uint32(shared_address(ahead) + np.uint32(LINE - 1)) & WHOLE_LINES)
        return np.uint32(begin + np.uint32(PIECE * cuda.threadIdx.x))

    @intrinsic
    def _begin_copy(typingctx, place, values, at, is_there, ahead):
        """Begin to copy a piece, or zeros if it is not there, past the first cache.

        The second cache is to forget it first, so that more of what is kept stays there until it is
        read again: 1 GB took some 6 us less.
        """

        def emit(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature.args[1], args[1], args[2])
            whole, none = (ir.Constant(ir.IntType(32), size) for size in (PIECE, 0))
            size = builder.select(args[3], whole, none)
            template = (
                "{ .reg .u64 t; .reg .b64 p; cvta.to.global.u64 t, $1; "
                "createpolicy.fractional.L2::evict_first.b64 p, 1.0; "
                "cp.async.cg.shared.global.L2::cache_hint [$0], [t], 16, $2, p; }"
            )
            operands = [args[0], builder.ptrtoint(pointer, ir.IntType(64)), size]
            assembly(builder, template, ir.VoidType(), "r,l,r,~{memory}", operands, effects=True)
            return context.get_dummy_value()

        return types.none(place, values, types.intp, types.boolean, ahead), emit

    @intrinsic
    def _read(typingctx, place, ahead):
        kind = ahead.dtype
        letter, vector = ("f", "v4.f32") if kind.bitwidth == 32 else ("d", "v2.f64")
        each = PIECE * 8 // kind.bitwidth
        template, names = "", [f"${i}" for i in range(2 * each)]
        for piece in range(2):
            group = ",".join(names[piece * each : (piece + 1) * each])
            template += f"ld.shared.{vector} {{{group}}}, [${2 * each} + {piece * _APART}]; "

        def emit(context, builder, signature, args):
            number = context.get_data_type(kind)
            result = ir.LiteralStructType([number] * (2 * each))
            constraints = f"={letter}," * (2 * each) + "r,~{memory}"
            loaded = assembly(builder, template, result, constraints, [args[0]], effects=True)
            return tuple_of(builder, elements(builder, loaded, 2 * each))

        return types.UniTuple(kind, 2 * each)(place, ahead), emit

    @cuda_device
    def finish_pieces():
        """End a group of copies."""
        finish_copies()

    @cuda_device
    def wait_for_pieces():
        """Wait for all copies of this thread but those of the last group."""
        copies_done(1)


class Copies(NamedTuple):
    """What :func:`copies_maker` makes."""

    unit: int
    """Values that a warp counts in a turn, which lie side by side."""
    first_of: Any
    begin_turns: Any
    begin: Any
    read: Any
    other_place: Any


def copies_maker(size: int) -> Copies:
    """Make the functions that begin to copy, and read, what a thread counts in a turn.

    ``size``: bytes of a value.
    """
    each, unit = PIECE // size, FOURS[size] * 4 * LANES
    second = np.uint32(_APART // (size if is_simulated() else 1))

    @cuda_device
    def other_place(place, first):
        """Return where the other two of a thread's pieces are, that begin at ``first``."""
        return np.uint32(np.uint32(first + np.uint32(first + TWICE * second)) - place)

    @cuda_device
    def begin(values, at, is_there, place, ahead):
        """Begin to copy two pieces to a place, the first from flat element ``at``."""
        _begin_copy(place, values, at, is_there, ahead)
        _begin_copy(np.uint32(place + second), values, at + each * LANES, is_there, ahead)
        finish_pieces()

    @cuda_device
    def read(place, ahead):
        """Return what was copied to a place, when it is there."""
        wait_for_pieces()
        return _read(place, ahead)

    @cuda_device
    def first_of(start):
        """Return where a thread's first values are."""
        lane = cuda.threadIdx.x & (LANES - 1)
        return start + unit * (cuda.grid(1) // LANES) + each * lane

    @cuda_device
    def begin_turns(values, start, ahead):
        """Begin to copy what the first turns of a thread count; return how many turns it has.

        Parameters
        ----------
        values : array
            ``values[start:]`` begins at a multiple of 16 bytes; warps take turns in its units.
        start : int
        ahead : shared array of the same dtype, AHEAD_BYTES long
        """
        warps, own = cuda.gridsize(1) // LANES, cuda.grid(1) // LANES
        units, at = (values.size - start) // unit, first_of(start)
        turns = np.int32((units - own + warps - 1) // warps if own < units else 0)
        place = first_place(ahead)
        begin(values, at, turns > 0, place, ahead)
        place = other_place(place, place)
        begin(values, at + unit * warps, turns > 1, place, ahead)
        return turns

    return Copies(unit, first_of, begin_turns, begin, read, other_place)
