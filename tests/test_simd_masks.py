"""Masks, packed stores and powers of two against NumPy's, lane by lane."""

import numpy as np
import pytest

from numbatch.kernels import simd
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd_exp import LOG2_E, exp, exp2, exp2_from
from numbatch.kernels.simd_masks import (
    above,
    at_least,
    count_bits,
    equal,
    largest_lane,
    load_part,
    lowest_bit,
    not_numbers,
    store_lanes_where,
    store_where,
    swap_neighbours,
    where,
)


@cpu_kernel
def compare(a, b, masks, out):
    x, y = simd.load_float32(a, 0), simd.load_float32(b, 0)
    masks[0], masks[1] = above(x, y), at_least(x, y)
    masks[2], masks[3] = equal(x, y), not_numbers(x, y)
    masks[4], masks[5] = count_bits(masks[0]), lowest_bit(masks[0])
    simd.store_float32(out, 0, where(masks[0], x, y))


@cpu_kernel
def pack(x, mask, floats, integers):
    store_where(floats, 1, simd.load_float32(x, 0), mask)
    store_lanes_where(integers, 1, simd.lanes(), mask)


@cpu_kernel
def read_part(x, at, count, out):
    part = load_part(x, at, count, np.float32(-3))
    simd.store_float32(out, 0, part)
    return largest_lane(part)


@cpu_kernel
def powers(x, factor, whole, out, from_whole):
    for i in range(0, x.size, 16):
        simd.store_float32(out, i, exp2(simd.load_float32(x, i)))
        power = exp2_from(simd.load_float32(x, i), simd.splat(factor), simd.splat(whole))
        simd.store_float32(from_whole, i, power)


def bits(flags):
    return sum(1 << i for i in np.flatnonzero(flags))


def test_comparisons():
    a = np.array([1, 2, -0.0, 0, np.nan, 1, np.inf, -np.inf] * 2, np.float32)
    b = np.array([1, 1, 0.0, 5, 1, np.nan, 3, -np.inf] * 2, np.float32)
    masks, out = np.empty(6, np.int64), np.empty(16, np.float32)
    compare(a, b, masks, out)
    wanted = [a > b, a >= b, a == b, np.isnan(a) | np.isnan(b)]
    assert masks[:4].tolist() == [bits(each) for each in wanted]
    assert masks[4:].tolist() == [np.count_nonzero(a > b), np.flatnonzero(a > b)[0]]
    assert np.array_equal(out, np.where(a > b, a, b), equal_nan=True)


@pytest.mark.parametrize("mask", [0, 1, 0x8000, 0xFFFF, 0x5A3C, 0x0FF0])
def test_packed_stores_write_the_lanes_of_the_mask(mask):
    x = np.arange(16, dtype=np.float32) + 0.5
    floats, integers = np.full(17, -1, np.float32), np.full(17, -1, np.int32)
    pack(x, mask, floats, integers)
    kept = [lane for lane in range(16) if mask >> lane & 1]
    assert floats[1 : 1 + len(kept)].tolist() == [lane + 0.5 for lane in kept]
    assert integers[1 : 1 + len(kept)].tolist() == kept
    assert (floats[0], integers[0]) == (-1, -1)


@pytest.mark.parametrize("count", [0, 1, 7, 15, 16, 40])
def test_a_part_is_read_and_the_rest_filled(count):
    x = np.arange(100, 130, dtype=np.float32)
    out = np.empty(16, np.float32)
    top = read_part(x, 3, count, out)
    count = min(count, 16)
    assert out.tolist() == [*range(103, 103 + count), *[-3] * (16 - count)]
    assert top == out.max()


def test_powers_are_within_one_unit_in_the_last_place():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-125, 126, 60000), np.linspace(-2, 2, 4000)]).astype(np.float32)
    out, from_whole = np.empty_like(x), np.empty_like(x)
    powers(x, np.float32(LOG2_E), np.float32(0), out, from_whole)
    exact = 2.0 ** x.astype(np.float64)
    assert np.max(np.abs(out - exact) / np.spacing(exact.astype(np.float32))) < 1
    whole = np.float32(120)
    powers(x[x > 0], np.float32(LOG2_E), whole, out, from_whole)
    exponent = x[x > 0] * np.float64(np.float32(LOG2_E)) - whole
    near = np.abs(exponent) < 60
    exact = 2.0 ** exponent[near]
    found = from_whole[: len(exponent)][near]
    # Without a fused multiply-add, the product is rounded: an exponent of 2**7 to 2**-17.
    assert np.max(np.abs(found / exact - 1)) < 2**-16
    fused = np.float32(1 + 2**-12) * np.float32(1 + 2**-12)  # not exact in float32
    assert fused == 1 + 2**-11


def test_powers_at_the_edges():
    x = np.zeros(16, np.float32)
    x[:9] = [0, 1, -1, 126, -126, -127, -1e30, -np.inf, np.nan]
    out, unused = np.empty(16, np.float32), np.empty(16, np.float32)
    powers(x, np.float32(1), np.float32(0), out, unused)
    assert out[:4].tolist() == [1, 2, 0.5, 2.0**126]
    assert out[5:8].tolist() == [0, 0, 0]
    assert 0 <= out[4] < 1.2e-38
    assert np.isnan(out[8])


@cpu_kernel
def exchange(x, out):
    simd.store_float32(out, 0, swap_neighbours(simd.load_float32(x, 0)))


def test_neighbours_are_exchanged():
    out = np.empty(16, np.float32)
    exchange(np.arange(16, dtype=np.float32), out)
    assert out.tolist() == [i ^ 1 for i in range(16)]


@cpu_kernel
def exponentials(x, out):
    for i in range(0, x.size, 16):
        simd.store_float32(out, i, exp(simd.load_float32(x, i)))


def test_exponentials_are_within_two_units():
    x = np.linspace(-87.3, 88.7, 160_000, dtype=np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    exact = np.exp(x.astype(np.float64))
    assert np.all(np.abs(out - exact) <= 2 * np.spacing(exact.astype(np.float32)))
    edges = np.array([-np.inf, -87.34, 0, 88.73, np.inf, np.nan] + [1] * 10, np.float32)
    exponentials(edges, out)
    wanted = np.array([0, 0, 1, np.inf, np.inf, np.nan], np.float32)
    assert np.array_equal(out[:6], wanted, equal_nan=True)
