"""Copies between the host and a GPU that nobody waits for.

A copy from or to memory that the system may move elsewhere waits for all that was started before,
so these go through memory that it may not ("pinned").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from numbatch.errors import DeviceError

__all__ = ["Download", "Staging"]


class Download:
    """An array on its way to the host.

    Parameters
    ----------
    host : array
        Where it arrives.
    event : cupy.cuda.Event or None
        When it is there; None: it is.
    failure : function
        What a failure of the device is described with.
    """

    def __init__(
        self, host: np.ndarray, event: Any, failure: Callable[[BaseException], str]
    ) -> None:
        self._host, self._event, self._failure = host, event, failure

    def wait(self) -> np.ndarray:
        """Return the array, once it is there.

        Raises
        ------
        DeviceError
            If a kernel failed before.
        """
        if self._event is not None:
            try:
                self._event.synchronize()
            except Exception as error:
                raise DeviceError(self._failure(error)) from error
        return self._host


class Staging:
    """Pinned memory for copies in one stream, kept until they are done.

    Parameters
    ----------
    cupy : module
    stream : cupy.cuda.Stream
    """

    def __init__(self, cupy: Any, stream: Any) -> None:
        self._cupy, self._stream = cupy, stream
        self._under_way: deque[tuple[Any, Any]] = deque()

    def upload(self, pointer: int, host: np.ndarray) -> None:
        """Start to copy a contiguous array to an address; it may be changed at once."""
        while self._under_way and self._under_way[0][0].done:
            self._under_way.popleft()
        memory, staged = self._pinned(host.nbytes)
        staged[:] = host.reshape(-1).view(np.uint8)
        self._copy(pointer, staged.ctypes.data, host.nbytes, "memcpyHostToDevice")
        self._under_way.append((self._mark(), memory))

    def download(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, Any]:
        """Start to copy an array from an address; return the host's, and when it is there."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        _, staged = self._pinned(size)
        self._copy(staged.ctypes.data, pointer, size, "memcpyDeviceToHost")
        return staged.view(dtype).reshape(shape), self._mark()

    def _pinned(self, size: int) -> tuple[Any, np.ndarray]:
        memory = self._cupy.cuda.alloc_pinned_memory(size)
        return memory, np.frombuffer(memory, np.uint8, size)

    def _copy(self, to: int, source: int, size: int, kind: str) -> None:
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, source, size, getattr(runtime, kind), self._stream.ptr)

    def _mark(self) -> Any:
        event = self._cupy.cuda.Event(block=False, disable_timing=True)
        event.record(self._stream)
        return event
