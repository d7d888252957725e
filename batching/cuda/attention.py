"""Which kernel attends for which tokens of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.cuda.pool import padded_head
from numbatch.batching.cuda.workspace import StepInputs
from numbatch.batching.forward import Batch
from numbatch.batching.kv_pool import KVPool
from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.scoring.cuda.attention_decode import (
    MOST_SHARING,
    WARPS,
    attend_parts_kernel,
)
from numbatch.kernels.scoring.cuda.attention_merge import HEADS, SPLIT, merge_parts
from numbatch.kernels.scoring.cuda.attention_plain import MOST_WIDTH, attend_plain
from numbatch.kernels.scoring.cuda.attention_step import (
    SPAN,
    STEP_THREADS,
    attend_step_kernel,
)
from numbatch.kernels.scoring.cuda.attention_tiles import TILE_WIDTHS, attend_tiles_kernel
from numbatch.models.decoder import DecoderConfig

__all__ = ["Attention", "Plan"]

TILE_WARPS = 4
"""Warps in a block of the kernel for many queries; each takes 16 queries. Two such blocks run on a
multiprocessor: 16,384 tokens of texts of 512 to 2,048 took 0.94 ms on an H200, with eight warps and
one block 1.09."""

FEW_TOKENS = 16
"""New tokens, one a sequence, up to which one kernel does all of attention."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many tokens are attended for one by one, in tiles, and in how many parts at most.

    ``is_all``: the tokens that are attended for one by one are those of the step, one a sequence,
    in order.
    """

    singles: int
    tiles: int
    parts: int
    warps: int = TILE_WARPS
    is_all: bool = False


class Attention:
    """Attends over the KV pool.

    Parameters
    ----------
    gpu : Gpu
    config : DecoderConfig
    pool : KVPool
    invariant : bool
        Whether one kernel must attend for all tokens, lest the bits of a token depend on which.
    """

    def __init__(self, gpu: Gpu, config: DecoderConfig, pool: KVPool, *, invariant: bool) -> None:
        self._gpu, self._config, self._pool = gpu, config, pool
        self._invariant = invariant
        self.width = padded_head(config.head_size)
        if self.width > MOST_WIDTH:
            raise DeviceError(f"heads of {config.head_size} are too wide, at most {MOST_WIDTH}")
        even = config.head_size % 2 == 0
        self._has_tiles = self.width in TILE_WIDTHS and even and not is_simulated()
        sharing = config.heads // config.kv_heads
        self._has_parts = self._has_tiles and sharing <= MOST_SHARING and not invariant
        self._scratch: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._turns = gpu.zeros(FEW_TOKENS * config.kv_heads, np.int32)

    def plan(self, batch: Batch, inputs: StepInputs) -> Plan:
        """Sort the tokens of a batch by the kernel that attends for them; writes the inputs."""
        starts = np.flatnonzero(np.diff(batch.rows, prepend=-1))
        counts = np.diff(starts, append=len(batch.rows))
        if not self._has_tiles:
            inputs.write(singles=np.arange(len(batch.rows)))
            return Plan(len(batch.rows), 0, 0)
        alone = (counts == 1) & self._has_parts
        singles, longest = starts[alone], 0
        if len(singles):
            longest = int(batch.positions[singles].max()) + 1
        # Short runs would leave most warps of a block without queries.
        warps = TILE_WARPS if np.mean(counts) > 16 else 1
        size = 16 * warps
        begins = [
            np.arange(s, s + c, size) for s, c in zip(starts[~alone], counts[~alone], strict=True)
        ]
        tokens = np.concatenate([np.empty(0, np.int64), *begins])
        ends = np.repeat((starts + counts)[~alone], [len(each) for each in begins])
        # The tiles with the most to look at come first, so that none is left running alone.
        order = np.argsort(-batch.positions[tokens], kind="stable")
        tokens, ends = tokens[order], ends[order]
        inputs.write(
            singles=singles, tile_tokens=tokens, tile_rows=batch.rows[tokens],
            tile_counts=np.minimum(ends - tokens, size),
        )  # fmt: skip
        return Plan(len(singles), len(tokens), self.parts_for(longest), warps)

    @staticmethod
    def parts_for(length: int) -> int:
        """Return in how many parts so many positions are attended over, as a power of two."""
        parts = -(-length // SPLIT)
        return max(WARPS, 1 << (parts - 1).bit_length()) if parts else 0

    def single_plan(self, tokens: int, length: int) -> Plan:
        """Return the plan for one new token of each sequence, of at most ``length`` tokens."""
        if self._has_parts:
            return Plan(tokens, 0, self.parts_for(length), is_all=True)
        return Plan(0, tokens, 0, 1) if self._has_tiles else Plan(tokens, 0, 0)

    def scratch(self, tokens: int, parts: int) -> tuple[Any, Any]:
        """Return memory for partial results; kept, because graphs go on using it."""
        bucket = 1 << (tokens - 1).bit_length()
        key = (bucket, parts)
        if key not in self._scratch:
            shape = (bucket, self._config.heads, parts)
            self._scratch[key] = (
                self._gpu.empty((*shape, self.width), np.float32),
                self._gpu.empty((*shape, 2), np.float32),
            )
        return self._scratch[key]

    def run(
        self, plan: Plan, q: Any, inputs: StepInputs, plane: int, window: int, out: Any
    ) -> None:
        """Start attention of a step's tokens; ``plane`` is the layer's place in the cache."""
        config, cache, gpu = self._config, self._pool.cache, self._gpu
        scale, cap = np.float32(config.attention_scale), np.float32(config.attention_softcap)
        if plan.tiles:
            gpu.launch(
                attend_tiles_kernel(self.width, plan.warps), (plan.tiles, config.heads),
                32 * plan.warps, q, cache, inputs.tables, inputs.tile_rows, inputs.tile_tokens,
                inputs.tile_counts, inputs.positions, plane, config.head_size, window, scale, cap,
                out,
            )  # fmt: skip
        if plan.singles and not self._has_parts:
            threads = 4 if is_simulated() else 128
            gpu.launch(
                attend_plain, (plan.singles, config.heads), threads, q, cache, inputs.tables,
                inputs.singles, inputs.rows, inputs.positions, plane, config.head_size, window,
                scale, cap, out,
            )  # fmt: skip
        elif plan.singles:
            partial, extremes = self.scratch(plan.singles, plan.parts)
            gpu.launch(
                attend_parts_kernel(self.width),
                (plan.singles, config.kv_heads, plan.parts // WARPS), 32 * WARPS, q, cache,
                inputs.tables, plan.is_all, inputs.singles, inputs.rows, inputs.positions, plane,
                window, scale, cap, partial, extremes,
            )  # fmt: skip
            gpu.launch(
                merge_parts, (plan.singles, -(-config.heads // HEADS)), (self.width // 4, HEADS),
                partial, extremes, plan.is_all, inputs.singles, inputs.positions, config.head_size,
                out,
            )  # fmt: skip

    def fits_step(self, plan: Plan) -> bool:
        """Whether :meth:`run_step` can do what a plan says."""
        is_whole = self.width == self._config.head_size
        return plan.is_all and self._has_parts and is_whole and plan.singles <= FEW_TOKENS

    def run_step(
        self, plan: Plan, qkv: Any, angles: tuple[Any, Any], inputs: StepInputs, plane: int,
        window: int, out: Any,
    ) -> None:  # fmt: skip
        """Rotate, store and attend for one new token of each sequence, in one kernel."""
        config, cache = self._config, self._pool.cache
        scale, cap = np.float32(config.attention_scale), np.float32(config.attention_softcap)
        partial, extremes = self.scratch(plan.singles, plan.parts)
        parts = -(-plan.parts * SPLIT // SPAN)
        self._gpu.launch(
            attend_step_kernel(self.width), (plan.singles, config.kv_heads, parts), STEP_THREADS,
            qkv, *angles, cache, inputs.tables, inputs.positions, plane, config.heads, window,
            scale, cap, partial, extremes, self._turns, out,
        )  # fmt: skip
