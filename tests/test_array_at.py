"""Arrays over memory that is known by its address."""

import numpy as np
import pytest

from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_kernel


@cpu_kernel
def _copy(address, rows, columns, out):
    x = array_at(address, (rows, columns), np.float32)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j]


@cpu_kernel
def _fill(address, size, value):
    x = array_at(address, (size,), np.uint8)
    for i in range(x.size):
        x[i] = value


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4)])
def test_it_reads_the_memory_in_rows(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    out = np.zeros_like(x)
    _copy(x.ctypes.data, *shape, out)
    assert np.array_equal(out, x)


def test_it_writes_to_the_memory():
    x = np.zeros(8, np.uint8)
    _fill(x.ctypes.data + 2, 4, 9)
    assert x.tolist() == [0, 0, 9, 9, 9, 9, 0, 0]
