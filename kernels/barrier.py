"""A barrier for threads that run one kernel together, and arrays from addresses.

A step of a model is some 300 short operations. To fork and join a team of Python threads costs
about 40 us each time; to meet at a barrier inside the kernel a few tenths of one.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["address_pointer", "cycles", "meet", "share", "write_cycles"]

SPINS = 4000
"""Looks at the counter before the thread offers its core to others: about 100 us.

A thread that waits longer waits for one that the system has not given a core.
"""

_LONG = ir.IntType(64)


@intrinsic
def _add_atomically(typing: Any, array: Any, at: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(sig.args[0])(context, builder, args[0])
        pointer = builder.gep(made.data, [args[1]])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _load_atomically(typing: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(sig.args[0])(context, builder, args[0])
        return builder.load_atomic(builder.gep(made.data, [args[1]]), "acquire", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def _pause(typing: Any) -> Any:
    """Tell the CPU that this is a loop that waits: a no-op where there is no such hint."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


_yield_core = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def cycles(typing: Any) -> Any:
    """Return a clock's ticks, of one rate while the machine is up (x86's time stamp counter)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_LONG, [])
        name = "llvm.readcyclecounter"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), generate


@cpu_kernel
def write_cycles(out):
    """Write :func:`cycles` to the first element of an int64 array; no error check."""
    out[0] = cycles()


def _note_time(counter, meeting):
    """Note when a meeting ended, if the counter is one that notes; else do nothing."""
    raise NotImplementedError("only kernels call it")


@overload(_note_time, inline="always")
def _choose_note(counter, meeting):
    if counter.ndim == 2:

        def note(counter, meeting):
            counter[meeting + 1, 0] = cycles()
    else:

        def note(counter, meeting):
            pass

    return note


@cpu_device
def meet(counter, threads, meeting):
    """Wait until all threads are here; return the number of the next meeting. No error check.

    Parameters
    ----------
    counter : int64 array
        Its first element counts arrivals; 0 before the first meeting. One of shape (meetings + 1,
        1) notes in row ``i + 1`` the :func:`cycles` at which the last thread came to meeting ``i``;
        for other counters that is not compiled in.
    threads : int
    meeting : int
        0 at first, then what the last call returned.
    """
    if threads == 1:
        _note_time(counter, meeting)
    else:
        wanted = (meeting + 1) * threads
        arrived = _add_atomically(counter, 0, 1) + 1
        if arrived == wanted:
            _note_time(counter, meeting)
        if arrived < wanted:
            spins = 0
            while _load_atomically(counter, 0) < wanted:
                spins += 1
                if spins < SPINS:
                    _pause()
                else:
                    _yield_core()
    return meeting + 1


@cpu_device
def share(items, grain, thread, threads):
    """Return where a thread's range of items starts and stops; ranges start at whole grains."""
    grains = (items + grain - 1) // grain
    start = min(items, grains * thread // threads * grain)
    stop = min(items, grains * (thread + 1) // threads * grain)
    return start, stop


@intrinsic
def address_pointer(typing: Any, address: Any) -> Any:
    """Return an address as a pointer, for ``numba.carray``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate
