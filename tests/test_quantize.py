"""Activations as int8: what the codes stand for, blocks alone and sixteen at a time."""

import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring.quantize import keep_rest, quantize_row


@cpu_kernel
def _quantize(x, at, columns, codes, factors, sums):
    quantize_row(x, at, columns, codes, 0, factors, sums, 0)


@cpu_kernel
def _keep_rest(x, columns, codes, factors):
    keep_rest(x, 0, columns, codes, 0, factors, 0)


def quantized(x, together=True):
    """Codes, scales, scaled sums and sums of a row; by itself or block after block."""
    blocks = -(-len(x) // 32)
    codes, factors = np.zeros(32 * blocks, np.int8), np.zeros(2 * blocks, np.float32)
    sums = np.zeros(blocks, np.int32)
    for first in range(0, len(x), len(x) if together else 32):
        size, b = len(x) if together else min(32, len(x) - first), first // 32
        _quantize(x, first, size, codes[first:], factors[2 * b :], sums[b:])
    return codes, factors[::2], factors[1::2], sums


def rows(columns):
    x = np.random.default_rng(2).standard_normal(columns).astype(np.float32)
    x[:16] *= 1e-5
    x[40] = 3e4
    x[64:96] = 0
    return x


@pytest.mark.parametrize("columns", [16, 32, 48, 512, 576, 1552])
def test_codes_scales_and_sums(columns):
    x = np.resize(rows(1552), columns)
    codes, scales, scaled, sums = quantized(x)
    wide = np.zeros((len(scales), 32), np.float32)
    wide.reshape(-1)[:columns] = x
    peak = np.abs(wide).max(1)
    np.testing.assert_array_equal(scales, peak / np.float32(127))
    np.testing.assert_array_equal(sums, codes.reshape(-1, 32).sum(1, dtype=np.int32))
    np.testing.assert_array_equal(scaled, scales * sums.astype(np.float32))
    error = np.abs(codes.reshape(-1, 32) * scales[:, None] - wide).max(1)
    assert (error <= 0.501 * scales).all()


@pytest.mark.parametrize("columns", [512, 1552])
def test_sixteen_blocks_have_the_bits_of_each_alone(columns):
    x = np.resize(rows(1552), columns)
    for together, alone in zip(quantized(x), quantized(x, together=False), strict=True):
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("columns", [64, 576])
def test_what_is_no_number_makes_its_block_nan(bad, columns):
    x = np.resize(rows(1552), columns)
    x[33] = bad
    _, scales, scaled, _ = quantized(x)
    for found in (scales, scaled):
        assert np.isnan(found).tolist() == [block == 1 for block in range(columns // 32)]


def test_the_rest_is_what_codes_leave():
    x = rows(576)
    codes, scales, _, _ = quantized(x)
    rest = x.copy()
    _keep_rest(rest, 576, codes, np.stack([scales, scales], 1).reshape(-1))
    exact = x.astype(np.float64) - codes * np.repeat(scales.astype(np.float64), 32)
    np.testing.assert_allclose(rest, exact, atol=1e-3 * scales.min(initial=1) + 1e-9, rtol=1e-5)
