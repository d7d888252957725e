"""Vector operations against NumPy's, lane by lane."""

import numpy as np

from numbatch.kernels import simd
from numbatch.kernels.jit import cpu_device, cpu_kernel


@cpu_kernel
def integer_operations(unsigned, signed, at, number, out):
    """Every operator, with a number on either side; sums stay exact in float32."""
    a, b = simd.load_uint8(unsigned, at), simd.load_int8(signed, at)
    results = (
        (a & b, a | b, a + b, b - a),
        (a & 15, a | 3, 7 - a, b - 8),
        ((a >> 4) << 2, number >> simd.lanes(), a >> (simd.lanes() & 7), b + number),
    )
    for i in range(3):
        for j in range(4):
            simd.store_float32(out, (4 * i + j) * 16, simd.to_float32(results[i][j]))


@cpu_kernel
def float_operations(unsigned, scale, least, out):
    a = simd.to_float32(simd.load_uint8(unsigned, 0))
    simd.store_float32(out, 0, a * scale + least)
    simd.store_float32(out, 16, least - scale * a)
    simd.store_float32(out, 32, a * a - a)


def test_integer_operations() -> None:
    rng = np.random.default_rng(0)
    unsigned = rng.integers(0, 256, 19, dtype=np.uint8)
    signed = rng.integers(-128, 128, 19).astype(np.int8)
    out = np.empty(12 * 16, np.float32)
    integer_operations(unsigned, signed, 3, np.int64(54321), out)
    a, b, lanes = unsigned[3:].astype(np.int32), signed[3:].astype(np.int32), np.arange(16)
    wanted = [
        *(a & b, a | b, a + b, b - a),
        *(a & 15, a | 3, 7 - a, b - 8),
        *((a >> 4) << 2, 54321 >> lanes, a >> (lanes & 7), b + 54321),
    ]
    assert np.array_equal(out.reshape(12, 16), np.array(wanted, np.float32))


def test_float_operations_round_each_result() -> None:
    """A fused multiply-add would round once and differ in some lanes."""
    unsigned = np.arange(200, 216, dtype=np.uint8)
    scale, least = np.float32(0.1), np.float32(-20.123457)
    out = np.empty(48, np.float32)
    float_operations(unsigned, scale, least, out)
    a = unsigned.astype(np.float32)
    assert np.array_equal(out[:16], a * scale + least)
    assert np.array_equal(out[16:32], least - scale * a)
    assert np.array_equal(out[32:], a * a - a)
    fused = (a.astype(np.float64) * scale + least).astype(np.float32)
    assert not np.array_equal(out[:16], fused)


@cpu_kernel
def repeat_each(numbers, out):
    for i in range(numbers.size):
        simd.store_float32(out, 16 * i, simd.splat_at(numbers, i))


def test_a_number_of_an_array_in_every_lane() -> None:
    numbers = np.array([1.5, -0.0, np.nan, np.inf], np.float32)
    out = np.empty(64, np.float32)
    repeat_each(numbers, out)
    assert np.array_equal(out.view(np.uint32), np.repeat(numbers, 16).view(np.uint32))


@cpu_device
def sum_rows(numbers, out):
    """Sum rows of 16 numbers, one after another."""
    simd.align_stack()
    x = np.float32(0)
    for i in range(0, 640, 16):
        x += simd.sum_lanes(simd.load_float32(numbers, i))
    out[0] = x


@cpu_kernel
def call_sum_rows(numbers, out):
    sum_rows(numbers, out)


def test_a_function_with_an_aligned_stack_computes_the_same() -> None:
    numbers, out = np.arange(640, dtype=np.float32), np.empty(1, np.float32)
    call_sum_rows(numbers, out)
    assert out[0] == numbers.sum()
