"""What the layers write, on a GPU, and how many threads do."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.batching.cuda.pool import padded_head
from numbatch.batching.cuda.weights import DeviceWeights
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.scoring.cuda.packing import padded_columns
from numbatch.models.decoder import DecoderConfig

__all__ = ["StepInputs", "Workspace", "block_threads"]


def block_threads(threads: int) -> int:
    """Return the threads of a block; the simulator's are Python's, so it has four at most."""
    return min(threads, 4) if is_simulated() else threads


class Workspace:
    """Buffers for a number of tokens; zero where products read padding.

    Raises
    ------
    MemoryError
        If there is no memory for so many tokens.
    """

    def __init__(
        self, gpu: Gpu, config: DecoderConfig, weights: DeviceWeights, capacity: int
    ) -> None:
        self.capacity = capacity
        heads = config.heads * config.head_size
        inner = max(layer.down.columns for layer in weights.layers)
        wide = max(layer.mlp_inputs.rows for layer in weights.layers)

        def halves(*shape: int) -> Any:
            return gpu.zeros((capacity, *shape), np.uint16)

        self.hidden = gpu.zeros((capacity, config.width), np.float32)
        self.added = gpu.zeros((capacity, config.width), np.float32)
        self.normed = halves(padded_columns(config.width))
        self.inputs = halves(heads + 2 * config.kv_heads * config.head_size)
        self.q = halves(config.heads, padded_head(config.head_size))
        self.attended = halves(padded_columns(heads))
        self.wide = halves(wide)
        self.active = halves(padded_columns(inner))


class StepInputs:
    """The tokens of a step as device arrays.

    Attributes
    ----------
    tokens, positions, rows : int32 arrays, shape (capacity,)
        Ids, places in their sequences (negative: nothing there), and rows of ``tables``.
    tables : int32 array, shape (sequences, blocks)
    singles : int32 array
        Tokens that are attended for one by one.
    tile_rows, tile_tokens, tile_counts : int32 arrays
        Runs of tokens of one sequence that are attended for together.
    """

    def __init__(self, gpu: Gpu, tokens: int, sequences: int, blocks: int) -> None:
        self._gpu = gpu

        def integers(*shape: int) -> Any:
            return gpu.zeros(shape, np.int32)

        self.tokens, self.positions = integers(tokens), integers(tokens)
        self.rows, self.singles = integers(tokens), integers(tokens)
        self.tile_rows, self.tile_tokens = integers(tokens), integers(tokens)
        self.tile_counts = integers(tokens)
        self.tables = integers(sequences, blocks)

    def write(self, **arrays: np.ndarray) -> None:
        """Overwrite the beginnings of arrays, by their names."""
        for name, values in arrays.items():
            self._gpu.write(getattr(self, name), np.ascontiguousarray(values, np.int32))
