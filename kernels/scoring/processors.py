"""A user's own function in the sampler: ``(logits, argument, position) -> None``, compiled.

The function is compiled behind a C interface, and the sampler calls it by its address: so the
sampler's own machine code is one for all functions and stays in the cache on disk, and each request
may have a function of its own. A call costs nanoseconds, once a row.
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

__all__ = ["CompiledProcessor", "call_processor", "check_processor", "compile_processor"]

_SIGNATURE = types.int32(types.CPointer(types.float32), types.intp, types.int64, types.int64)
WANTED = "(logits, argument, position)"


@dataclass(frozen=True, slots=True)
class CompiledProcessor:
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
    if not isinstance(function, Dispatcher):
        kind = "a function that is not compiled" if callable(function) else "no function"
        raise ValueError(f"is {kind} ({function!r}), should be one decorated with numba.njit")
    parameters = inspect.signature(function.py_func).parameters.values()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [each for each in parameters if each.kind in places]
    needed = [each for each in given if each.default is inspect.Parameter.empty]
    if len(given) < len(list(parameters)) or not len(needed) <= 3 <= len(given):
        raise ValueError(
            f"takes {inspect.signature(function.py_func)}, should take three arguments, {WANTED}"
        )


def compile_processor(function: Any) -> CompiledProcessor:
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

    try:
        callback = cpu_callback(call, _SIGNATURE)
    except NumbaError as error:
        raise ValueError(f"does not compile: {error}") from error
    return CompiledProcessor(function, callback, callback.address)


@intrinsic
def call_processor(typing: Any, address: Any, row: Any, argument: Any, position: Any) -> Any:
    """Call the function at an address on a row of logits; return 0, or 1 if it raised."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address, row, argument, position = args
        made = context.make_array(sig.args[1])(context, builder, row)
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [made.data.type, word, word, word])
        function = builder.inttoptr(address, kind.as_pointer())
        return builder.call(function, [made.data, made.nitems, argument, position])

    return types.int32(types.int64, row, types.int64, types.int64), generate
