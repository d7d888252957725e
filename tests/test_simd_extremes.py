"""Lines of 64 bytes against NumPy, lane by lane."""

import numpy as np
import pytest

from numbatch.kernels import simd_extremes as lines
from numbatch.kernels.jit import cpu_kernel


@cpu_kernel
def fold_two(values, at, other, out):
    size = lines.numbers_in_line(values)
    x, y = lines.load_line(values, at), lines.load_line(values, other)
    out[0], out[1] = size, lines.next_line(values, at)
    out[2] = lines.least_of_line(lines.lesser(x, y))
    out[3] = lines.greatest_of_line(lines.greater(x, y))
    out[4] = lines.all_kept(lines.keep_where_numbers(x, y, lines.fill_line(values, 1.0)))
    out[5] = lines.least_of_line(lines.fill_line(values, 0.1))
    out[6] = lines.greatest_of_line(lines.fill_line(values, 0.1))


def folded(values, at, other):
    out = np.empty(7)
    fold_two(values, at, other, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_against_numpy(dtype):
    size = 64 // np.dtype(dtype).itemsize
    values = np.random.default_rng(0).standard_normal(3 * size).astype(dtype)
    for lane in range(size):
        values[[5 + lane, 7 + size + lane]] = -9, 9  # each lane is the least, and the greatest
        out = folded(values, 5, 7 + size)
        both = values[5 : 5 + size], values[7 + size : 7 + 2 * size]
        assert out[[0, 2, 3]].tolist() == [size, np.min(both), np.max(both)]
        assert out[4:].tolist() == [True, dtype(0.1), dtype(0.1)]
        values[[5 + lane, 7 + size + lane]] = 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_gives_way_and_is_noticed(dtype):
    size = 64 // np.dtype(dtype).itemsize
    for lane in range(size):
        values = np.arange(2 * size, dtype=dtype)
        values[lane] = np.nan
        assert folded(values, 0, size)[2:5].tolist() == [lane == 0, 2 * size - 1, False]
        assert not folded(values, size, 0)[4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_next_line_begins_where_the_caches_does(dtype):
    values = np.zeros(100, dtype)
    size = 64 // values.itemsize
    for at in range(40):
        found = int(folded(values, at, 0)[1])
        assert at < found <= at + size
        assert (values.ctypes.data + found * values.itemsize) % 64 == 0


def test_the_next_line_of_elements_across_lines_is_near():
    values = np.frombuffer(bytes(8 * 64 + 1), np.float64, offset=1)
    for at in range(40):
        assert at < folded(values, at, 0)[1] <= at + 8
