"""Values on their way through shared memory: a thread copies ahead what it will read itself.

Loads into registers end up where the compiler wants them, one after the other where a kernel has
many numbers to hold; copies are under way from where they are begun. No barrier is needed, since a
thread reads what it copied and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda import cuda_device, is_simulated
from numbatch.kernels.scoring.cuda.tiles import copies_done
from numbatch.kernels.scoring.cuda.words import _assembly, _element_pointer
from numbatch.kernels.statistics.cuda.sums import THREADS, WARP

__all__ = ["EIGHTS", "await_all", "begin_eight", "read_eight"]

AHEAD = 2
"""Groups of eight values of a thread that are under way or being read."""
LEFT, NONE = AHEAD - 1, 0
EIGHTS = AHEAD * 8 * THREADS
"""Values of a block's room in shared memory."""

# Of unsigned numbers no negative index is made out.
T1, T2, T3, T4, T5, T6, T7 = (np.uintp(k * THREADS) for k in range(1, 8))

if is_simulated():

    def _copy_eight(room: Any, at: Any, values: Any, place: Any) -> None:
        """Begin to copy eight values, 32 apart, to places THREADS apart; a group."""
        for k in range(8):
            room[at + k * THREADS] = values[place + k * WARP]

    def _await_group() -> None:
        """Wait for the oldest group."""

    def await_all() -> None:
        """Wait for all copies."""

else:

    @intrinsic
    def _copy_eight(typingctx, room, at, values, place):
        """Begin to copy eight values, 32 apart, to places THREADS apart; a group."""
        size = values.dtype.bitwidth // 8
        copies = "".join(
            f"cp.async.ca.shared.global [r + {THREADS * at}], [t + {WARP * at}], {size}; "
            for at in range(0, 8 * size, size)
        )
        template = (
            "{ .reg .u64 t, s; .reg .u32 r; cvta.to.shared.u64 s, $0; cvt.u32.u64 r, s; "
            f"cvta.to.global.u64 t, $1; {copies}cp.async.commit_group; }}"
        )

        def emit(context, builder, signature, args):
            room, at, values, place = args
            to = _element_pointer(context, builder, signature.args[0], room, at)
            source = _element_pointer(context, builder, signature.args[2], values, place)
            operands = [builder.ptrtoint(each, ir.IntType(64)) for each in (to, source)]
            _assembly(builder, template, ir.VoidType(), "l,l,~{memory}", operands, effects=True)
            return context.get_dummy_value()

        return types.none(room, types.uintp, values, types.uintp), emit

    @cuda_device
    def _await_group():
        """Wait for the oldest group."""
        copies_done(LEFT)

    @cuda_device
    def await_all():
        """Wait for all copies."""
        copies_done(NONE)


@cuda_device
def begin_eight(room, turn, thread, values, place):
    """Begin to copy eight values, 32 apart, from ``place`` on, to the room of a turn (0 or 1)."""
    _copy_eight(room, np.uintp(turn * np.int32(8 * THREADS) + thread), values, np.uintp(place))


@cuda_device
def read_eight(room, turn, thread):
    """Return the eight values that were begun first of those not read, from the room of a turn."""
    _await_group()
    i = np.uintp(turn * np.int32(8 * THREADS) + thread)
    return (
        room[i], room[i + T1], room[i + T2], room[i + T3],
        room[i + T4], room[i + T5], room[i + T6], room[i + T7],
    )  # fmt: skip
