"""Reductions whose bits depend on the values and their places alone, not on how they arrived.

A stream is cut into blocks of ``BLOCK`` values, counted from its beginning. Neighbouring blocks are
combined in pairs, those pairs in pairs, and so on: a fixed binary tree over the places of the
stream. Of any interval of the stream, :class:`BlockTree` keeps the largest complete subtrees (at
most two a level) and the values at both ends that do not fill a block. That set is the same however
the interval was fed, in pieces or from several trees merged, so the result is the same to the bit.
It is pairwise summation as well: rounding grows with the logarithm of the number of values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["BLOCK", "BlockTree", "pairs_to_fold"]

BLOCK = 2048
"""Values in a block; 16 KiB of float64, which a first-level cache holds."""


@cpu_device
def pairs_to_fold(blocks, whole):
    """Yield the rows to combine, each pair into its first, so that row 0 is that of all blocks.

    They are the blocks of a stream's beginning, of which ``whole`` are complete: all, or all but
    the last. The order is that of the tree.
    """
    low = 0
    while low < whole:
        size = 1
        while 2 * size <= whole - low:
            size *= 2
        step = 1
        while step < size:
            for left in range(low, low + size, 2 * step):
                yield left, left + step
            step *= 2
        if low > 0:
            yield 0, low
        low += size
    if 0 < whole < blocks:
        yield 0, whole


class BlockTree:
    """The partial results over one interval of a stream.

    Parameters
    ----------
    reduce_blocks : kernel
        ``reduce_blocks(start, stop, values, nodes)``: writes ``nodes[i]``, the result of block
        ``i``, ``values[i * BLOCK:(i + 1) * BLOCK]`` (the last may be shorter).
    combine : kernel
        ``combine(left, right, out)``: writes each combination of a row of ``left`` and of
        ``right`` (the values after it) to the row of ``out``, which may be ``left``.
    fold : kernel
        ``fold(nodes, whole)``: combines the nodes of blocks 0, 1, ... as the tree of a stream does
        (:func:`pairs_to_fold`), into the first row.
    width : int
        Numbers in a node.
    start : int
        Place in the stream of the first value.
    threads : int
        How many threads share the blocks; the result does not depend on it.

    Raises
    ------
    InputError
        If ``start`` is negative, or ``threads`` less than 1.
    """

    def __init__(
        self,
        reduce_blocks: Callable[..., None],
        combine: Callable[..., None],
        fold: Callable[..., None],
        width: int,
        start: int = 0,
        threads: int = 1,
    ) -> None:
        if start < 0:
            raise InputError(f"start is {start}, should be at least 0")
        self._reduce_blocks, self._combine, self._fold = reduce_blocks, combine, fold
        self.width = width
        self._team = ThreadTeam(threads)
        self.start = self.stop = int(start)
        self._head = np.empty(0)
        self._tail = np.empty(0)
        # Level -> node. Left nodes are right children whose sibling lies before the interval;
        # right nodes are left children that wait for theirs.
        self._left: dict[int, np.ndarray] = {}
        self._right: dict[int, np.ndarray] = {}

    def update(self, values: np.ndarray) -> None:
        """Append a flat array of float32 or float64 values."""
        taken = min(-self.stop % BLOCK, len(values))
        if taken:
            self._append_part(values[:taken])
        whole = (len(values) - taken) // BLOCK * BLOCK
        if whole:
            self._push_blocks(self.stop // BLOCK, self._reduce(values[taken : taken + whole]))
            self.stop += whole
        if taken + whole < len(values):
            self._append_part(values[taken + whole :])

    def merge(self, other: BlockTree) -> None:
        """Append the interval of ``other``, which starts where this one stops."""
        if other.start != self.stop:
            raise InputError(f"the part starts at {other.start}, should start at {self.stop}")
        if self.start == self.stop:
            self.stop, self._head, self._tail = other.stop, other._head, other._tail
            # Copies: nodes that wait are combined in place.
            self._left = {level: node.copy() for level, node in other._left.items()}
            self._right = {level: node.copy() for level, node in other._right.items()}
            return
        if len(other._head):
            self._append_part(other._head)
        runs = sorted(other._left.items()) + sorted(other._right.items(), reverse=True)
        self.append_subtrees(runs, other._tail)

    def following(self) -> BlockTree:
        """Return an empty tree that starts where this one stops."""
        return BlockTree(
            self._reduce_blocks,
            self._combine,
            self._fold,
            self.width,
            self.stop,
            self._team.threads,
        )

    def append_subtrees(self, runs: list[tuple[int, np.ndarray]], tail: np.ndarray) -> None:
        """Append complete subtrees, each a level and a node of shape (1, width), then a tail.

        The tree stops at the start of a block, and the tail has fewer values than one.
        """
        place = self.stop // BLOCK
        for level, node in runs:
            self._push(level, place >> level, node)
            place += 1 << level
            self.stop = place * BLOCK
        if len(tail):
            self._append_part(tail)

    def result(self) -> np.ndarray | None:
        """Return the node of the whole interval, shape (width,); None of an empty one."""
        nodes = [self._reduce(part) for part in (self._head,) if len(part)]
        nodes += [node for _, node in sorted(self._left.items())]
        nodes += [node for _, node in sorted(self._right.items(), reverse=True)]
        nodes += [self._reduce(part) for part in (self._tail,) if len(part)]
        if not nodes:
            return None
        total = nodes[0].copy()
        for node in nodes[1:]:
            self._combine(total, node, total)
        return total[0]

    def _append_part(self, values: np.ndarray) -> None:
        """Append values that do not reach beyond the block that they start in."""
        inside_first = self.start // BLOCK == self.stop // BLOCK and self.start % BLOCK
        self.stop += len(values)
        if inside_first:
            self._head = np.concatenate([self._head, values])
            return
        self._tail = np.concatenate([self._tail, values])
        if len(self._tail) == BLOCK:
            self._push(0, self.stop // BLOCK - 1, self._reduce(self._tail))
            self._tail = np.empty(0)

    def _reduce(self, values: np.ndarray) -> np.ndarray:
        nodes = np.empty((-(-len(values) // BLOCK), self.width))
        values = values.view()
        values.flags.writeable = False
        self._team.run(Call(self._reduce_blocks, len(nodes), (values, nodes), grain=16))
        return nodes

    def _push_blocks(self, first: int, nodes: np.ndarray) -> None:
        """Append the nodes of blocks ``first``, ``first + 1``, ...: complete subtrees at once."""
        low = 0
        while low < len(nodes):
            place = first + low
            level = (len(nodes) - low).bit_length() - 1
            if place:
                level = min(level, (place & -place).bit_length() - 1)
            self._fold(nodes[low : low + (1 << level)], 1 << level)
            self._push(level, place >> level, nodes[low : low + 1])
            low += 1 << level

    def _push(self, level: int, place: int, node: np.ndarray) -> None:
        """Append node ``place`` of a level, shape (1, width), and combine what is complete."""
        while place % 2 and level in self._right:
            left = self._right.pop(level)
            self._combine(left, node, left)
            node, place, level = left, place // 2, level + 1
        (self._left if place % 2 else self._right)[level] = node.copy()
