"""The logistic function by vectors, against float64."""

import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd import load_float32, store_float32
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.simd_sigmoid import sigmoid, sigmoid_short

X = np.concatenate([np.linspace(-100, 100, 4000), [0.0, -0.0, 1e-30, 3e38, -3e38, np.inf]])
X = np.pad(X, (0, -len(X) % 16)).astype(np.float32)


@cpu_kernel
def _exactly(x, out):
    for i in range(0, x.size, 16):
        store_float32(out, i, sigmoid(load_float32(x, i)))


@cpu_kernel
def _shortly(x, out):
    for i in range(0, x.size, 16):
        store_float32(out, i, sigmoid_short(load_float32(x, i)))


def _compare(kernel, error, far_error):
    out = np.empty_like(X)
    kernel(X, out)
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-X.astype(np.float64)))
    near = X > -20
    np.testing.assert_allclose(out[near], exact[near], rtol=error)
    np.testing.assert_allclose(out, exact, rtol=far_error, atol=2e-38)
    kernel(np.full(16, np.nan, np.float32), out[:16])
    assert np.isnan(out[:16]).all()


def test_within_three_units_in_the_last_place():
    _compare(_exactly, 4e-7, 1.5e-6)


@pytest.mark.skipif(simd_path() not in ("amx", "avx512"), reason="AVX-512 only")
def test_the_short_one_is_near_enough_for_bfloat16():
    _compare(_shortly, 2e-4, 2e-4)
