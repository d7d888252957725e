"""The one place that sets Numba's options.

Three kinds of function:

``cpu_kernel``
    Called from Python. Releases the GIL, follows IEEE arithmetic, compiled code is kept on disk.
``cpu_device``
    Called from kernels only; compiled into them.
``cpu_callback``
    Called from kernels by its address; not kept on disk.

The first two take ``fast=True`` for arithmetic whose result may be reordered and contracted into
fused multiply-adds. NaN and infinity keep their meaning: ``fastmath=True`` would delete NaN checks,
so it is never used.

Nor are references to arrays counted: Numba would do that, with atomic instructions, at each call
and slice, 6 to 9 % of the time of scoring and of the compiled code. The caller of a kernel holds
its arrays until the kernel returns. ``allocates=True`` is for what makes arrays of its own, which
needs the counts; a function without it neither makes nor returns one.

The compiled code lies in the user's cache folder (``NUMBATCH_CACHE``, else ``XDG_CACHE_HOME``, else
``~/.cache``). Every entry is stamped with a hash of the sources it is made of (source_stamp.py)
and lies in a folder of its own for each CPU.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core import caching
from numba.core.types.misc import unliteral

from numbatch.kernels.device_code import DeviceCompiler
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.source_stamp import source_stamp
from numbatch.kernels.stored_code import StoredCode, StoredFunctions

__all__ = ["cache_folder", "cpu_callback", "cpu_device", "cpu_kernel"]

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}


def cache_folder() -> Path:
    """Return the folder that holds what Numbatch keeps between runs (compiled code, models)."""
    if named := os.environ.get("NUMBATCH_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "numbatch"


@functools.cache
def _machine_folder() -> Path:
    """Return the folder of compiled code for this CPU, these compilers and this installation."""
    features = llvm.get_host_cpu_features().flatten()
    parts = (
        llvm.get_host_cpu_name(),
        features,
        numba.__version__,
        llvmlite.__version__,
        str(Path(__file__).parent.resolve()),
        simd_path(),
    )
    return cache_folder() / "jit" / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _StampedLocator(caching._CacheLocator):
    """Tells Numba where an entry lies and what makes it stale."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file  # Numba's own warnings read these two names
        self._lineno = py_func.__code__.co_firstlineno
        self._path = str(_machine_folder() / self.get_suitable_cache_subpath(py_file))

    def get_cache_path(self) -> str:
        return self._path

    def get_source_stamp(self) -> str:
        return source_stamp(self._py_file)

    def get_disambiguator(self) -> str:
        return str(self._lineno)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _StampedLocator | None:
        if not os.path.isfile(py_file):  # typed into a notebook or a prompt
            return None
        locator = cls(py_func, py_file)
        try:
            locator.ensure_cache_path()
        except OSError:  # a read-only home: compile anew in each process
            return None
        return locator


class _StampedCode(StoredCode):
    _locator_classes: ClassVar = [_StampedLocator]


class _StampedCache(StoredFunctions):
    _impl_class = _StampedCode


def _nothing() -> None:
    """Do nothing."""


def cpu_kernel(
    function: Callable[..., Any] | None = None,
    *,
    fast: bool = False,
    nogil: bool = True,
    allocates: bool = False,
) -> Any:
    """Compile a function that Python calls; its machine code is kept on disk.

    ``nogil=False`` is for one that reads Python's own objects: nobody changes them meanwhile.
    """
    if function is None:
        return functools.partial(cpu_kernel, fast=fast, nogil=nogil, allocates=allocates)
    dispatcher = numba.njit(
        nogil=nogil,
        error_model="numpy",
        fastmath=FAST if fast else False,
        cache=False,
        _nrt=allocates,
    )(function)
    # Before it matches a call's types, Numba imports all packages that extend it (0.15 s where
    # awkward is one). No kernel takes their types, and compiling imports them in any case.
    dispatcher._compilation_chain_init_hook = _nothing
    with contextlib.suppress(RuntimeError):  # raised where there is no folder it can write
        dispatcher._cache = _StampedCache(function)
    return dispatcher


def cpu_device(
    function: Callable[..., Any] | None = None,
    *,
    fast: bool = False,
    inline: bool = False,
    general: bool = False,
    allocates: bool = False,
) -> Any:
    """Compile a function that only kernels call; LLVM inlines it where that pays.

    ``inline``: always. A call passes each array as seven words or more: too much for a function
    that works for a few nanoseconds.

    ``general``: once for all constants. Numba compiles a function anew for each combination of
    numbers and truth values that calls name as constants, which a large one takes seconds for.
    """
    if function is None:
        return functools.partial(
            cpu_device, fast=fast, inline=inline, general=general, allocates=allocates
        )
    dispatcher = numba.njit(
        nogil=True,
        error_model="numpy",
        fastmath=FAST if fast else False,
        _nrt=allocates,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        forceinline=inline,
        pipeline_class=DeviceCompiler,
    )(function)
    if general:
        own = dispatcher.get_call_template

        def without_constants(args: Any, kws: Any) -> Any:
            named = {name: unliteral(kind) for name, kind in kws.items()}
            return own(tuple(unliteral(kind) for kind in args), named)

        dispatcher.get_call_template = without_constants
    return dispatcher


def cpu_callback(function: Callable[..., Any], signature: Any) -> Any:
    """Compile a function for a signature behind a C interface; its ``address`` can be called."""
    return numba.cfunc(signature, nopython=True, error_model="numpy", cache=False)(function)
