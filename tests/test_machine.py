"""What a machine is measured by."""

import numpy as np
import pytest

from numbatch.batching.machine import measure_limits, reader_of
from numbatch.kernels.machine_limits import CHUNK, read_numbers


@pytest.mark.parametrize("size", [0, 1, 63, 64, 5000, CHUNK, 3 * CHUNK + 65])
def test_all_numbers_are_read(size):
    numbers = np.random.default_rng(0).integers(0, 1000, size).astype(np.float64)
    numbers.flags.writeable = False
    out = np.full(-(-size // CHUNK), np.nan)
    read_numbers(0, len(out), numbers, out)
    wanted = [numbers[low : low + CHUNK].sum() for low in range(0, size, CHUNK)]
    assert out.tolist() == wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_arrays_of_all_types_are_read(dtype):
    reader_of(np.ones((3, 1001), dtype))()


def test_two_threads_have_limits_too():
    limits = measure_limits(2)
    assert limits.threads == 2
    assert min(limits.read, limits.float32, limits.bfloat16, limits.int8) > 0
