"""Texts in groups of bounded size, and what is made of them as Ragged arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged

__all__ = ["check_out", "in_groups", "piece_bytes", "placed", "stacked"]

_GROUP = 1 << 22
"""Characters that are tokenized in one call of the kernel; bounds the working memory."""


def in_groups(texts: Iterator[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of a bounded number of characters."""
    group: list[str] = []
    characters = 0
    for text in texts:
        if group and characters + len(text) > _GROUP:
            yield group
            group, characters = [], 0
        group.append(text)
        characters += len(text)
    if group:
        yield group


def piece_bytes(pieces: list[str]) -> Ragged:
    """Return strings as a Ragged of UTF-8."""
    joined = "".join(pieces)
    data = np.frombuffer(joined.encode(), np.uint8)
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    if len(data) > len(joined):
        # From characters to bytes: a character begins at each byte that does not continue one.
        begins = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
        offsets = begins[offsets]
    return Ragged(data, offsets)


def stacked(groups: list[Ragged]) -> Ragged:
    """Return the rows of several Ragged of uint32 in one."""
    if len(groups) == 1:
        return groups[0]
    offsets = np.zeros(1 + sum(map(len, groups)), np.int64)
    np.cumsum(
        np.concatenate([np.empty(0, np.int64), *(g.lengths for g in groups)]), out=offsets[1:]
    )
    return Ragged(np.concatenate([np.empty(0, np.uint32), *(g.values for g in groups)]), offsets)


def check_out(out: Any) -> None:
    """Raise an InputError unless ``out`` is None or an array that ids can be written to."""
    if out is None:
        return
    if not isinstance(out, np.ndarray) or out.dtype != np.uint32 or out.ndim != 1:
        given = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else repr(out)
        raise InputError(f"out is {given}, should be a one-dimensional array of uint32")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out should be contiguous and writeable")


def placed(ids: Ragged, out: np.ndarray) -> Ragged:
    """Return the ids in the first part of ``out``."""
    if ids.values.size > out.size:
        raise InputError(f"out has room for {out.size} ids, should for {ids.values.size}")
    out[: ids.values.size] = ids.values
    return Ragged(out[: ids.values.size], ids.offsets)
