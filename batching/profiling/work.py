"""How many operations and bytes the parts of a step cannot do without, told from its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.decoder_step import PHASES
from numbatch.kernels.threads import Call
from numbatch.models.decoder import Decoder, Linear

__all__ = ["Work", "head_work", "named_arguments", "step_work", "work_of_call"]


@dataclass(frozen=True, slots=True)
class Work:
    """A plain name for what is done, and how much it is; 0: not counted."""

    name: str
    operations: float = 0.0
    bytes: float = 0.0

    def plus(self, other: Work) -> Work:
        """Return both together, under this name."""
        return Work(self.name, self.operations + other.operations, self.bytes + other.bytes)


def named_arguments(kernel: Callable[..., Any], skip: int, args: Iterable[Any]) -> dict[str, Any]:
    """Return a kernel's arguments by name; the first ``skip`` are not among ``args``."""
    names = list(inspect.signature(getattr(kernel, "py_func", kernel)).parameters)[skip:]
    return dict(zip(names, args, strict=True))


def step_work(decoder: Decoder, args: dict[str, Any]) -> list[Work]:
    """Return the work of all layers in a step, for each of the kernel's ``PHASES``."""
    config, n = decoder.config, len(args["tokens"])
    row = 4.0 * config.width * n  # bytes of the residual stream
    heads = 4.0 * config.heads * config.head_size * n
    found = {name: Work(name) for name in PHASES}
    found["embedding"] = Work("embedding", bytes=row)
    for layer in decoder.layers:
        gate = [] if layer.gate is None else [layer.gate]
        inner = 4.0 * layer.up.weight.rows * n
        works = {
            "norm": Work("", bytes=4 * row),
            "query, key, value": _products((layer.query, layer.key, layer.value), n),
            "rotary, store": Work("", bytes=2 * heads),
            "attention": _attention(config.heads * config.head_size, args),
            "convert": Work("", bytes=2 * heads),
            "output": _products((layer.output,), n),
            "gate, up": _products((*gate, layer.up), n),
            "activation": Work("", bytes=inner * (len(gate) + 2)),
            "down": _products((layer.down,), n),
        }
        for name, work in works.items():
            found[name] = found[name].plus(work)
    return [found[name] for name in PHASES]


def head_work(decoder: Decoder, rows: int) -> Work:
    """Return the work of the logits of so many hidden states."""
    work = _products((decoder.head,), rows)
    return Work("logits", work.operations, work.bytes)


def _products(linears: Iterable[Linear], rows: int) -> Work:
    """Count products with matrices as the file packs them, their inputs and outputs in float32."""
    operations = traffic = 0.0
    for linear in linears:
        weight = linear.weight
        operations += 2.0 * rows * weight.rows * weight.columns
        traffic += weight.data.nbytes + 4.0 * rows * (weight.rows + weight.columns)
    return Work("", operations, traffic)


def _attention(width: int, args: dict[str, Any]) -> Work:
    """Count scores and sums over all positions that each token looks back at."""
    cache, rows, positions = args["cache"], args["rows"], args["positions"]
    looked_at = float(np.sum(positions + 1))
    longest = np.zeros(int(rows.max()) + 1)
    np.maximum.at(longest, rows, positions + 1)
    of_position = cache[0, 0].nbytes / BLOCK  # keys and values of all KV heads
    traffic = 8.0 * width * len(rows) + of_position * float(longest.sum())
    return Work("", 4.0 * width * looked_at, traffic)


def work_of_call(decoder: Decoder, call: Call) -> Work:
    """Return the work of a call that is shared out by items."""
    name = str(getattr(call.kernel, "__name__", call.kernel)).lstrip("_")
    if name == "segment_statistics":
        skip = 2 + (len(call.scratch) if isinstance(call.scratch, tuple) else 1)
        targets = named_arguments(call.kernel, skip, call.args)["targets"]
        work = head_work(decoder, len(targets))
        return Work("log-probabilities", work.operations, work.bytes)
    plain = {"prepare_rows": "norm", "sample_rows": "sampling", "score_rows": "scoring of rows"}
    return Work(plain.get(name, name))
