"""The header of a GGUF file: metadata, and where each tensor lies.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every length
that a file names is checked before it is used.

The ``gguf`` package reads arrays element by element, 3.2 s for SmolLM2's 98,000 strings, and slices
past the end of a short file without noticing. With both replaced in a class derived from its
reader, of which little was left in use, a file took 47 ms, half of all that llama.cpp takes to the
first token; it takes 5 ms here. The tests write their files with the package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.kernels.tokenization.prefixed_strings import read_prefixed

__all__ = ["Header", "TensorEntry", "TruncatedError", "read_header"]

_START = 8
"""Bytes of the magic number and the version."""
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_ALIGNMENT = 32


class TruncatedError(Exception):
    """The file ends before a byte that it should have."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as the header names it; ``shape`` as NumPy orders it, the row's length last."""

    name: str
    shape: tuple[int, ...]
    format: int
    begin: int
    """Its first byte, counted from the beginning of the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself; ``metadata`` as that of ``GGUFFile``."""

    metadata: dict[str, Any]
    tensors: list[TensorEntry]


def read_header(data: np.ndarray) -> Header:
    """Read the header of a file whose magic number and version are known to be right.

    Parameters
    ----------
    data : uint8 array
        The file.

    Raises
    ------
    TruncatedError
        If the file ends too early.
    ValueError
        If it is damaged in another way; the message says how.
    """
    cursor = _Cursor(data)
    tensor_count, field_count = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(field_count):
        name = cursor.text()
        if name in metadata:
            raise ValueError(f"{name} stands twice in its metadata")
        metadata[name] = cursor.value(cursor.number("<I"))
    tensors = [cursor.tensor() for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}, should be a power of two")
    start = -(-cursor.at // alignment) * alignment
    entries = [
        TensorEntry(name, shape, kind, start + offset) for name, shape, kind, offset in tensors
    ]
    return Header(metadata, entries)


class _Cursor:
    """A place in a file, behind what was read already."""

    def __init__(self, data: np.ndarray) -> None:
        self._data, self._view, self.at = data, memoryview(data.data), _START

    def _skip(self, size: int) -> int:
        """Go on by so many bytes, which the file must have; return where they begin."""
        begin, self.at = self.at, self.at + size
        if self.at > len(self._view):
            raise TruncatedError(self.at)
        return begin

    def number(self, kind: str) -> Any:
        """Return one number, by ``struct``'s name of its type."""
        begin = self._skip(struct.calcsize(kind))
        return struct.unpack_from(kind, self._view, begin)[0]

    def text(self) -> str:
        """Return a string."""
        size = self.number("<Q")
        begin = self._skip(size)
        return str(self._view[begin : self.at], "utf-8")

    def value(self, kind: int) -> Any:
        """Return a field's value."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.number("<I"), self.number("<Q"))
        return self._scalars(kind, 1)[0].item()

    def _scalars(self, kind: int, count: int) -> np.ndarray:
        if kind not in _SCALARS:
            raise ValueError(f"values of type {kind} are not supported")
        begin = self._skip(np.dtype(_SCALARS[kind]).itemsize * count)
        return self._data[begin : self.at].view(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> Any:
        if kind != _STRING:
            return self._scalars(kind, count)
        if self.at + 8 * count > len(self._view):
            raise TruncatedError(self.at + 8 * count)
        try:
            strings, self.at = read_prefixed(self._data, self.at, count)
        except IndexError as error:
            raise TruncatedError(error.args[0]) from None
        return strings

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return a tensor's name, shape, format and place behind the header."""
        name, dimensions = self.text(), self.number("<I")
        begin = self._skip(8 * dimensions)
        sizes = struct.unpack_from(f"<{dimensions}Q", self._view, begin)
        return name, sizes[::-1], self.number("<I"), self.number("<Q")
