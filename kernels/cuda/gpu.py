"""A GPU: its stream, its memory, and launches on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numba
import numpy as np

from numbatch.errors import DeviceError
from numbatch.kernels.cuda.installation import check_installation, count_devices
from numbatch.kernels.cuda.kernels import CudaKernel, can_overlap, import_cuda, is_simulated
from numbatch.kernels.cuda.launch import Launcher
from numbatch.kernels.cuda.transfers import Download, Staging

__all__ = ["Gpu", "array_pointer", "check_on_device"]

MOST_STAGED = 1 << 20
"""Bytes up to which a copy to the device goes through pinned memory: more is only for weights."""

RECENT = 6
"""Launches named by an error that a device reports later than the launch that caused it."""


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
        self._cupy = check_installation()
        count = count_devices(self._cupy)
        if not 0 <= number < count:
            raise DeviceError(f"there is no GPU {number}: this machine has {count}, from 0 on")
        import_cuda().select_device(number)
        self._cupy.cuda.Device(number).use()
        self.stream = self._cupy.cuda.Stream(non_blocking=True)
        self.stream.use()
        self.numba_stream = import_cuda().external_stream(self.stream.ptr)
        self._launcher = Launcher(_core_stream(self.numba_stream))
        self._staging = Staging(self._cupy, self.stream)
        # A step of one sequence has small launches; numba-cuda would warn of each.
        from numba.cuda.core import config

        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

    def use(self) -> None:
        """Make the calling thread work on this GPU; Numba and CuPy ask for it in each thread."""
        if self.stream is not None:
            import_cuda().select_device(self.number)
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
        first = self.mark()
        run()
        last = self.mark()
        self.synchronize()
        return self.seconds_between(first, last)

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
            return import_cuda().to_device(np.zeros(shape, dtype))
        return import_cuda().as_cuda_array(self._cupy.empty(shape, dtype), sync=False)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array of zeros on the device."""
        if is_simulated():
            return self.empty(shape, dtype)
        return import_cuda().as_cuda_array(self._cupy.zeros(shape, dtype), sync=False)

    def upload(self, host: np.ndarray) -> Any:
        """Return a copy of an array on the device, C-contiguous."""
        array = self.empty(host.shape, host.dtype)
        self.write(array, host)
        return array

    def write(self, array: Any, host: np.ndarray) -> None:
        """Overwrite a device array, or its first ``host.size`` elements, from the host.

        The host's may be changed at once.
        """
        if is_simulated():
            flat = array._ary.reshape(-1)
            flat[: host.size] = host.reshape(-1)
        elif host.size:
            contiguous = np.ascontiguousarray(host)
            if contiguous.nbytes <= MOST_STAGED:
                self._staging.upload(array_pointer(array), contiguous)
                return
            self._cupy.cuda.runtime.memcpyAsync(
                array_pointer(array), contiguous.ctypes.data, contiguous.nbytes,
                self._cupy.cuda.runtime.memcpyHostToDevice, self.stream.ptr,
            )  # fmt: skip

    def begin_download(self, array: Any, rows: int | None = None) -> Download:
        """Start to copy an array, or its first rows, to the host."""
        shape = array.shape if rows is None else (rows, *array.shape[1:])
        if is_simulated():
            return Download(array.copy_to_host()[: shape[0]].copy(), None, self.failure)
        host, event = self._staging.download(array_pointer(array), shape, array.dtype)
        return Download(host, event, self.failure)

    def mark(self) -> Any:
        """Return a point in the stream, for :meth:`seconds_between`."""
        if self.stream is None:
            return perf_counter()
        event = self._cupy.cuda.Event()
        event.record(self.stream)
        return event

    def seconds_between(self, first: Any, last: Any) -> float:
        """Return the time from one mark to another; waits for it."""
        if self.stream is None:
            return float(last - first)
        last.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(first, last)) * 1e-3

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
