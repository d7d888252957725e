"""How CUDA kernels are compiled, and what they find out about the thread that runs them.

Kernels import ``cuda`` from here for thread indices, barriers and shared memory. With
``NUMBA_ENABLE_CUDASIM=1`` everything runs in Numba's simulator, on the CPU and very slowly. It has
no warps, so there a warp has one lane (``LANES``); kernels that name their lanes by ``LANES`` are
right in both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from numbatch.kernels.jit import FAST

__all__ = [
    "LANES",
    "CudaKernel",
    "can_overlap",
    "cuda",
    "cuda_device",
    "cuda_kernel",
    "import_cuda",
    "is_simulated",
    "rounded_product",
    "warp_barrier",
]


def is_simulated() -> bool:
    """Whether kernels run in Numba's simulator instead of on a GPU."""
    return bool(numba.config.ENABLE_CUDASIM)


def import_cuda() -> Any:
    """Return ``numba.cuda``, which may be there without a driver."""
    from numba import cuda

    return cuda


class _SimulatedThread:
    """Stands for the thread that asks: the simulator's own way to find it breaks between modules.

    It swaps the name ``cuda`` in the globals of each function while that runs, which threads of
    one block do to each other.
    """

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator import kernel

        return getattr(kernel._get_kernel_context(), name)


cuda: Any = _SimulatedThread() if is_simulated() else import_cuda()
"""``cuda.threadIdx``, ``cuda.syncthreads()``, ``cuda.shared.array(...)`` and so on."""


def _plain_product(x: Any, y: Any) -> Any:
    return x * y


# Numba's own numba.cuda, where numba-cuda is missing, has no libdevice; nothing is launched then.
_LIBDEVICE: Any = None if is_simulated() else getattr(cuda, "libdevice", None)
rounded_product: Any = _plain_product if _LIBDEVICE is None else _LIBDEVICE.dmul_rn
"""The product of two float64 numbers in a kernel, which is never fused with a sum."""

_SIMULATED = is_simulated()
LANES = 1 if _SIMULATED else 32
"""Threads that run in step and exchange values without memory."""


def cuda_device(function: Callable[..., Any] | None = None, *, fast: bool = False) -> Any:
    """Compile a function that CUDA kernels call; it is inlined where that pays.

    A plain function may be wrapped by this and by ``cpu_device``: one body, two drivers.
    """
    if function is None:
        return functools.partial(cuda_device, fast=fast)
    if is_simulated():
        return _quiet(function)
    return cuda.jit(device=True, fastmath=FAST if fast else False)(function)


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let whole numbers wrap around and divisions be infinite, as they do on a GPU."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return run


@cuda_device
def warp_barrier():
    """Wait for the threads of a warp; in the simulator for those of the block, so all must call."""
    if _SIMULATED:
        cuda.syncthreads()
    else:
        cuda.syncwarp()


def can_overlap() -> bool:
    """Whether a kernel can begin while the one before it runs, on the GPU in use."""
    if is_simulated():
        return False
    return tuple(import_cuda().get_current_device().compute_capability) >= (9, 0)


def cuda_kernel(
    function: Callable[..., Any] | None = None,
    *,
    fast: bool = False,
    registers: int | None = None,
    early: bool = False,
    shared: int = 0,
) -> Any:
    """Compile a function that :meth:`Gpu.launch` starts; compiled at its first launch.

    ``registers``: the most that a thread may have, so that more of them run at a time. ``early``:
    it waits itself for what was started before, see :meth:`Gpu.overlapping`. ``shared``: bytes that
    its shared array without a size has, which may be more than others can.
    """
    if function is None:
        return functools.partial(
            cuda_kernel, fast=fast, registers=registers, early=early, shared=shared
        )
    return CudaKernel(function, fast, registers, early, shared)


class CudaKernel:
    """A kernel and its name."""

    def __init__(
        self,
        function: Callable[..., Any],
        fast: bool,
        registers: int | None = None,
        early: bool = False,
        shared: int = 0,
    ) -> None:
        self.name = function.__name__
        self.early, self.shared = early, shared
        self.function = function
        options: dict[str, Any] = {}
        if not is_simulated():
            options["fastmath"] = FAST if fast else False
        if registers is not None and not is_simulated():
            options["max_registers"] = registers
        body = _quiet(function) if is_simulated() else function
        self.compiled = import_cuda().jit(**options)(body)
