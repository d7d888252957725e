"""Arrays that lie on a GPU, whoever made them, and functions that CPU and GPU share.

Whatever has ``__cuda_array_interface__`` is taken without a copy (CuPy, Numba, PyTorch, JAX).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from numbatch.errors import DeviceError, InputError
from numbatch.kernels.cuda import Gpu, array_pointer, is_simulated
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.ragged import on_device

__all__ = ["blocks_for", "device_vector", "gpu_of", "shared_body", "shared_gpu", "threads_of"]


def shared_body(function: Any) -> Any:
    """Return a ``cpu_device`` function in the form in which CUDA kernels call it.

    Numba compiles it for the GPU anew, with all that it calls, so one body serves both. The
    simulator runs Python, where simulated arrays are none that compiled functions take; there the
    function is called on the memory behind them.
    """
    if not is_simulated():
        return function
    compiled = cpu_kernel(function.py_func)

    def call(*args: Any) -> Any:
        return compiled(*(getattr(getattr(arg, "_item", arg), "_ary", arg) for arg in args))

    return call


@functools.cache
def _gpu(number: int) -> Gpu:
    return Gpu(number)


def shared_gpu(number: int = 0) -> Gpu:
    """Return the Gpu whose stream all functions of device arrays run in.

    Work of another ``Gpu`` of the same device is in another stream, which they do not wait for.
    """
    return _gpu(number)


def gpu_of(array: Any, name: str) -> Gpu:
    """Return the GPU that an array lies on.

    Raises
    ------
    InputError
        If it lies on the host.
    DeviceError
        If it is in memory that no GPU owns, or the GPU cannot be used.
    """
    if not on_device(array):
        raise InputError(
            f"{name} is a {type(array).__name__} in the host's memory, should be an array on a GPU"
        )
    if is_simulated():
        return shared_gpu(0)
    first, pointer = shared_gpu(0), array_pointer(array)
    if pointer == 0:  # of an empty array
        first.use()
        return first
    attributes = first.pointer_attributes(pointer)
    gpu = first if attributes.device == 0 else shared_gpu(attributes.device)
    gpu.use()
    return gpu


def device_vector(array: Any, name: str, gpu: Gpu, dtypes: tuple[str, ...]) -> Any:
    """Return an array as a flat view that kernels take, when what wrote it is done.

    Parameters
    ----------
    array : device array
    name : str
        For messages.
    gpu : Gpu
        Where it should lie.
    dtypes : tuple of str
        The dtypes that are taken.

    Raises
    ------
    InputError
        If it is on the host, of another dtype, or not contiguous.
    DeviceError
        If it lies on another GPU.
    """
    owner = gpu_of(array, name)
    if owner.number != gpu.number:
        raise DeviceError(
            f"{name} lies on GPU {owner.number}, should be on GPU {gpu.number} with the rest"
        )
    view = array if is_simulated() else _view_of(array)
    if np.dtype(view.dtype).name not in dtypes:
        raise InputError(
            f"{name} has dtype {np.dtype(view.dtype).name}, should be {_any_of(dtypes)}"
        )
    if not view.is_c_contiguous():
        raise InputError(f"{name} is not contiguous, should be")
    return view if len(view.shape) == 1 else view.reshape(int(np.prod(view.shape)))


def _view_of(array: Any) -> Any:
    from numbatch.kernels.cuda import cuda

    if array.__cuda_array_interface__.get("stream") is None:
        # Numba names no stream where its kernels run in the default one; ours do not wait for it.
        cuda.default_stream().synchronize()
    return cuda.as_cuda_array(array)


def _any_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def threads_of(gpu: int, simulator: int) -> int:
    """Return how many threads a block has, which cost much in the simulator; powers of two."""
    return simulator if is_simulated() else gpu


def blocks_for(items: int, each: int) -> int:
    """Return how many blocks of ``each`` cover ``items``."""
    return -(-int(items) // each)
