"""What an engine needs of the device that it computes on, and how it is chosen."""

from __future__ import annotations

from typing import Any, Protocol

from numbatch.batching.forward import ForwardPass
from numbatch.batching.kv_pool import DEFAULT_DTYPE, KVPool
from numbatch.batching.sampler import Sampler
from numbatch.batching.sizes import affordable_tokens
from numbatch.errors import InputError
from numbatch.kernels.scoring.activations import COMPUTE, default_compute
from numbatch.kernels.scoring.bfloat16_product import HAS_TILES, ROWS
from numbatch.kernels.threads import ThreadTeam
from numbatch.models.load import LoadedModel

__all__ = ["Backend", "CpuBackend", "make_engine"]


class Backend(Protocol):
    """Makes the parts of an engine on one device."""

    compute: str
    """The arithmetic of products with weights."""
    tile: int
    """Rows of a step that products take at a time."""

    def affordable_tokens(self) -> int:
        """How many tokens of keys and values fit into memory."""

    def pool(self, tokens: int) -> Any:
        """Allocate a KV pool."""

    def forward(self, pool: Any, max_tokens: int, max_sequences: int, context: int) -> Any:
        """Return the forward pass."""

    def sampler(self, seed: int) -> Any:
        """Return the sampler."""


class CpuBackend:
    """The CPU's.

    Parameters
    ----------
    model : LoadedModel
    threads : int, optional
        None: all cores.
    kv_dtype, compute : str, optional
        As for ``Engine``.

    Raises
    ------
    InputError
        If ``compute`` is not known.
    """

    def __init__(
        self,
        model: LoadedModel,
        threads: int | None = None,
        kv_dtype: str | None = None,
        compute: str | None = None,
    ) -> None:
        self.model, self.team = model, ThreadTeam(threads)
        self.kv_dtype, self.compute = kv_dtype or DEFAULT_DTYPE, compute or default_compute()
        if self.compute not in COMPUTE:
            raise InputError(f"compute is {self.compute!r}, should be one of {', '.join(COMPUTE)}")
        self.tile = ROWS if HAS_TILES and self.compute == "bfloat16" else 1

    def affordable_tokens(self) -> int:
        """How many tokens of keys and values fit into their share of the machine's memory."""
        return affordable_tokens(self.model.decoder, self.kv_dtype)

    def pool(self, tokens: int) -> KVPool:
        """Allocate a KV pool; the system gives the memory as it is used."""
        decoder = self.model.decoder
        return KVPool(decoder.config, len(decoder.layers), tokens, self.kv_dtype)

    def forward(
        self, pool: KVPool, max_tokens: int, max_sequences: int, context: int
    ) -> ForwardPass:
        """Return the forward pass."""
        return ForwardPass(self.model.decoder, pool, self.team, max_tokens, self.compute)

    def sampler(self, seed: int) -> Sampler:
        """Return the sampler."""
        return Sampler(self.team, self.model.decoder.config.vocabulary, seed)


def make_engine(
    model: LoadedModel,
    device: str = "cpu",
    *,
    threads: int | None = None,
    kv_dtype: str | None = None,
    compute: str | None = None,
    invariant: bool = False,
    logits_processor: Any = None,
    num_speculative_tokens: int | None = None,
    **options: Any,
) -> Any:
    """Return an engine on a device.

    Parameters
    ----------
    model : LoadedModel
    device : str
        ``cpu``, ``cuda`` (the first GPU), ``cuda:1`` and so on, or ``cuda:*`` (all GPUs, with a
        process for each).
    threads, kv_dtype, compute, num_speculative_tokens : optional
        For the CPU; see ``Engine``.
    invariant, logits_processor
        For a GPU; see ``CudaBackend``.
    options
        As for ``Engine``.

    Raises
    ------
    InputError
        If there is no such device.
    DeviceError
        If a GPU cannot be used, or the model does not fit.
    """
    from numbatch.batching.engine import Engine

    if device == "cpu":
        if invariant is False and logits_processor is None:
            backend = CpuBackend(model, threads, kv_dtype, compute)
            if num_speculative_tokens is not None:
                options["num_speculative_tokens"] = num_speculative_tokens
            return Engine(model, backend=backend, **options)
        raise InputError(
            'invariant and logits_processor are for device="cuda": on the CPU results are '
            "invariant in any case"
        )
    if num_speculative_tokens:
        raise InputError('num_speculative_tokens is for device="cpu"')
    options["num_speculative_tokens"] = 0
    if kv_dtype is not None or compute is not None:
        raise InputError(
            'kv_dtype and compute are for device="cpu": a GPU has keys and values in bfloat16, and '
            "multiplies in it"
        )
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number in ("", "*") or number.isdecimal()):
        raise InputError(f'device is {device!r}, should be "cpu", "cuda", "cuda:1" or "cuda:*"')
    if number == "*":
        from numbatch.batching.cuda.gpus import make_pool

        return make_pool(model, invariant=invariant, logits_processor=logits_processor, **options)
    from numbatch.batching.cuda.device import CudaBackend
    from numbatch.batching.cuda.engine import CudaEngine

    gpu = CudaBackend(model, int(number or 0), invariant=invariant, process=logits_processor)
    return CudaEngine(model, backend=gpu, **options)
