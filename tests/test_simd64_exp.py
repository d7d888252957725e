"""Exponentials of vectors against exact ones."""

import math
from decimal import Decimal

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd64 import LANES64, fill, load_numbers, sum_lanes64
from numbatch.kernels.simd64_exp import LEAST, exp_below_zero


@cpu_kernel
def exponentials(x, out):
    """The sum of eight equal numbers is exact."""
    for i in range(x.size):
        out[i] = sum_lanes64(exp_below_zero(fill(x[i]))) / LANES64


@cpu_kernel
def sum_of_eight(x, out):
    out[0] = sum_lanes64(exp_below_zero(load_numbers(x, 0)))


def exp(numbers):
    numbers = np.asarray(numbers, np.float64)
    out = np.empty(len(numbers))
    exponentials(numbers, out)
    return out


def test_two_units_of_the_last_place():
    rng = np.random.default_rng(0)
    steps = -np.arange(1, 700) * math.log(2) / 2  # where the integer part changes
    steps = steps[steps > LEAST]
    for numbers in (
        -rng.exponential(1, 2000),
        LEAST * rng.random(500),
        steps,
        -(2.0 ** -np.r_[1:80]),
    ):
        for x, got in zip(numbers.tolist(), exp(numbers).tolist(), strict=True):
            wanted = Decimal(x).exp()
            assert abs(Decimal(got) - wanted) <= 2 * Decimal(math.ulp(float(wanted))), x


def test_what_is_zero_and_what_is_one():
    lower = math.nextafter(LEAST, -math.inf)
    numbers = [0.0, -0.0, math.nan, -math.inf, lower, -746.0, -1e300]
    assert exp(numbers).tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert exp([LEAST])[0] > 0


def test_lanes_are_apart():
    x = np.array([0, -1, math.nan, -2, -math.inf, -3, -800, -0.5])
    out = np.empty(1)
    sum_of_eight(x, out)
    assert math.isclose(out[0], exp([0, -1, -2, -3, -0.5]).sum(), rel_tol=1e-15)
