"""Fork and join of a team of threads in compiled code.

A thread that Python starts anew for each kernel takes the interpreter's lock twice, to begin and to
tell that it is done; the caller waited 0.1 ms for the latter alone, twice a step of 3 ms. Here each
thread stays in compiled code, where it waits for a function and its arguments on a board: so a call
takes about 2 us while the thread still looks at the board, and 75 to 140 where it sleeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbatch.kernels.aligned import aligned
from numbatch.kernels.barrier import (
    SPINS,
    add_atomically,
    arrive,
    await_count,
    look_for,
    yield_core,
)
from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["call_on_team", "dismiss", "entry_of", "new_board", "rest", "serve"]

ASKED, DONE = 0, 1
"""Rows of the board that count, as barriers do: calls, and threads that have done theirs."""
FUNCTION, ARGUMENTS, FAILED, RESTING = range(4)
"""Of the third row: what is called, by its address; 0 to leave. Whether to sleep at once."""

LOOKS, TURNS = 32, 500
"""Looks at the board before a thread offers its core to others, and how often it does that before
it goes to sleep: 0.3 ms, longer than what lies between a step's calls.
"""

_LONG = ir.IntType(64)
_ENTRY = types.none(types.int64, types.int64, types.int64)


def new_board() -> np.ndarray:
    """Return a board on which nothing was asked: int64, shape (3, 8), a cache line a row."""
    return aligned((3, 8), np.int64)


@intrinsic
def _pack(typing: Any, args: Any) -> Any:
    """Put a tuple into the memory of the function that calls it; return the address."""

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        place = cgutils.alloca_once_value(builder, values[0])
        return builder.ptrtoint(place, _LONG)

    return types.int64(args), generate


def entry_of(function: Any) -> Any:
    """Make the intrinsic that returns a function's entry for packed arguments, ``entry(args)``.

    The address of code that calls ``function(thread, threads, *args)``, itself a Numba function
    of thread, threads and the address of what :func:`_pack` put there. A function that is handed on
    as an argument would do, but code that knows one by its address is not kept on disk.
    """
    kind = types.Dispatcher(function)

    def entry(typing: Any, args: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            kinds = (types.int64, types.int64, *args.types)
            called = context.get_function(kind, kind.get_call_type(typing, kinds, {}))
            context.add_linking_libs(getattr(called, "libs", ()))
            convention = context.call_conv
            shape = convention.get_function_type(_ENTRY.return_type, _ENTRY.args)
            made = ir.Function(builder.module, shape, builder.module.get_unique_name("entry"))
            made.linkage = "internal"
            convention.decorate_function(made, ("thread", "threads", "packed"), _ENTRY.args)
            inner = ir.IRBuilder(made.append_basic_block())
            thread, threads, address = convention.get_arguments(made)
            pointer = context.get_value_type(args).as_pointer()
            every = cgutils.unpack_tuple(inner, inner.load(inner.inttoptr(address, pointer)))
            called(inner, (thread, threads, *every))
            convention.return_value(inner, context.get_dummy_value())
            return builder.ptrtoint(made, _LONG)

        return types.int64(args), generate

    return intrinsic(entry)


@intrinsic
def _call_at(typing: Any, address: Any, thread: Any, threads: Any, packed: Any) -> Any:
    """Call what :func:`_entry` returned; return whether it raised."""

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        convention = context.call_conv
        kind = convention.get_function_type(_ENTRY.return_type, _ENTRY.args)
        function = builder.inttoptr(values[0], kind.as_pointer())
        status, _ = convention.call_function(
            builder, function, _ENTRY.return_type, _ENTRY.args, values[1:]
        )
        return status.is_error

    return types.boolean(*[types.int64] * 4), generate


@cpu_device
def call_on_team(board, threads, entry, args):
    """Call what has an entry (:func:`entry_of`) on all threads of a team at a time, and wait.

    Returns how many of them raised.
    """
    packed = _pack(args)
    board[2, FUNCTION], board[2, ARGUMENTS] = entry, packed
    board[2, FAILED] = board[2, RESTING] = 0
    wanted = add_atomically(board[DONE], 0, 0) + threads - 1
    if threads > 1:
        arrive(board[ASKED])
    failed = _call_at(entry, 0, threads, packed)
    await_count(board[DONE], wanted, SPINS)
    return board[2, FAILED] + failed


def rest(board: np.ndarray) -> None:
    """Let the threads sleep until the next call: others need their cores."""
    board[2, RESTING] = 1


@cpu_kernel
def dismiss(board):
    """Let the threads that serve a board leave. No error check."""
    board[2, FUNCTION] = 0
    arrive(board[ASKED])


@cpu_kernel
def serve(board, asked, thread, threads):
    """Do a thread's share of every call, until there is nothing more to call. No error check.

    Parameters
    ----------
    board : int64 array, shape (3, 8)
        Made by :func:`new_board`; modified in place.
    asked : int
        Calls before this thread was there.
    thread, threads : int
    """
    while True:
        asked += 1
        for _ in range(TURNS):
            if board[2, RESTING] or look_for(board[ASKED], asked, LOOKS):
                break
            yield_core()
        await_count(board[ASKED], asked, 0)
        if board[2, FUNCTION] == 0:
            return
        if _call_at(board[2, FUNCTION], thread, threads, board[2, ARGUMENTS]):
            add_atomically(board[2], FAILED, 1)
        arrive(board[DONE])
