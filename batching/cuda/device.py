"""What an engine needs of a GPU: memory for keys and values, the forward pass, the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numbatch.batching.cuda.forward import CudaForward
from numbatch.batching.cuda.pool import CudaKVPool, kv_token_bytes
from numbatch.batching.cuda.sampler import CudaSampler
from numbatch.batching.cuda.weights import DeviceWeights
from numbatch.kernels.cuda import Gpu
from numbatch.models.load import LoadedModel

__all__ = ["CudaBackend"]

WORK_SHARE = 0.15
"""Of the memory that the weights leave, what steps may take; keys and values have the rest."""


class CudaBackend:
    """Makes the parts of an engine on a GPU.

    Parameters
    ----------
    model : LoadedModel
    number : int
        Which GPU.
    invariant : bool
        Whether results must not depend on what else is in a step; slower.
    process : function, optional
        A user's ``@cuda.jit(device=True)`` function for logits; see ``sample_kernel``.

    Raises
    ------
    DeviceError
        If the GPU cannot be used, or the weights do not fit.
    """

    compute, tile = "bfloat16", 1

    def __init__(
        self, model: LoadedModel, number: int = 0, *, invariant: bool = False,
        process: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.invariant, self._process = model, invariant, process
        self.gpu = Gpu(number)
        self.weights = DeviceWeights(self.gpu, model.decoder, plain=invariant)

    def affordable_tokens(self) -> int:
        """How many tokens of keys and values fit beside the weights."""
        free, _ = self.gpu.memory()
        decoder = self.model.decoder
        size = kv_token_bytes(decoder.config, len(decoder.layers))
        return max(1, int(free * (1 - WORK_SHARE)) // size)

    def pool(self, tokens: int) -> CudaKVPool:
        """Allocate a KV pool."""
        decoder = self.model.decoder
        return CudaKVPool(self.gpu, decoder.config, len(decoder.layers), tokens)

    def forward(
        self, pool: CudaKVPool, max_tokens: int, max_sequences: int, context: int
    ) -> CudaForward:
        """Return the forward pass."""
        return CudaForward(
            self.gpu, self.model.decoder, self.weights, pool, max_tokens, max_sequences, context,
            invariant=self.invariant,
        )  # fmt: skip

    def sampler(self, seed: int) -> CudaSampler:
        """Return the sampler."""
        vocabulary = self.model.decoder.config.vocabulary
        return CudaSampler(self.gpu, vocabulary, seed, self.model.eos_ids, self._process)
