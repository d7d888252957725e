"""The memory for keys and values: fixed blocks, allocated once, lent to sequences and shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.scoring.attention import BLOCK, kv_dtype, new_cache, part_size
from numbatch.kernels.simd_bfloat16 import has_bfloat16
from numbatch.models.decoder import DecoderConfig

__all__ = ["DEFAULT_DTYPE", "KVPool"]

DEFAULT_DTYPE = "bfloat16" if has_bfloat16() else "float32"
"""How keys and values are held if nobody says otherwise: what attention is fastest with."""

KEPT_SHARE = 16
"""Of so many blocks, one at most keeps its content when nobody holds it."""


class KVPool:
    """Blocks of keys and values, counted by how many sequences hold them.

    A full block may be given a key that tells its tokens and all before them; whoever needs the
    same tokens then holds the same block. A block with a key keeps its content for a while after
    the last one gave it back.

    Parameters
    ----------
    config : DecoderConfig
    layers : int
    tokens : int
        How many tokens the pool holds at least, over all sequences.
    dtype : {"float32", "bfloat16", "int8"}
        How keys and values are held.

    Attributes
    ----------
    cache : array, shape (blocks, layers, kv_heads, 2, part)
        Keys and values, as :mod:`numbatch.kernels.scoring.attention.layout` lays them out.
    block_size : int
        Tokens in a block.
    dtype : str

    Raises
    ------
    InputError
        If there is no memory for so many tokens, or ``dtype`` is not known.
    """

    def __init__(
        self, config: DecoderConfig, layers: int, tokens: int, dtype: str = DEFAULT_DTYPE
    ) -> None:
        self.block_size = BLOCK
        self.blocks = self.blocks_for(tokens)
        self.dtype = dtype
        self.cache = self._allocate(config, layers, tokens)
        # The block freed last is lent first: its memory is already there.
        self._free = list(range(self.blocks - 1, -1, -1))
        self._kept: dict[int, None] = {}  # held by nobody, content kept; the oldest first
        self._counts = [0] * self.blocks
        self._keys: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}

    def _allocate(self, config: DecoderConfig, layers: int, tokens: int) -> Any:
        kind, heads, size = kv_dtype(self.dtype), config.kv_heads, config.head_size
        try:
            return new_cache(self.blocks, layers, heads, size, kind)
        except MemoryError as error:
            size = self.blocks * layers * heads * 2 * part_size(size, kind) * kind.itemsize
            raise InputError(
                f"no memory for a KV pool of {tokens} tokens ({size / 2**20:.0f} MB); "
                f"ask for less with kv_tokens"
            ) from error

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks hold ``tokens`` tokens."""
        return -(-tokens // self.block_size)

    @property
    def free_blocks(self) -> int:
        """How many blocks nobody holds."""
        return len(self._free) + len(self._kept)

    def lend(self, count: int) -> list[int] | None:
        """Lend ``count`` blocks, or none at all (None) if there are too few."""
        if count > self.free_blocks:
            return None
        for _ in range(count - len(self._free)):
            self._forget_oldest()
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._counts[block] = 1
        return blocks

    def share(self, keys: Sequence[bytes]) -> list[int]:
        """Lend the blocks that hold the longest known beginning of ``keys``."""
        blocks = []
        for key in keys:
            block = self._blocks.get(key)
            if block is None:
                break
            self._counts[block] += 1
            self._kept.pop(block, None)
            blocks.append(block)
        return blocks

    def publish(self, block: int, key: bytes) -> None:
        """Let others share a block from now on: it is full and will not be written again."""
        if key not in self._blocks:
            self._blocks[key] = block
            self._keys[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Take blocks back from one holder."""
        for block in reversed(blocks):  # the beginning of a text is the last to be forgotten
            self._counts[block] -= 1
            if self._counts[block] == 0:
                if block in self._keys:
                    self._kept[block] = None
                else:
                    self._free.append(block)
        while len(self._kept) > self.blocks // KEPT_SHARE:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        block = next(iter(self._kept))
        del self._kept[block]
        del self._blocks[self._keys.pop(block)]
        self._free.append(block)

    def check(self, held: Sequence[Sequence[int]]) -> None:
        """Raise RuntimeError unless each block is free or counts its holders."""
        counts = np.zeros(self.blocks, np.int64)
        for blocks in held:
            np.add.at(counts, np.asarray(blocks, np.int64), 1)
        unheld = np.sort(np.array([*self._free, *self._kept], np.int64))
        published = {block: key for key, block in self._blocks.items()}
        if (
            not np.array_equal(counts, self._counts)
            or not np.array_equal(unheld, np.flatnonzero(counts == 0))
            or published != self._keys
            or not self._kept.keys() <= self._keys.keys()
        ):
            raise RuntimeError(
                f"KV pool is inconsistent: {len(self._free)} free, {len(self._kept)} kept and "
                f"{sum(map(len, held))} held of {self.blocks} blocks"
            )
