"""Vectors of 8 float64 against NumPy's, lane by lane."""

import numpy as np
import pytest

from numbatch.kernels import simd64
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.statistics.masks import numbers_between


@cpu_kernel
def reduce_all(values, at, out):
    x = simd64.load_numbers(values, at)
    y = simd64.load_numbers(values, at + 8)
    out[0] = simd64.sum_lanes64(x)
    out[1] = simd64.sum_lanes64(simd64.where_number(x, x + 1.0))
    out[2] = simd64.sum_lanes64(simd64.where_number(x, simd64.fill(1.0)))
    out[3] = simd64.sum_lanes64(2.0 * y - y * y)
    out[4] = simd64.sum_lanes64(simd64.fill(0.5) + y)
    for count in range(9):
        out[5 + count] = simd64.sum_lanes64(simd64.last_lanes(y, count))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_operations(dtype):
    values = (np.random.default_rng(0).integers(-50, 50, 21) / 4).astype(dtype)  # sums are exact
    out = np.empty(14)
    for nan in (False, True):
        if nan:
            values[[4, 7]] = np.nan
        reduce_all(values, 3, out)
        x, y = values[3:11].astype(np.float64), values[11:19].astype(np.float64)
        assert np.isnan(out[0]) if nan else out[0] == x.sum()
        assert out[1] == np.nansum(x + 1)
        assert out[2] == np.count_nonzero(~np.isnan(x))
        assert out[3] == np.sum(2 * y - y * y)
        assert out[4] == np.sum(y + 0.5)
        assert out[5:].tolist() == [y[8 - count :].sum() for count in range(9)]


@cpu_kernel
def fused_or_not(values, out):
    x = simd64.load_numbers(values, 0)
    out[0] = simd64.sum_lanes64(x * x - 1.0)


def test_results_are_rounded_one_by_one():
    """A fused multiply-add would keep the product's last bits."""
    x = np.full(8, 1 + 2.0**-30)
    out = np.empty(1)
    fused_or_not(x, out)
    assert out[0] == 8 * (x[0] * x[0] - 1.0) != 8 * (2.0**-29 + 2.0**-60)


@cpu_kernel
def alternate(values, out):
    x = simd64.load_numbers(values, 0)
    out[0], out[1] = simd64.sum_alternate(x)
    out[2], out[3] = simd64.sum_alternate(simd64.swap_pairs(x))
    out[4] = simd64.sum_lanes64(x * simd64.swap_pairs(x))
    out[5], out[6] = simd64.sum_alternate(simd64.fill_alternate(1.5, -2.0))


def test_pairs_of_lanes():
    x = np.array([1, 2, 4, 8, 16, 32, 64, 128.0])
    out = np.empty(7)
    alternate(x, out)
    product = 2 * (1 * 2 + 4 * 8 + 16 * 32 + 64 * 128)
    assert out.tolist() == [85, 170, 170, 85, product, 6, -8]


@cpu_kernel
def between(values, low, high):
    return numbers_between(values, 1, low, high)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mask_has_a_bit_for_each_number_between(dtype):
    values = np.random.default_rng(1).integers(-4, 5, 65).astype(dtype)
    values[[5, 6, 64]] = np.nan, np.inf, -np.inf
    for low, high in ((-1.0, 2.0), (-np.inf, 0.0), (0.0, np.inf), (3.0, 3.0), (2.0, 1.0)):
        mask = int(between(values, low, high))
        wanted = (values[1:] >= low) & (values[1:] <= high)
        assert [bool(mask >> i & 1) for i in range(64)] == wanted.tolist()
