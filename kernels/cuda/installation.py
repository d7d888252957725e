"""What a machine needs for its GPUs to be used, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from numbatch.errors import DeviceError
from numbatch.kernels.cuda.kernels import is_simulated

__all__ = ["check_installation", "count_devices", "count_gpus"]

OLDEST_DRIVER = (13, 0)
"""CUDA version that the driver has to support: that of CuPy's and numba-cuda's libraries."""

INSTALL = "python -m pip install 'numbatch[cuda]'"


def count_gpus() -> int:
    """Return how many GPUs this machine has.

    Raises
    ------
    DeviceError
        If what is needed to use them is missing, too old or too new.
    """
    return 1 if is_simulated() else count_devices(check_installation())


def check_installation() -> Any:
    """Return CuPy.

    Raises
    ------
    DeviceError
        If what is needed beside a driver is missing or too new.
    """
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


def count_devices(cupy: Any) -> int:
    """Return how many GPUs there are.

    Raises
    ------
    DeviceError
        If the driver is missing or too old.
    """
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
