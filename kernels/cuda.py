"""The one place that imports numba.cuda: options, devices, memory, launches.

Importing this needs no driver and no CuPy: both are asked for by :class:`Gpu`. Kernels import
``cuda`` from here for thread indices, barriers and shared memory.

With ``NUMBA_ENABLE_CUDASIM=1`` everything runs in Numba's simulator, on the CPU and very slowly. It
has no warps, so there a warp has one lane (``LANES``); kernels that name their lanes by ``LANES``
are right in both.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numba
import numpy as np

from numbatch.errors import DeviceError
from numbatch.kernels.cuda_launch import Launcher
from numbatch.kernels.jit import FAST

__all__ = [
    "LANES",
    "CudaKernel",
    "Gpu",
    "array_pointer",
    "can_overlap",
    "check_on_device",
    "count_gpus",
    "cuda",
    "cuda_device",
    "cuda_kernel",
    "is_simulated",
    "rounded_product",
    "warp_barrier",
]

OLDEST_DRIVER = (13, 0)
"""CUDA version that the driver has to support: that of CuPy's and numba-cuda's libraries."""

INSTALL = "python -m pip install 'numbatch[cuda]'"

RECENT = 6
"""Launches named by an error that a device reports later than the launch that caused it."""


def is_simulated() -> bool:
    """Whether kernels run in Numba's simulator instead of on a GPU."""
    return bool(numba.config.ENABLE_CUDASIM)


def _import_cuda() -> Any:
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


cuda: Any = _SimulatedThread() if is_simulated() else _import_cuda()
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
    return tuple(_import_cuda().get_current_device().compute_capability) >= (9, 0)


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
        self.compiled = _import_cuda().jit(**options)(body)


class Gpu:
    """One GPU: its stream, its memory, and launches on it.

    All work of a Gpu runs in one stream, in order. Memory comes from CuPy's pool.

    Parameters
    ----------
    number : int
        Which of the machine's GPUs.

    Attributes
    ----------
    stream : cupy.cuda.Stream or None
        None in the simulator.
    numba_stream : Any
        The same for Numba.

    Raises
    ------
    DeviceError
        If there is no such GPU, or what is needed to use it is missing, too old or too new. The
        message says what, and how to get it.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._recent: deque[tuple[str, Any, Any]] = deque(maxlen=RECENT)
        self.stream: Any = None
        self.numba_stream: Any = 0
        self._launcher: Launcher | None = None
        self._overlaps = False
        if is_simulated():
            return
        self._cupy = _check_installation()
        count = _count_devices(self._cupy)
        if not 0 <= number < count:
            raise DeviceError(f"there is no GPU {number}: this machine has {count}, from 0 on")
        _import_cuda().select_device(number)
        self._cupy.cuda.Device(number).use()
        self.stream = self._cupy.cuda.Stream(non_blocking=True)
        self.stream.use()
        self.numba_stream = _import_cuda().external_stream(self.stream.ptr)
        self._launcher = Launcher(_core_stream(self.numba_stream))
        # A step of one sequence has small launches; numba-cuda would warn of each.
        from numba.cuda.core import config

        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

    def use(self) -> None:
        """Make the calling thread work on this GPU; Numba and CuPy ask for it in each thread."""
        if self.stream is not None:
            _import_cuda().select_device(self.number)
            self._cupy.cuda.Device(self.number).use()
            self.stream.use()

    def launch(self, kernel: CudaKernel, grid: Any, block: Any, *args: Any) -> None:
        """Start a kernel; it runs after what was started before.

        Parameters
        ----------
        kernel : CudaKernel
        grid, block : int or tuple of int
            Blocks, and threads of each. Nothing is started where ``grid`` holds a 0.

        Raises
        ------
        DeviceError
            If it cannot be started; names the kernel and the launch.
        """
        if 0 in (grid if isinstance(grid, tuple) else (grid,)):
            return
        self._recent.append((kernel.name, grid, block))
        try:
            early = self._overlaps and kernel.early
            if not self._launcher or not self._launcher.start(
                kernel, grid, block, args, early=early
            ):
                kernel.compiled[grid, block, self.numba_stream, kernel.shared](*args)
        except numba.core.errors.NumbaError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError) or is_simulated():
                raise
            raise DeviceError(
                f"kernel {kernel.name} with {grid} blocks of {block} threads could not be "
                f"launched: {error}"
            ) from error

    @contextmanager
    def overlapping(self) -> Iterator[None]:
        """Let kernels that wait themselves begin while the kernel before them still runs."""
        self._overlaps = can_overlap()
        try:
            yield
        finally:
            self._overlaps = False

    def synchronize(self) -> None:
        """Wait until everything that was started is done.

        Raises
        ------
        DeviceError
            If a kernel failed meanwhile; names the last ones launched and their shapes.
        """
        if self.stream is None:
            return
        try:
            self.stream.synchronize()
        except Exception as error:
            raise DeviceError(self.failure(error)) from error

    def seconds_of(self, run: Callable[[], Any]) -> float:
        """Return the time on the device between an event before ``run`` and one after it.

        Work that was started before is waited for first. In the simulator it is the host's time.
        """
        self.synchronize()
        if self.stream is None:
            begin = perf_counter()
            run()
            return perf_counter() - begin
        first, last = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        first.record(self.stream)
        run()
        last.record(self.stream)
        self.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(first, last)) * 1e-3

    def failure(self, error: BaseException) -> str:
        """Describe a failure of the device, which may be noticed later than it happened."""
        launches = ", ".join(
            f"{name} ({grid} blocks of {block} threads)" for name, grid, block in self._recent
        )
        return f"the GPU failed: {error}; the last kernels launched were {launches or 'none'}"

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the device, C-contiguous, with any content.

        Raises
        ------
        MemoryError
            If there is not enough memory.
        """
        if is_simulated():
            return _import_cuda().to_device(np.zeros(shape, dtype))
        return _import_cuda().as_cuda_array(self._cupy.empty(shape, dtype), sync=False)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array of zeros on the device."""
        if is_simulated():
            return self.empty(shape, dtype)
        return _import_cuda().as_cuda_array(self._cupy.zeros(shape, dtype), sync=False)

    def upload(self, host: np.ndarray) -> Any:
        """Return a copy of an array on the device, C-contiguous."""
        array = self.empty(host.shape, host.dtype)
        self.write(array, host)
        return array

    def write(self, array: Any, host: np.ndarray) -> None:
        """Overwrite a device array, or its first ``host.size`` elements, from the host."""
        if is_simulated():
            flat = array._ary.reshape(-1)
            flat[: host.size] = host.reshape(-1)
        elif host.size:
            contiguous = np.ascontiguousarray(host)
            self._cupy.cuda.runtime.memcpyAsync(
                array_pointer(array), contiguous.ctypes.data, contiguous.nbytes,
                self._cupy.cuda.runtime.memcpyHostToDevice, self.stream.ptr,
            )  # fmt: skip

    def download(self, array: Any) -> np.ndarray:
        """Return a copy of a device array on the host; waits for it.

        Raises
        ------
        DeviceError
            If a kernel failed before.
        """
        if is_simulated():
            return array.copy_to_host()
        try:
            return array.copy_to_host(stream=self.numba_stream)
        except Exception as error:
            raise DeviceError(self.failure(error)) from error
        finally:
            self.synchronize()

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes of the device."""
        if is_simulated():
            return 2**31, 2**31
        free, total = self._cupy.cuda.runtime.memGetInfo()
        return free + self._cupy.get_default_memory_pool().free_bytes(), total

    def pointer_attributes(self, pointer: int) -> Any:
        """Return what the driver knows of an address, the number of its ``device`` among it."""
        return self._cupy.cuda.runtime.pointerGetAttributes(pointer)

    @property
    def multiprocessors(self) -> int:
        """How many multiprocessors the device has."""
        if is_simulated():
            return 2
        return int(self._cupy.cuda.Device(self.number).attributes["MultiProcessorCount"])


def _core_stream(stream: Any) -> Any:
    """Return Numba's stream as cuda.core has it."""
    from numba.cuda.cudadrv.driver import _to_core_stream

    return _to_core_stream(stream)


def array_pointer(array: Any) -> int:
    """Return the address of a device array."""
    return int(array.__cuda_array_interface__["data"][0])


def check_on_device(name: str, array: Any) -> None:
    """Raise DeviceError unless an argument lies on a GPU."""
    simulated = is_simulated() and hasattr(array, "copy_to_host")
    if not simulated and not hasattr(array, "__cuda_array_interface__"):
        raise DeviceError(
            f"{name} is a {type(array).__name__} in the host's memory, should be an array on the "
            f"GPU; Gpu.upload copies it there"
        )


def count_gpus() -> int:
    """Return how many GPUs this machine has.

    Raises
    ------
    DeviceError
        If what is needed to use them is missing, too old or too new.
    """
    return 1 if is_simulated() else _count_devices(_check_installation())


def _check_installation() -> Any:
    """Return CuPy, or say what is missing."""
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5):
        raise DeviceError(
            f"NumPy {np.__version__} is too new for numba-cuda, which needs one before 2.5: "
            f"python -m pip install 'numpy<2.5'"
        )
    for module, package in (("numba_cuda", "numba-cuda"), ("cupy", "CuPy")):
        if importlib.util.find_spec(module) is None:
            raise DeviceError(f'device="cuda" needs {package}, which is not installed: {INSTALL}')
    import cupy

    return cupy


def _count_devices(cupy: Any) -> int:
    """Return how many GPUs there are; raise DeviceError if the driver is missing or too old."""
    newest = "; get a newer one from https://www.nvidia.com/drivers"
    try:
        version = int(cupy.cuda.runtime.driverGetVersion())
    except Exception as error:
        raise DeviceError(f"the NVIDIA driver cannot be used: {error}{newest}") from error
    found = (version // 1000, version % 1000 // 10)
    if version == 0:
        raise DeviceError(f"no NVIDIA driver was found on this machine{newest}")
    if found < OLDEST_DRIVER:
        raise DeviceError(
            f"the NVIDIA driver supports CUDA {found[0]}.{found[1]}, {OLDEST_DRIVER[0]}."
            f"{OLDEST_DRIVER[1]} or later is needed{newest}"
        )
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise DeviceError(f"no GPU can be used: {error}") from error
