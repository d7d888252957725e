"""The memory for keys and values: fixed blocks, allocated once, lent to sequences."""

from __future__ import annotations

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.scoring.matmul import padded
from numbatch.models.decoder import DecoderConfig

__all__ = ["KVPool"]


class KVPool:
    """Blocks of keys and values.

    Parameters
    ----------
    config : DecoderConfig
    layers : int
    tokens : int
        How many tokens the pool holds at least, over all sequences.
    block_size : int
        Tokens in a block.

    Attributes
    ----------
    cache : float32 array, shape (blocks, layers, 2, kv_heads, block_size, padded head size)
        Keys and values. Blocks come first because the system gives memory when it is first written,
        in pages of up to 2 MB: with the layers first, one block would take a page in each layer.

    Raises
    ------
    InputError
        If there is no memory for so many tokens.
    """

    def __init__(
        self, config: DecoderConfig, layers: int, tokens: int, block_size: int = 16
    ) -> None:
        self.block_size = block_size
        self.blocks = self.blocks_for(tokens)
        width = padded(config.head_size)
        shape = (self.blocks, layers, 2, config.kv_heads, block_size, width)
        try:
            self.cache = np.empty(shape, np.float32)
        except MemoryError as error:
            size = 4 * int(np.prod(shape, dtype=np.int64))
            raise InputError(
                f"no memory for a KV pool of {tokens} tokens ({size / 2**20:.0f} MB); "
                f"ask for less with kv_tokens"
            ) from error
        # The block freed last is lent first: its memory is already there.
        self._free = list(range(self.blocks - 1, -1, -1))

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    @property
    def free_blocks(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free)

    def allocate(self, tokens: int) -> np.ndarray | None:
        """Lend the blocks for ``tokens`` tokens, an int64 array, or None if there are too few."""
        count = self.blocks_for(tokens)
        if count > len(self._free):
            return None
        return np.array([self._free.pop() for _ in range(count)], np.int64)

    def release(self, blocks: np.ndarray) -> None:
        """Take blocks back."""
        self._free.extend(int(block) for block in blocks[::-1])

    def check(self, held: list[np.ndarray]) -> None:
        """Raise RuntimeError unless free and held blocks are all blocks, each once."""
        owned = np.concatenate([np.array(self._free, np.int64), *held])
        if not np.array_equal(np.sort(owned), np.arange(self.blocks)):
            raise RuntimeError(
                f"KV pool is inconsistent: {len(self._free)} free and "
                f"{sum(map(len, held))} held of {self.blocks} blocks"
            )
