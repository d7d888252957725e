"""How many operations and bytes a kernel call cannot do without, told from its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.threads import Call

__all__ = ["Work", "kernel_name", "work_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """A plain name for what the call does, and how much it is; 0: not counted."""

    name: str
    operations: float = 0.0
    bytes: float = 0.0


def kernel_name(call: Call) -> str:
    """Return the name of a kernel's function."""
    return str(getattr(call.kernel, "__name__", call.kernel))


def work_of(call: Call) -> Work:
    """Return the work of a call; of a kernel that is not known, its arrays are its bytes."""
    name = kernel_name(call)
    for start, count in _KNOWN.items():
        if name.lstrip("_").startswith(start):
            return count(call)
    return Work(name.lstrip("_"), bytes=_touched(call))


def _touched(call: Call) -> float:
    """Return the bytes of the arrays that have a row for each item: read or written once."""
    arrays = [each for each in call.args if isinstance(each, np.ndarray) and each.ndim]
    return float(sum(array.nbytes for array in arrays if len(array) == call.items))


def _product(call: Call) -> Work:
    """Count the product of activations ``x`` with packed rows."""
    x, data, _, columns = call.args[:4]
    out = len(x) * len(data)
    traffic = x.nbytes + data.nbytes + 4 * out
    return Work(f"product {len(data)} x {columns}", 2.0 * out * columns, float(traffic))


def _vocabulary(call: Call) -> Work:
    """Count the product with the vocabulary whose logits are folded where they arise."""
    hidden, data, _, columns = call.args[:4]
    operations = 2.0 * len(hidden) * len(data) * columns
    return Work("log-probabilities", operations, float(hidden.nbytes + data.nbytes))


def _attention(call: Call) -> Work:
    """Count scores and sums over all positions that each token looks back at."""
    q, cache, _, rows, positions = call.args[:5]
    looked_at = float(np.sum(positions + 1))
    longest = np.zeros(int(rows.max()) + 1 if len(rows) else 0)
    np.maximum.at(longest, rows, positions + 1)
    width = cache[0, 0].nbytes / BLOCK  # of a position: keys and values of all KV heads
    return Work("attention", 4.0 * q.shape[1] * looked_at, q.nbytes + width * float(longest.sum()))


_KNOWN: dict[str, Callable[[Call], Work]] = {
    "matmul": _product,
    "segment_statistics": _vocabulary,
    "attend": _attention,
}
"""Kernels by how their names begin."""
