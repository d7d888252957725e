"""Products of bytes and numbers of 16 bits: exact, the same on every path."""

import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd import load_int32, splat_int32, store_float32, store_int32
from numbatch.kernels.simd_bytes import (
    add_short_pairs,
    dot_bytes,
    dot_signed_bytes,
    dot_to_shorts,
)
from numbatch.kernels.simd_halves import load_half


@cpu_kernel
def _dot(a, b, out):
    store_int32(out, 0, dot_bytes(load_int32(out, 0), load_int32(a, 0), load_int32(b, 0)))


@cpu_kernel
def _dot_signed(a, b, out):
    store_int32(out, 0, dot_signed_bytes(load_int32(out, 0), load_int32(a, 0), load_int32(b, 0)))


@cpu_kernel
def _dot_by_shorts(a, b, out):
    sums = splat_int32(np.int32(0))
    for at in range(0, a.size, 64):
        sums = dot_to_shorts(sums, load_int32(a, at), load_int32(b, at))
    store_int32(out, 0, add_short_pairs(load_int32(out, 0), sums))


@cpu_kernel
def _widen(halves, out):
    for i in range(0, halves.size, 16):
        store_float32(out, i, load_half(halves, i))


def _sums(a, b):
    return (a.astype(np.int64) * b).reshape(-1, 16, 4).sum((0, 2))


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def _signed(rng, least, count=64):
    """Return signed bytes, the least and the largest often among them."""
    some = rng.integers(least, 128, count)
    return np.where(rng.random(count) < 0.5, rng.choice([least, 127], count), some).astype(np.int8)


def test_unsigned_times_signed_bytes(rng):
    for _ in range(50):
        a, b = 128 + _signed(rng, -128).astype(np.int16), _signed(rng, -128)
        start = rng.integers(-1000, 1000, 16).astype(np.int32)
        out = start.copy()
        _dot(a.astype(np.uint8), b, out)
        np.testing.assert_array_equal(out, start + _sums(a, b))


def test_signed_bytes(rng):
    for _ in range(50):
        a, b = _signed(rng, -128), _signed(rng, -127)
        start = rng.integers(-1000, 1000, 16).astype(np.int32)
        out = start.copy()
        _dot_signed(a, b, out)
        np.testing.assert_array_equal(out, start + _sums(a, b))


def test_half_bytes_by_sums_of_16_bits(rng):
    """Eight at a time, as many as a block of 32 columns has, the largest ones too."""
    for size in (15, rng.integers(0, 16, 512)):
        a = np.broadcast_to(size, 512).astype(np.uint8)
        for b in (np.full(512, 127, np.int8), np.full(512, -127, np.int8), _signed(rng, -127, 512)):
            out = np.full(16, 7, np.int32)
            _dot_by_shorts(a, b, out)
            np.testing.assert_array_equal(out, 7 + _sums(a, b))


def test_every_float16_is_widened_exactly():
    halves = np.arange(1 << 16).astype(np.uint16)
    out = np.empty(halves.size, np.float32)
    _widen(halves, out)
    expected = halves.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(out[numbers].view(np.uint32), expected[numbers].view(np.uint32))
    assert np.isnan(out[~numbers]).all()
