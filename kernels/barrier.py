"""A barrier for threads that run one kernel together.

A step of a model is some 300 short operations. To fork and join a team of Python threads costs
about 40 us each time; to meet at a barrier inside the kernel a few tenths of one.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.jit import cpu_device

__all__ = [
    "SPINS",
    "add_atomically",
    "arrive",
    "await_count",
    "look_for",
    "mark",
    "meet",
    "share",
    "yield_core",
]

SPINS = 1000
"""Looks at the counter before the thread goes to sleep: about 50 us.

A thread that waits longer waits for one that has no core, because others use the machine; asleep it
leaves its own core to that thread.
"""

FUTEX, WAIT, WAKE, EVERYONE = 202, 128, 129, 2**31 - 1
"""Linux's system call on x86-64, and its operations within a process."""

HAS_FUTEX = platform.system() == "Linux" and platform.machine() == "x86_64"

_LONG = ir.IntType(64)


@intrinsic
def add_atomically(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Add to an element of an int64 array that other threads change; return what it was."""

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


DOZE = 100
"""Microseconds between looks where no system call waits for a number to change."""

_doze = types.ExternalFunction("usleep", types.int32(types.uint32))
yield_core = types.ExternalFunction("sched_yield", types.int32())
_system_call = types.ExternalFunction("syscall", types.int64(*[types.int64] * 7))


@intrinsic
def _address_of(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = context.make_array(sig.args[0])(context, builder, args[0])
        return builder.ptrtoint(made.data, _LONG)

    return types.int64(array), generate


if HAS_FUTEX:

    @cpu_device
    def _sleep(counter, wanted):
        """Sleep until the counter has reached a number."""
        add_atomically(counter, 1, 1)
        seen = _load_atomically(counter, 0)
        while seen < wanted:
            # Returns at once if the counter is no longer what was seen.
            _system_call(FUTEX, _address_of(counter), WAIT, seen, 0, 0, 0)
            seen = _load_atomically(counter, 0)
        add_atomically(counter, 1, -1)

    @cpu_device
    def _wake(counter):
        """Wake those that sleep."""
        if _load_atomically(counter, 1) > 0:
            _system_call(FUTEX, _address_of(counter), WAKE, EVERYONE, 0, 0, 0)
else:

    @cpu_device
    def _sleep(counter, wanted):
        """Leave the core to others until the counter has reached a number."""
        looks = 0
        while _load_atomically(counter, 0) < wanted:
            looks += 1
            if looks < SPINS:
                yield_core()
            else:
                _doze(DOZE)

    @cpu_device
    def _wake(counter):
        """Nobody sleeps."""


@intrinsic
def _read_cycles(typing: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_LONG, [])
        name = "llvm.readcyclecounter"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), generate


@intrinsic
def _are_counted(typing: Any, cycles: Any) -> Any:
    """Return whether cycles are int64; a constant of the compiled code."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, cycles.dtype == types.int64)

    return types.boolean(cycles), generate


@cpu_device
def mark(cycles, phase, since):
    """Add the cycles since a mark to those of a phase; return the new mark. No error check.

    Parameters
    ----------
    cycles : int64 array, or bool array
        Modified in place: one count for each phase. Of bool: code that reads no clock is made.
    phase : int
    since : int64
    """
    if not _are_counted(cycles):
        return since
    now = _read_cycles()
    if since != 0:
        cycles[phase] += now - since
    return now


@cpu_device
def arrive(counter):
    """Count one more, and wake those that sleep until enough are counted. No error check."""
    add_atomically(counter, 0, 1)
    _wake(counter)


@cpu_device
def look_for(counter, wanted, looks):
    """Look at a counter at most so often until so many are counted; return whether they are."""
    for _ in range(looks):
        if _load_atomically(counter, 0) >= wanted:
            return True
        _pause()
    return False


@cpu_device
def await_count(counter, wanted, looks):
    """Wait until so many are counted; asleep, after so many looks. No error check."""
    if not look_for(counter, wanted, looks):
        _sleep(counter, wanted)


@cpu_device
def meet(counter, threads, meeting):
    """Wait until all threads are here; return the number of the next meeting. No error check.

    Parameters
    ----------
    counter : int64 array
        Its first element counts arrivals, its second those that sleep; 0 before the first meeting.
    threads : int
    meeting : int
        0 at first, then what the last call returned.
    """
    if threads > 1:
        wanted = (meeting + 1) * threads
        if add_atomically(counter, 0, 1) + 1 == wanted:
            _wake(counter)
        else:
            await_count(counter, wanted, SPINS)
    return meeting + 1


@cpu_device
def share(items, grain, thread, threads):
    """Return where a thread's range of items starts and stops; ranges start at whole grains."""
    grains = (items + grain - 1) // grain
    start = min(items, grains * thread // threads * grain)
    stop = min(items, grains * (thread + 1) // threads * grain)
    return start, stop
