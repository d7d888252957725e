"""Launches on a GPU that cannot be."""

import numpy as np
import pytest
from cuda_cases import needs_device, on_gpu

from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu, cuda, cuda_kernel

pytestmark = needs_device


@on_gpu
def test_a_launch_that_fails_names_the_kernel_and_its_shape(gpu):
    @cuda_kernel
    def touch(x):
        x[cuda.threadIdx.x] = 1

    with pytest.raises(DeviceError, match="kernel touch with 1 blocks of 5000 threads"):
        gpu.launch(touch, 1, 5000, gpu.zeros(5, np.float32))


@on_gpu
def test_there_is_no_gpu_a_thousand():
    with pytest.raises(DeviceError, match="there is no GPU 1000"):
        Gpu(1000)
