import numpy as np
import pytest

from numbatch.kernels import simd
from numbatch.kernels.jit import cpu_kernel


@cpu_kernel
def multiply_add(a, b, c, out):
    for i in range(0, a.size, simd.LANES):
        total = simd.fma(simd.load_float32(a, i), simd.load_float32(b, i), simd.splat(c))
        simd.store_float32(out, i, total)


@cpu_kernel
def total(a):
    return simd.sum_lanes(simd.load_float32(a, 0))


@cpu_kernel
def integers(a, b, out):
    x, y = simd.load_uint8(a, 0), simd.load_int8(b, 0)
    simd.store_float32(out, 0, simd.to_float32(((x >> 2) & 15) + (y - simd.lanes())))


def test_fma_rounds_as_float64_would():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 64)).astype(np.float32)
    out = np.empty_like(a)
    multiply_add(a, b, np.float32(0.5), out)
    exact = a.astype(np.float64) * b.astype(np.float64) + 0.5
    np.testing.assert_allclose(out, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_lanes_are_added_in_the_stated_order(seed):
    values = np.random.default_rng(seed).standard_normal(16).astype(np.float32) * 10**seed
    expected = values
    while len(expected) > 1:
        half = len(expected) // 2
        expected = expected[:half] + expected[half:]
    assert total(values) == expected[0]


def test_integer_vectors_know_their_sign():
    a = np.arange(200, 216).astype(np.uint8)
    b = np.arange(-8, 8).astype(np.int8)
    out = np.empty(16, np.float32)
    integers(a, b, out)
    assert out.tolist() == [
        float(((x >> 2) & 15) + (y - i))
        for i, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True))
    ]
