"""What all statistics over a :class:`BlockTree` share: the NaN policy, pieces and merging."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from numbatch.kernels.ragged import on_device
from numbatch.kernels.statistics.block_tree import BLOCK, BlockTree
from numbatch.kernels.statistics.values import (
    NanPolicy,
    as_values,
    check_nan_policy,
    check_no_nan,
    check_same_policy,
)
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["BlockStatistic"]


class BlockStatistic:
    """A statistic of a stream of values.

    However the stream is cut into updates, all results are the same to the bit as from one array.
    So are those of parts that say where they start (``start``) and are merged in order. Parts that
    all start at 0 can be merged as well; their results are then right to rounding.

    Parameters
    ----------
    nan_policy : {"propagate", "omit", "raise"}
        What a NaN does: makes every result but the counts NaN, is left out, or raises InputError
        from :meth:`update`.
    start : int
        Place in the stream of the first value.
    threads : int
        How many threads share an update; no result depends on it.

    Raises
    ------
    InputError
        If a parameter is none of these.
    """

    _reduce_blocks: ClassVar[Callable[..., None]]
    _combine: ClassVar[Callable[..., None]]
    _fold: ClassVar[Callable[..., None]]
    _empty: ClassVar[tuple[float, ...]]
    _values_an_item: ClassVar[int] = 1
    _device_kernel: ClassVar[str | None] = None

    def __init__(
        self, nan_policy: NanPolicy = "propagate", start: int = 0, threads: int = 1
    ) -> None:
        check_nan_policy(nan_policy)
        self.nan_policy = nan_policy
        kind = type(self)
        self._tree = BlockTree(
            kind._reduce_blocks,
            kind._combine,
            kind._fold,
            len(kind._empty),
            start * kind._values_an_item,
            threads,
        )
        self._apart: np.ndarray | None = None  # the node of parts that do not adjoin the tree
        self._seen = 0
        self._node: list[float] | None = None

    @classmethod
    def _of(cls, values: Any, nan_policy: NanPolicy, threads: int = 1) -> Self:
        """Return the state of one array, to be read and not updated: few values take less time.

        Results and errors as of :meth:`update`.
        """
        if on_device(values):
            return cls(nan_policy, threads=threads).update(values)
        check_nan_policy(nan_policy)
        return cls.__new__(cls)._read(as_values(values), nan_policy, threads)

    def _read(self, flat: np.ndarray, nan_policy: NanPolicy, threads: int) -> Self:
        kind = type(self)
        blocks = -(-len(flat) // BLOCK)
        nodes = np.empty((blocks, len(kind._empty)))
        if threads == 1:
            kind._reduce_blocks(0, blocks, flat, nodes)
        else:
            call = Call(kind._reduce_blocks, blocks, (flat, nodes), grain=16)
            ThreadTeam(threads).run(call)
        if blocks > 1:
            kind._fold(nodes, len(flat) // BLOCK)
        self.nan_policy, self._seen = nan_policy, len(flat) // kind._values_an_item
        self._node = nodes[0].tolist() if blocks else list(kind._empty)
        if nan_policy == "raise":
            check_no_nan(self.nans, "raise")
        return self

    def update(self, values: Any) -> Self:
        """Add an array of any shape; returns itself.

        An array on a GPU (float32 or float64) is reduced there.

        Raises
        ------
        InputError
            If the dtype is not one of float16, float32, float64, an integer type or bool, or the
            policy is "raise" and there is a NaN; the state is then as it was.
        """
        if on_device(values):
            return self._update_from_device(values)
        return self._update(as_values(values))

    def merge(self, other: Self) -> Self:
        """Add what ``other`` saw; returns itself, and ``other`` stays as it is.

        Raises
        ------
        InputError
            If the NaN policies differ.
        """
        check_same_policy(self.nan_policy, other.nan_policy)
        node = other._apart
        if other._tree.start == self._tree.stop:
            self._tree.merge(other._tree)
        else:
            node = self._join(other._tree.result(), other._apart)
        self._apart = self._join(self._apart, node)
        self._seen += other._seen
        self._node = None
        return self

    @property
    def count(self) -> int:
        """How many values are not NaN."""
        return int(self._whole()[0])

    @property
    def nans(self) -> int:
        """How many values are NaN."""
        return self._seen - self.count

    def _update(self, flat: np.ndarray) -> Self:
        if self.nan_policy == "raise":
            check_no_nan(int(np.count_nonzero(np.isnan(flat))), "raise")
        self._tree.update(flat)
        self._seen += len(flat) // self._values_an_item
        self._node = None
        return self

    def _update_from_device(self, values: Any) -> Self:
        from numbatch.kernels.statistics.cuda.reduce import append_from_device

        kind = type(self)
        part = append_from_device(self._tree, kind._device_kernel, kind._combine, values)
        node = part.result()
        seen = (part.stop - part.start) // kind._values_an_item
        if self.nan_policy == "raise":
            check_no_nan(seen - (0 if node is None else int(node[0])), "raise")
        self._tree.merge(part)
        self._seen += seen
        self._node = None
        return self

    def _whole(self) -> list[float]:
        """Return the numbers of the node of all values; the first is the count."""
        if self._node is None:
            node = self._join(self._tree.result(), self._apart)
            self._node = list(self._empty) if node is None else node.tolist()
        return self._node

    def _get(self, place: int) -> float:
        """Return a number of the node; NaN where the policy makes it so."""
        whole = self._whole()
        if self._seen != whole[0] and check_no_nan(self.nans, self.nan_policy):
            return math.nan
        return whole[place]

    def _join(self, left: np.ndarray | None, right: np.ndarray | None) -> np.ndarray | None:
        if left is None or right is None:
            return right if left is None else left
        out = left.reshape(1, -1).copy()
        type(self)._combine(out, right.reshape(1, -1), out)
        return out[0]
