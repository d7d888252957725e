"""Ids as the kernels want them: bytes one after another, with marks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.id_texts import mark_ids
from numbatch.kernels.ids import TAIL

__all__ = ["PAD", "check_id", "flatten", "joined", "key_of"]

PAD = bytes(TAIL)
"""What has to follow the last id."""

_END = "\0" * TAIL


def check_id(name: Any, place: Any = None) -> str | int:
    """Return an id as a plain ``str`` or ``int``.

    Raises
    ------
    InputError
        If it is neither a text that is not empty nor a whole number.
    """
    if isinstance(name, str) and name:
        return str(name)
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return int(name)
    at = "an id" if place is None else f"id {place}"
    raise InputError(f"{at} is {name!r}, should be a non-empty text or a whole number")


def key_of(name: Any) -> tuple[bytes, int]:
    """Return the bytes of an id and its kind: 0 for a text, 1 for a whole number."""
    if isinstance(name, str):
        return name.encode(errors="surrogatepass"), 0
    number = int(name)
    size = max(8, number.bit_length() // 8 + 1)
    return number.to_bytes(size, "little", signed=True), 1


def flatten(ids: Iterable[Any], first: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay ids out as the kernels want them: bytes with a tail, marks, and the gap after each.

    ``first`` is the place of the first of them, for messages.
    """
    if isinstance(ids, np.ndarray):
        if ids.ndim == 1 and ids.dtype.kind in "iu" and (ids.dtype != np.uint64 or ids.size == 0):
            return _numbers(ids.astype(np.int64))
        ids = ids.tolist()
    elif isinstance(ids, str):
        raise InputError(f"ids are {ids!r}, should be a list of ids")
    names = ids if isinstance(ids, list) else list(ids)
    if names and isinstance(names[0], str):
        texts = _texts(names)
        if texts is not None:
            return texts
    kinds = set(map(type, names))
    if kinds == {int} and min(names) >= -(2**63) and max(names) < 2**63:
        return _numbers(np.array(names, np.int64))
    keys = [key_of(check_id(name, first + i)) for i, name in enumerate(names)]
    ends = np.fromiter(itertools.accumulate((len(key) for key, _ in keys), initial=0), np.int64)
    marks = 2 * ends
    marks[:-1] += np.fromiter((kind for _, kind in keys), np.int64, len(keys))
    return np.frombuffer(b"".join(key for key, _ in keys) + PAD, np.uint8), marks, 0


def joined(names: list[Any]) -> bytes | None:
    """Join texts, a zero byte after each, which is fastest, with the tail; None if one is none."""
    try:
        return "\0".join([*names, _END]).encode(errors="surrogatepass")
    except TypeError:
        return None


def _texts(names: list[str]) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Lay texts out; None if one is empty, is no text or holds a zero byte."""
    whole = joined(names)
    if whole is None:
        return None
    data, marks = np.frombuffer(whole, np.uint8), np.empty(len(names) + 1, np.int64)
    return (data, marks, 1) if mark_ids(data, marks) else None


def _numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    data = np.concatenate([values.astype("<i8").view(np.uint8), np.zeros(TAIL, np.uint8)])
    marks = 16 * np.arange(len(values) + 1, dtype=np.int64)
    marks[:-1] += 1
    return data, marks, 0
