"""Updates of streams from arrays on a device: the part of a tree that one array makes."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of
from numbatch.kernels.statistics.block_tree import BLOCK, BlockTree
from numbatch.kernels.statistics.cuda.counters import start_of
from numbatch.kernels.statistics.cuda.logs import logs_grid, logs_kernel
from numbatch.kernels.statistics.cuda.moments import moments_kernel
from numbatch.kernels.statistics.cuda.pairs import reduce_pairs
from numbatch.kernels.statistics.cuda.sums import SUM_NODES, THREADS, WARPS, reduce_sums
from numbatch.kernels.statistics.cuda.tree import (
    GROUP_LEVELS,
    LEVELS,
    MARKS,
    TREE_THREADS,
    tree_kernel,
)

__all__ = ["append_from_device", "as_device_values"]

FLOATS = ("float32", "float64")


class _Kind(NamedTuple):
    reduce: Any
    each: int
    """Blocks of values that a block of threads reduces."""
    combine: Any
    width: int


@functools.cache
def _kind(name: str, dtype: Any, combine: Any, width: int, whole: bool) -> _Kind:
    reduce, each = reduce_sums, SUM_NODES
    if name == "moments":
        reduce, each = moments_kernel(dtype), WARPS
    elif name == "logs":
        reduce, each = logs_kernel(dtype, whole), WARPS
    elif name == "pairs":
        reduce, each = reduce_pairs, WARPS
    return _Kind(reduce, each, tree_kernel(combine, width), width)


def as_device_values(array: Any, name: str = "values") -> tuple[Gpu, Any]:
    """Return the GPU of an array of any shape, and its elements in C order as a flat array.

    Raises
    ------
    InputError
        If it is not contiguous, or neither float32 nor float64.
    """
    gpu = gpu_of(array, name)
    return gpu, device_vector(array, name, gpu, FLOATS)


def append_from_device(tree: BlockTree, name: str | None, combine: Any, array: Any) -> BlockTree:
    """Return the part of a tree that an array on a device makes, where ``tree`` stops.

    Parameters
    ----------
    tree : BlockTree
        It is not changed; the part can be merged with it.
    name : str or None
        "sums", "moments", "logs" or "pairs"; None where there is no kernel.
    combine : kernel
        The CPU's.
    array : device array

    Raises
    ------
    InputError
        If the array is not one that :func:`as_device_values` takes, or there is no kernel.
    """
    if name is None:
        raise InputError("this statistic has no kernel for the GPU: copy the values to the host")
    gpu, values = as_device_values(array)
    part = tree.following()
    taken = min(-tree.stop % BLOCK, values.size)
    blocks = (values.size - taken) // BLOCK
    if blocks == 0:
        part.update(gpu.download(values))
        return part
    if taken:
        part.update(gpu.download(values[:taken]))
    apart = (taken - start_of(values)) * np.dtype(values.dtype).itemsize
    whole = name != "logs" or apart % 16 == 0
    kind = _kind(name, np.dtype(values.dtype), combine, part.width, whole)
    first = part.stop // BLOCK
    nodes = gpu.empty((blocks, kind.width), np.float64)
    grid = logs_grid(gpu, blocks) if name == "logs" else blocks_for(blocks, kind.each)
    marks = gpu.zeros(MARKS, np.int32)
    claims = (marks,) if name == "logs" else ()
    gpu.launch(kind.reduce, grid, THREADS, values, taken, blocks, nodes, *claims)
    tail = taken + blocks * BLOCK
    out = gpu.empty(2 * LEVELS * kind.width + values.size - tail, np.float64)
    groups = ((first + blocks - 1) >> GROUP_LEVELS) - (first >> GROUP_LEVELS) + 1
    gpu.launch(
        kind.combine, groups, TREE_THREADS, nodes, first, blocks, values, tail, marks, out
    )  # fmt: skip
    found = gpu.download(out)
    subtrees = found[: 2 * LEVELS * kind.width].reshape(LEVELS, 2, 1, kind.width)
    part.append_subtrees(_left_over(subtrees, first, blocks), found[subtrees.size :])
    return part


def _left_over(subtrees: np.ndarray, first: int, count: int) -> list[tuple[int, np.ndarray]]:
    """Return level and node of each subtree, in order."""
    left, right, level, low, high = [], [], 0, first, first + count
    while low < high:
        if low & 1:
            left.append((level, subtrees[level, 0]))
        if high & 1:
            right.append((level, subtrees[level, 1]))
        level, low, high = level + 1, (low + 1) >> 1, high >> 1
    return left + right[::-1]
