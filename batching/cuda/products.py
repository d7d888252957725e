"""Which kernel runs a product: ours for a few inputs, cuBLAS for many."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.batching.cuda.weights import DeviceLinear, DeviceMatrix, DeviceWeights
from numbatch.kernels.cuda import Gpu, is_simulated
from numbatch.kernels.scoring.cuda import unpacking
from numbatch.kernels.scoring.cuda.dense import Dense
from numbatch.kernels.scoring.cuda.matmul_tiles import (
    FEWEST_INPUTS,
    multiply_tiles_kernel,
    tile_blocks,
    tile_sizes,
)
from numbatch.kernels.scoring.cuda.matmul_tiles import THREADS as TILE_THREADS
from numbatch.kernels.scoring.cuda.matvec import (
    THREADS,
    goes_on_to_further_rows,
    matvec_blocks,
    matvec_kernel,
    tiles_of,
)
from numbatch.kernels.scoring.cuda.matvec_one import multiply_one
from numbatch.kernels.scoring.cuda.results import ADD, GATED, LOGITS, STORE
from numbatch.kernels.scoring.cuda.rows import scale_rows

__all__ = ["Products"]

MOST_OF_PACKED = 64
"""Inputs up to which our kernel takes packed weights: with 32 it needs 0.4 of the time of unpacking
them for cuBLAS, with 64 twice that."""


class Products:
    """Runs products of a model's weights.

    Parameters
    ----------
    gpu : Gpu
    weights : DeviceWeights
    invariant : bool
        Whether an output's bits must not depend on how many inputs there are.
    """

    def __init__(self, gpu: Gpu, weights: DeviceWeights, *, invariant: bool) -> None:
        self._gpu, self._weights, self._invariant = gpu, weights, invariant
        self._dense = Dense(gpu)
        self._multiprocessors = gpu.multiprocessors
        self._unpacked: Any = None
        self._unused = gpu.zeros((1, 1), np.float32)

    def fits_matvec(self, linear: DeviceLinear, tokens: int) -> bool:
        """Whether our kernel takes a whole product, and can activate its result."""
        return len(linear.parts) == 1 and self._is_ours(linear.parts[0], tokens)

    def _is_ours(self, part: DeviceMatrix, tokens: int) -> bool:
        if is_simulated():
            return False
        # Of bfloat16 weights cuBLAS is the faster from two inputs on.
        return self._invariant or tokens <= (1 if part.kind == "plain" else MOST_OF_PACKED)

    def run(
        self,
        linear: DeviceLinear,
        x: Any,
        tokens: int,
        out: Any,
        *,
        mode: int,
        apart: int = 0,
        code: int = 0,
        scale: float = 1.0,
        cap: float = 0.0,
    ) -> None:
        """Start a product of the first ``tokens`` rows of ``x``; see ``matvec`` for the modes."""
        at = 0
        for part in linear.parts:
            if self._is_ours(part, tokens):
                self._own_product(part, x, 0, tokens, out, at, mode, apart, code, scale, cap)
            else:
                self._dense_product(part, x, 0, tokens, (0, part.rows), out, at, add=mode == ADD)
                if mode == LOGITS and (scale != 1 or cap != 0):
                    self._gpu.launch(
                        scale_rows, tokens, 1 if is_simulated() else 256, out, scale, cap
                    )
            at += part.rows

    def piece(self, linear: DeviceLinear, low: int, high: int) -> DeviceMatrix:
        """Return some rows of a weight as bfloat16; the next product may overwrite packed ones."""
        (part,) = linear.parts
        if part.kind == "plain":
            words = part.words[low:high]
        else:
            words = self._unpack(part, (low, high))
        return DeviceMatrix("plain", high - low, part.columns, words, None, None)

    def of_piece(self, piece: DeviceMatrix, x: Any, first: int, tokens: int, out: Any) -> None:
        """Start the product with rows of a weight: float32 from column 0 of ``out``."""
        if self._is_ours(piece, tokens) and self._invariant:
            self._own_product(piece, x, first, tokens, out, 0, LOGITS, 0, 0, 1.0, 0.0)
            return
        self._dense_product(piece, x, first, tokens, (0, piece.rows), out, 0, add=False)

    def _own_product(
        self, part: DeviceMatrix, x: Any, first: int, tokens: int, out: Any, at: int, mode: int,
        apart: int, code: int, scale: Any, cap: Any,
    ) -> None:  # fmt: skip
        rows = apart if mode == GATED else part.rows
        half, full = (out, self._unused) if mode in (STORE, GATED) else (self._weights.none16, out)
        scale, cap = np.float32(scale), np.float32(cap)
        if part.kind == "plain" and tokens == 1 and not self._invariant:
            self._gpu.launch(
                multiply_one, matvec_blocks(mode, rows, 1)[1], THREADS, part.words, rows, x, mode,
                apart, code, scale, cap, at, half, full,
            )  # fmt: skip
            return
        if part.kind == "plain" and tokens >= FEWEST_INPUTS:
            sizes = tile_sizes(mode, rows, tokens, self._multiprocessors)
            self._gpu.launch(
                multiply_tiles_kernel(*sizes), tile_blocks(mode, rows, tokens, *sizes),
                TILE_THREADS, part.words, rows, x, first, tokens, mode, apart, code, scale, cap,
                at, half, full,
            )  # fmt: skip
            return
        x = x[first : first + tokens] if first else x
        has_least = part.leasts is not None
        variant = part.kind, tiles_of(tokens), has_least
        most = self._multiprocessors if goes_on_to_further_rows(*variant) else None
        scales = self._weights.none16 if part.scales is None else part.scales
        leasts = part.leasts if has_least else scales
        self._gpu.launch(
            matvec_kernel(*variant), matvec_blocks(mode, rows, tokens, most), THREADS, part.words,
            scales, leasts, rows, x, tokens, mode, apart, code, scale, cap, at, half, full,
        )  # fmt: skip

    def _dense_product(
        self, part: DeviceMatrix, x: Any, first: int, tokens: int, rows: tuple[int, int], out: Any,
        at: int, *, add: bool,
    ) -> None:  # fmt: skip
        weight = part.words
        if part.kind != "plain":
            weight, rows = self._unpack(part, rows), (0, rows[1] - rows[0])
        self._dense.product(
            x, weight, tokens, part.columns, out, rows=rows, at=(0, at), first=first, add=add
        )

    def _unpack(self, part: DeviceMatrix, rows: tuple[int, int]) -> Any:
        """Return some rows as bfloat16, in memory that the next call overwrites."""
        count = rows[1] - rows[0]
        padded = part.scales.shape[1] * 32
        if self._unpacked is None or self._unpacked.size < count * padded:
            self._unpacked = None
            self._unpacked = self._gpu.empty(count * padded, np.uint16)
        out = self._unpacked[: count * padded].reshape(count, padded)
        threads = 1 if is_simulated() else 128
        grid = (count, -(-padded // (32 * threads)))
        if part.kind == "bytes":
            self._gpu.launch(
                unpacking.unpack_bytes, grid, threads, part.words, part.scales, rows[0], out
            )
        else:
            leasts = part.scales if part.leasts is None else part.leasts
            args = (part.words, part.scales, leasts, part.leasts is not None, rows[0], out)
            self._gpu.launch(unpacking.unpack_nibbles, grid, threads, *args)
        return out
