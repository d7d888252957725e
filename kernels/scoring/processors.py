"""A user's own functions on rows of logits, compiled.

A processor, ``(logits, argument, position) -> None``, changes the row that a token is drawn from. A
scorer, ``(logits, target, position) -> float``, computes what a scored token is worth.

A function is compiled behind a C interface, and kernels call it by its address: so their own
machine code is one for all functions and stays in the cache on disk, and each request may have a
function of its own. A call costs nanoseconds, once a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.extending import intrinsic

from numbatch.kernels.jit import cpu_callback

__all__ = [
    "CompiledFunction",
    "call_processor",
    "call_scorer",
    "check_processor",
    "check_scorer",
    "compile_processor",
    "compile_scorer",
]

_ROW = (types.CPointer(types.float32), types.intp)
_PROCESSOR = types.int32(*_ROW, types.int64, types.int64)
_SCORER = types.int32(*_ROW, types.int64, types.int64, types.CPointer(types.float64))


@dataclass(frozen=True, slots=True)
class CompiledFunction:
    """A user's function as machine code.

    Parameters
    ----------
    function : function
        The user's, as it was given.
    callback : object
        Keeps the machine code.
    address : int
        Where it is.
    """

    function: Callable[..., Any]
    callback: Any
    address: int


def check_processor(function: Any) -> None:
    """Raise ValueError if a function cannot be a processor, as far as is seen without compiling."""
    _check(function, "(logits, argument, position)")


def check_scorer(function: Any) -> None:
    """Raise ValueError if a function cannot be a scorer, as far as is seen without compiling."""
    _check(function, "(logits, target, position)")


def _check(function: Any, wanted: str) -> None:
    if not isinstance(function, Dispatcher):
        kind = "a function that is not compiled" if callable(function) else "no function"
        raise ValueError(f"is {kind} ({function!r}), should be one decorated with numba.njit")
    parameters = inspect.signature(function.py_func).parameters.values()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [each for each in parameters if each.kind in places]
    needed = [each for each in given if each.default is inspect.Parameter.empty]
    if len(given) < len(list(parameters)) or not len(needed) <= 3 <= len(given):
        raise ValueError(
            f"takes {inspect.signature(function.py_func)}, should take three arguments, {wanted}"
        )


def compile_processor(function: Any) -> CompiledFunction:
    """Compile a user's function for the sampler.

    Parameters
    ----------
    function : function
        Decorated with ``numba.njit``. It takes one row of logits (float32, modified in place), the
        request's own integer, and how many tokens the request has drawn before.

    Raises
    ------
    ValueError
        If it is not such a function, or does not compile; the message holds Numba's.
    """
    check_processor(function)

    def call(pointer, size, argument, position):
        try:
            function(carray(pointer, (size,)), argument, position)
        except Exception:
            return 1
        return 0

    return _compiled(function, call, _PROCESSOR)


def compile_scorer(function: Any) -> CompiledFunction:
    """Compile a user's function for scoring.

    Parameters
    ----------
    function : function
        Decorated with ``numba.njit``. It takes one row of logits (float32), the token that follows
        in the text and its place in the text, and returns a number.

    Raises
    ------
    ValueError
        If it is not such a function, or does not compile; the message holds Numba's.
    """
    check_scorer(function)

    def call(pointer, size, target, position, out):
        try:
            out[0] = function(carray(pointer, (size,)), target, position)
        except Exception:
            return 1
        return 0

    return _compiled(function, call, _SCORER)


def _compiled(function: Any, call: Any, signature: Any) -> CompiledFunction:
    try:
        callback = cpu_callback(call, signature)
    except NumbaError as error:
        raise ValueError(f"does not compile: {error}") from error
    return CompiledFunction(function, callback, callback.address)


def _call(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Make the call of a function at an address with a row, two integers and the rest."""
    address, row, *rest = args
    made = context.make_array(sig.args[1])(context, builder, row)
    passed = [made.data, made.nitems, *rest]
    kind = ir.FunctionType(ir.IntType(32), [each.type for each in passed])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), passed)


@intrinsic
def call_processor(typing: Any, address: Any, row: Any, argument: Any, position: Any) -> Any:
    """Call the function at an address on a row of logits; return 0, or 1 if it raised."""
    return types.int32(types.int64, row, types.int64, types.int64), _call


@intrinsic
def call_scorer(typing: Any, address: Any, row: Any, target: Any, position: Any, out: Any) -> Any:
    """Call the function at an address on a row of logits; return 0, or 1 if it raised.

    What it returns is written to the first element of ``out``, a float64 array.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out = context.make_array(sig.args[4])(context, builder, args[4])
        return _call(context, builder, sig, [*args[:4], out.data])

    return types.int32(types.int64, row, types.int64, types.int64, out), generate
