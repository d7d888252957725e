"""Sixteen rows folded at a time against NumPy, and against one row at a time bit for bit."""

import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd import load_float32, store_float32, sum_lanes
from numbatch.kernels.simd_rows import largest_of_four, largest_of_rows, sum_of_rows


@cpu_kernel
def _largest(x, at, stride, out):
    store_float32(out, 0, largest_of_rows(x, at, stride))


@cpu_kernel
def _largest_of_four(x, at, stride, out):
    store_float32(out, 0, largest_of_four(x, at, stride))


@cpu_kernel
def _sums(x, at, out, alone):
    store_float32(out, 0, sum_of_rows(x, at))
    for row in range(16):
        alone[row] = sum_lanes(load_float32(x, at + 16 * row))


@pytest.mark.parametrize("stride", [64, 80, 100])
@pytest.mark.parametrize("at", [0, 3])
def test_each_lane_has_the_largest_of_its_row(stride, at):
    x = np.random.default_rng(0).standard_normal(at + 16 * stride).astype(np.float32)
    x[at + 5] = -np.inf
    x[at + 2 * stride : at + 2 * stride + 64] = -np.inf
    out = np.empty(16, np.float32)
    _largest(x, at, stride, out)
    wanted = [x[at + row * stride :][:64].max() for row in range(16)]
    assert out.tolist() == wanted
    _largest_of_four(x, at, stride, out)
    assert out.tolist() == wanted[:4] * 4


@pytest.mark.parametrize("at", [0, 5])
def test_each_lane_has_the_sum_of_its_row(at):
    x = np.random.default_rng(1).standard_normal(at + 256).astype(np.float32)
    x[at + 40] = np.inf
    out, alone = np.empty((2, 16), np.float32)
    _sums(x, at, out, alone)
    assert np.array_equal(out, alone)
    exact = x[at:].reshape(16, 16).astype(np.float64).sum(1)
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)
