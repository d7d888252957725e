"""Which rows of a step each thread works on, where there are enough for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.scoring.activations import BFLOAT16, FLOAT32, INT8
from numbatch.kernels.scoring.bfloat16_product import HAS_TILES
from numbatch.models.decoder import Decoder

__all__ = ["RowRanges", "RowSplitter"]

GRAIN = {FLOAT32: 32, BFLOAT16: 16, INT8: 6}
"""Ranges begin at multiples of so many rows: what products take at a time, or half of it."""

KEY_COST = {FLOAT32: 1.0, BFLOAT16: 1.7 if HAS_TILES else 1.0, INT8: 2.2}
"""How much longer attention's multiply-adds take than the products', which are faster.

With 1 the second of two threads took longer for one text of 512 tokens: 23 ms of 285 in int8 (Zen
4), 21 of 175 in bfloat16 by tiles.
"""

APART = 96
"""Rows a thread from which each has rows of its own: it then unpacks all weights, not a part."""

BLOCK = 288
"""Rows of a block at most: their sums stay in the second level of a core's cache while weights,
unpacked anew for each block, pass by. 128 made 0.85 to 0.9 of the speed, 384 and 512 no more.
"""

WHOLE = {FLOAT32: 32, BFLOAT16: 32, INT8: 48}
"""A block's rows are a multiple of it: no product and no tile of attention has a rest."""


@dataclass(frozen=True, slots=True)
class RowRanges:
    """How a step's rows are shared out.

    Parameters
    ----------
    ranges : int64 array, shape (threads, 2)
        First row and end of each thread; if not ``apart`` all rows.
    apart : bool
        Whether each thread has rows of its own.
    block : int
        Rows that go through a layer at a time.
    breaks : int64 array
        Where blocks begin.
    """

    ranges: np.ndarray
    apart: bool
    block: int
    breaks: np.ndarray


class RowSplitter:
    """Shares out rows so that all threads have about the same to do.

    Parameters
    ----------
    decoder : Decoder
    compute : int
        The arithmetic of products.
    threads : int
    """

    def __init__(self, decoder: Decoder, compute: int, threads: int) -> None:
        config, layer = decoder.config, decoder.layers[0]
        linears = (layer.query, layer.key, layer.value, layer.output, layer.gate, layer.up,
                   layer.down)  # fmt: skip
        weights = (linear.weight for linear in linears if linear is not None)
        # Multiply-adds of a row, and for each key that it sees.
        self._row_cost = sum(weight.rows * weight.columns for weight in weights)
        self._key_cost = 2 * config.heads * config.head_size * KEY_COST[compute]
        self._grain, self._whole, self._threads = GRAIN[compute], WHOLE[compute], threads
        self._together: RowRanges | None = None

    def split(self, positions: np.ndarray) -> RowRanges:
        """Share out the rows of tokens at these positions of their sequences."""
        n, threads = len(positions), self._threads
        if threads > 1 and n < threads * APART:
            if self._together is None or self._together.ranges[0, 1] != n:  # else as last time
                ranges = np.array([(0, n)] * threads)
                self._together = RowRanges(ranges, False, max(1, n), np.empty(0, np.int64))
            return self._together
        costs = np.cumsum(positions * self._key_cost + self._row_cost)
        parts = costs[-1] * np.arange(1, threads) / threads if n else []
        grain = self._grain
        ends = np.searchsorted(costs, parts) + grain // 2
        edges = np.array([0, *(ends // grain * grain).clip(0, n), n])
        ranges = np.stack([edges[:-1], edges[1:]], axis=1)
        block = _block_rows(edges[1:] - edges[:-1], self._whole)
        breaks = np.concatenate([np.arange(first, end, block) for first, end in ranges])
        return RowRanges(ranges, True, block, breaks)


def _block_rows(counts: np.ndarray, whole: int) -> int:
    """Return how many rows a block has, so that no thread is left with a small one."""
    even = -(-counts // np.maximum(1, -(-counts // BLOCK)))
    return int(-(-max(1, even.max()) // whole) * whole)
