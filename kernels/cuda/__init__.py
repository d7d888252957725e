"""The one place that imports numba.cuda: options, devices, memory, launches.

Importing this needs no driver and no CuPy: both are asked for by :class:`Gpu`.
"""

from numbatch.kernels.cuda.gpu import Gpu, array_pointer, check_on_device
from numbatch.kernels.cuda.installation import count_gpus
from numbatch.kernels.cuda.kernels import (
    LANES,
    CudaKernel,
    can_overlap,
    cuda,
    cuda_device,
    cuda_kernel,
    is_simulated,
    rounded_product,
    warp_barrier,
)
from numbatch.kernels.cuda.transfers import Download

__all__ = [
    "LANES",
    "CudaKernel",
    "Download",
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
