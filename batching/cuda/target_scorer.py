"""Log-probabilities of tokens from hidden states, without all logits of all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numbatch.batching.cuda.products import Products
from numbatch.batching.cuda.weights import DeviceLinear, DeviceMatrix
from numbatch.batching.cuda.workspace import block_threads
from numbatch.kernels.cuda import LANES, Gpu
from numbatch.kernels.scoring.cuda import logprob
from numbatch.models.decoder import DecoderConfig

__all__ = ["Scores", "TargetScorer"]

Scores = tuple[np.ndarray, np.ndarray]
"""Log-probabilities, float32, and whether they are of the likeliest tokens, bool."""


class TargetScorer:
    """Scores one token after each of some hidden states.

    Parameters
    ----------
    gpu : Gpu
    config : DecoderConfig
    head : DeviceLinear
        The product onto the vocabulary.
    products : Products
    max_tokens : int
        The most tokens of a step.
    """

    def __init__(
        self, gpu: Gpu, config: DecoderConfig, head: DeviceLinear, products: Products,
        max_tokens: int,
    ) -> None:  # fmt: skip
        self._gpu, self._config, self._head, self._products = gpu, config, head, products
        self._max_tokens = max_tokens
        self._logits: Any = None
        self._plain_pieces: list[DeviceMatrix] = []

    def begin(self, normed: Any, targets: np.ndarray) -> Callable[[], Scores]:
        """Start to score each target; return what waits for the result.

        Parameters
        ----------
        normed : uint16 array on the device, shape (at least targets, columns)
            Hidden states after the final norm.
        targets : int array, shape (n,)

        Returns
        -------
        function
            Returns the targets' log-probabilities, and whether they are the likeliest.
        """
        gpu, n = self._gpu, len(targets)
        wanted = gpu.upload(targets.astype(np.int32))
        largest, target_logits = gpu.empty(n, np.float32), gpu.empty(n, np.float32)
        sums, best = gpu.empty(n, np.float64), gpu.empty(n, np.int32)
        state = (largest, sums, best, target_logits)
        if self._logits is None:
            held = min(logprob.TOKENS, self._max_tokens)
            self._logits = gpu.empty((held, logprob.PIECE), np.float32)
        for piece, low, first in self._pieces(n):
            self._reduce(normed, piece, low, first, min(logprob.TOKENS, n - first), wanted, state)
        result, greedy = gpu.empty(n, np.float32), gpu.empty(n, np.uint8)
        threads = block_threads(128)
        gpu.launch(
            logprob.finish_logprobs, -(-n // threads), threads, n, largest, sums, best,
            target_logits, wanted, result, greedy,
        )  # fmt: skip
        found, likeliest = gpu.begin_download(result), gpu.begin_download(greedy)
        return lambda: (found.wait(), likeliest.wait().astype(np.bool_))

    def _pieces(self, n: int) -> Iterator[tuple[DeviceMatrix, int, int]]:
        """Go through pieces of the head's weight and of ``n`` tokens: weight, entry and token.

        Packed weights are unpacked once for all tokens.
        """
        vocabulary = self._config.vocabulary
        lows = range(0, vocabulary, logprob.PIECE)
        firsts = range(0, n, logprob.TOKENS)

        def piece(low: int) -> DeviceMatrix:
            return self._products.piece(self._head, low, min(low + logprob.PIECE, vocabulary))

        if self._head.parts[0].kind == "plain":
            if not self._plain_pieces:
                self._plain_pieces = [piece(low) for low in lows]
            for first in firsts:
                for own, low in zip(self._plain_pieces, lows, strict=True):
                    yield own, low, first
            return
        for low in lows:
            own = piece(low)
            for first in firsts:
                yield own, low, first

    def _reduce(
        self, normed: Any, piece: DeviceMatrix, low: int, first: int, count: int, targets: Any,
        state: tuple[Any, ...],
    ) -> None:  # fmt: skip
        """Reduce the logits of some tokens and a piece of the vocabulary."""
        config = self._config
        scale, cap = np.float32(config.logit_scale), np.float32(config.logit_softcap)
        threads = block_threads(logprob.REDUCE_THREADS)
        self._products.of_piece(piece, normed, first, count, self._logits)
        blocks = -(-count // (threads // LANES))
        self._gpu.launch(
            logprob.reduce_piece, blocks, threads, self._logits, count, low, piece.rows,
            self._head.bias, scale, cap, targets, first, *state,
        )  # fmt: skip
