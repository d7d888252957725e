"""How much memory the parts of an engine take, from the model's own sizes."""

from __future__ import annotations

import dataclasses
import numbers
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.batch_sizer import StepSize
from numbatch.batching.decoder_tables import input_sizes, packed_bytes
from numbatch.batching.kv_pool import DEFAULT_DTYPE
from numbatch.batching.step_outputs import logit_rows
from numbatch.batching.step_time import StepTime
from numbatch.errors import InputError
from numbatch.kernels.scoring.activations import COMPUTE, Activations, default_compute
from numbatch.kernels.scoring.attention import (
    BLOCK,
    attention_scratch,
    kv_dtype,
    new_plan,
    part_size,
)
from numbatch.kernels.scoring.gated import gated_memory
from numbatch.kernels.scoring.logprob import logprob_scratch
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import product_memory
from numbatch.kernels.scoring.row_states import state_numbers
from numbatch.kernels.scoring.sampling import sampling_scratch
from numbatch.models.decoder import Decoder
from numbatch.models.load import LoadedModel

__all__ = [
    "MemoryEstimate",
    "affordable_tokens",
    "estimate_memory",
    "kv_token_bytes",
    "largest_batch",
    "machine_memory",
]

KV_SHARE = 4
"""The KV pool may take one part in so many of the machine's memory, if nobody says otherwise."""


def machine_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def kv_token_bytes(decoder: Decoder, dtype: str = DEFAULT_DTYPE) -> int:
    """Return the bytes that a token's keys and values take in the pool."""
    config, kind = decoder.config, kv_dtype(dtype)
    block = 2 * config.kv_heads * part_size(config.head_size, kind) * kind.itemsize
    return len(decoder.layers) * block // BLOCK


def affordable_tokens(decoder: Decoder, dtype: str = DEFAULT_DTYPE) -> int:
    """How many tokens of keys and values fit into the pool's share of the machine's memory."""
    return max(1, machine_memory() // KV_SHARE // kv_token_bytes(decoder, dtype))


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of memory, by what they are for.

    Parameters
    ----------
    weights : int
        Mapped from the file.
    packed : int
        Weights that are repacked for the arithmetic.
    kv_pool : int
        Keys and values, when the pool is full.
    workspace : int
        What the layers write, the logits, and what threads work with.
    results : int
        Tokens and log-probabilities of the requests that are held.
    ids : int
        The map of ids.
    """

    weights: int
    packed: int
    kv_pool: int
    workspace: int
    results: int
    ids: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def estimate_memory(
    model: LoadedModel,
    *,
    kv_tokens: int,
    kv_dtype: str = DEFAULT_DTYPE,
    compute: str | None = None,
    max_num_seqs: int = 32,
    max_num_batched_tokens: int = 512,
    threads: int = 1,
    requests: int = 0,
    tokens_per_request: int = 0,
    bytes_per_id: int = 16,
) -> MemoryEstimate:
    """Return how much memory an engine takes when all that it may use is in use.

    Parameters
    ----------
    model : LoadedModel
    kv_tokens, kv_dtype, compute, max_num_seqs, max_num_batched_tokens, threads
        As for :class:`Engine`.
    requests, tokens_per_request, bytes_per_id : int
        Requests that a job holds, their tokens (prompt and output), and the length of their ids.

    Raises
    ------
    InputError
        If a size is below 0, or ``kv_dtype`` or ``compute`` is not known.
    """
    sizes = (kv_tokens, max_num_seqs, max_num_batched_tokens, requests, tokens_per_request)
    if min(sizes) < 0:
        raise InputError(f"a size is {min(sizes)}, should be at least 0")
    compute = compute or default_compute()
    if compute not in COMPUTE:
        raise InputError(f"compute is {compute!r}, should be one of {', '.join(COMPUTE)}")
    decoder, arithmetic = model.decoder, COMPUTE[compute]
    return MemoryEstimate(
        weights=_array_bytes(decoder, set()),
        packed=packed_bytes(decoder, arithmetic),
        kv_pool=kv_tokens * kv_token_bytes(decoder, kv_dtype),
        workspace=_workspace(decoder, arithmetic, max_num_batched_tokens, max_num_seqs, threads),
        results=requests * (tokens_per_request * (8 + 4 + 1) + 1000),
        ids=requests * (bytes_per_id + 22),
    )


def _array_bytes(value: Any, seen: set[int]) -> int:
    """Return the bytes of all arrays of a description, each counted once."""
    if isinstance(value, np.ndarray):
        address = value.__array_interface__["data"][0]
        if address in seen:
            return 0
        seen.add(address)
        return value.nbytes
    if isinstance(value, tuple):
        return sum(_array_bytes(each, seen) for each in value)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return sum(_array_bytes(getattr(value, field.name), seen) for field in fields)
    return 0


def _workspace(decoder: Decoder, compute: int, tokens: int, sequences: int, threads: int) -> int:
    """Return the bytes that ForwardPass and Sampler allocate, and the logits of a step."""
    config, layers = decoder.config, decoder.layers
    inner = layers[0].up.weight.rows
    heads, kv = config.heads * config.head_size, config.kv_heads * config.head_size
    frequencies = (layer.inverse_frequencies for layer in layers)
    turned = 2 * max(1, *(0 if each is None else len(each) for each in frequencies))
    row = 2 * sum(padded(width) for width in (config.width, heads, kv, turned))
    # Taken only where it is written.
    sizes = set(input_sizes(decoder, compute))
    rooms = [a for size in sizes for a in Activations.empty(compute, tokens, *size).arrays]
    widest = max(config.width, heads, inner)
    scratch = -(-product_memory(compute, widest, tokens) // 64) * 64
    scratch += logprob_scratch(1).nbytes + sampling_scratch(1, config.vocabulary).nbytes
    scratch += attention_scratch(1, config.heads // config.kv_heads, config.head_size).nbytes
    scratch += 4 * gated_memory(tokens)
    plans = len({layer.window for layer in layers}) * new_plan(tokens).nbytes
    a_row = padded(config.vocabulary) + state_numbers(config.vocabulary)
    logits = 4 * logit_rows(sequences) * a_row
    return 4 * tokens * row + sum(a.nbytes for a in rooms) + threads * scratch + plans + logits


def largest_batch(
    model: LoadedModel,
    available_memory_mb: float,
    target_latency_ms: float | None,
    time: StepTime,
    *,
    tokens_per_sequence: int,
    kv_dtype: str = DEFAULT_DTYPE,
    compute: str | None = None,
    threads: int = 1,
) -> StepSize:
    """Return how many sequences may decode together, and what bounds them.

    Parameters
    ----------
    model : LoadedModel
    available_memory_mb : float
        For everything: weights, keys and values, working memory. 1 MB is 2**20 bytes.
    target_latency_ms : float, optional
        How long a step, which gives each sequence a token, may take.
    time : StepTime
        Fitted to the machine.
    tokens_per_sequence : int
        Prompt and output.
    kv_dtype, compute, threads
        As for :class:`Engine`.

    Raises
    ------
    InputError
        If memory or time do not suffice for one sequence; the message says how much is needed.
    """
    for name, value in (
        ("available_memory_mb", available_memory_mb),
        ("target_latency_ms", target_latency_ms),
        ("tokens_per_sequence", tokens_per_sequence),
    ):
        if value is not None and not (isinstance(value, numbers.Real) and value > 0):
            raise InputError(f"{name} is {value!r}, should be a number above 0")

    def needed(sequences: int) -> float:
        kv = sequences * -(-tokens_per_sequence // BLOCK) * BLOCK
        tokens = max(sequences, 64)
        parts = estimate_memory(
            model, kv_tokens=kv, kv_dtype=kv_dtype, compute=compute, max_num_seqs=sequences,
            max_num_batched_tokens=tokens, threads=threads, requests=sequences,
            tokens_per_request=tokens_per_sequence,
        )  # fmt: skip
        return parts.total / 2**20

    def seconds(sequences: int) -> float:
        return time.expected(sequences, sequences, sequences * tokens_per_sequence)

    if needed(1) > available_memory_mb:
        raise InputError(
            f"available_memory_mb is {available_memory_mb}, one sequence of {tokens_per_sequence} "
            f"tokens needs {needed(1):.1f} MB"
        )
    target = float("inf") if target_latency_ms is None else target_latency_ms / 1000
    if seconds(1) > target:
        raise InputError(
            f"target_latency_ms is {target_latency_ms}, a step of one sequence takes "
            f"{1000 * seconds(1):.1f} ms"
        )
    sequences = 1
    while True:
        more = sequences + max(1, sequences // 16)
        gain = more / seconds(more) / (sequences / seconds(sequences)) if seconds(1) > 0 else 1.0
        if needed(more) > available_memory_mb:
            return StepSize(sequences, "memory")
        if seconds(more) > target:
            return StepSize(sequences, "latency")
        if gain - 1 < 0.05 * (more / sequences - 1):
            return StepSize(sequences, "throughput")
        sequences = more
