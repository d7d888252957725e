"""The statistics' CUDA twins, in the simulator; host functions name what they cannot do."""

import math

import numpy as np
import pytest
from simulated import run_simulated

from numbatch import statistics
from numbatch.errors import InputError
from numbatch.kernels.statistics.block_tree import BLOCK, BlockTree
from numbatch.kernels.statistics.cuda.tree import subtree_at
from numbatch.kernels.statistics.sums import RunningSum


def test_in_the_simulator():
    run_simulated("simulated_statistics.py")


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 7), (3, 1), (5, 22), (7, 9), (6, 2)])
def test_what_is_left_over_covers_the_interval(first, count):
    node = subtree_at.py_func
    left = [(level, node(first, count, level, 0)) for level in range(8)]
    right = [(level, node(first, count, level, 1)) for level in range(7, -1, -1)]
    at = first
    for level, place in left + right:
        if place >= 0:
            assert place << level == at
            at += 1 << level
    assert at == first + count


def test_subtrees_appended_are_those_of_the_values():
    values = np.random.default_rng(0).standard_normal(BLOCK * 6 + 11)
    whole = RunningSum().update(values)
    kind = RunningSum
    tree = BlockTree(kind._reduce_blocks, kind._combine, kind._fold, 2)
    tree.update(values[: BLOCK + 5])
    part = tree.following()
    part.update(values[BLOCK + 5 :])
    tree.merge(part)
    assert tree.result()[1] == whole.sum


def test_a_part_stays_as_it_is_when_a_state_without_values_takes_it():
    values = np.random.default_rng(0).standard_normal(BLOCK * 4)
    part = RunningSum().update(values[: BLOCK * 3])
    before = part.sum
    whole = RunningSum().merge(part).update(values[BLOCK * 3 :])
    assert whole.sum == RunningSum().update(values).sum
    part._node = None  # which remembers the sum
    assert part.sum == before


class OnDevice:
    """What any array on a GPU has; nothing of it can be read here."""

    shape = (4,)
    dtype = np.dtype(np.float32)
    __cuda_array_interface__ = {"typestr": "<f4", "shape": (4,), "data": (0, False)}  # noqa: RUF012


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: statistics.spearman(x, x),
        lambda x: statistics.PairedSample().update(x, x),
        lambda x: statistics.Sample().update(x),
    ],
)
def test_what_has_no_kernel_says_so(compute):
    with pytest.raises(InputError, match="lies on a GPU, where this has no kernel"):
        compute(OnDevice())


def test_parts_are_together():
    made = statistics.OrderStatistics().update([1.0])
    with pytest.raises(InputError, match="some on the host"):
        made.update(OnDevice())
    assert math.isclose(made.quantile(0.5), 1.0)
