"""GGUF files: metadata and packed tensors, memory-mapped."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.scoring.formats import F32, FORMATS, row_bytes, unpack
from numbatch.models.decoder import Matrix
from numbatch.models.gguf_header import TensorEntry, TruncatedError, read_header

__all__ = ["GGUFFile", "open_gguf", "read_metadata"]

VERSIONS = (2, 3)


class GGUFFile:
    """An open GGUF file.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    metadata : dict
        Arrays of strings as Ragged of uint8, other arrays as read-only NumPy arrays, scalars as
        Python values.

    Raises
    ------
    ModelError
        If the file is missing, truncated, damaged, or of a kind that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_start(path)
        try:
            self._data: np.ndarray = np.asarray(np.memmap(path, mode="r"))
            header = read_header(self._data)
            self.metadata = header.metadata
            self._tensors = {entry.name: entry for entry in header.tensors}
            for entry in header.tensors:
                self._check_end(entry)
        except TruncatedError as error:
            raise ModelError(
                f"{path} is truncated: it has {path.stat().st_size:,} bytes and names data up to "
                f"byte {error.needed:,}. Fetch the file again"
            ) from None
        except (ValueError, OverflowError, OSError, MemoryError) as error:
            raise ModelError(f"{path} is not a GGUF file that can be read: {error}") from error

    def _check_end(self, tensor: TensorEntry) -> None:
        """Check a tensor's size against the file's."""
        columns = tensor.shape[-1] if tensor.shape else 1
        # Tensors of other formats may lie in a file, as long as nobody asks for them.
        block, block_bytes = _block(tensor.format)
        if block and columns % block:
            raise ModelError(
                f"{self.path}: tensor {tensor.name} has rows of {columns} weights, should have a "
                f"multiple of {block} ({_format_name(tensor.format)})"
            )
        end = tensor.begin + math.prod(tensor.shape) * block_bytes // max(block, 1)
        if end > len(self._data):
            raise TruncatedError(end)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._tensors)

    @property
    def files(self) -> tuple[str, ...]:
        """The file that the tensors lie in."""
        return (str(self.path),)

    def rows(self, name: str) -> int:
        """Return the rows of a matrix; raises ModelError where it is missing or no matrix."""
        shape = self._find(name).shape
        if len(shape) != 2:
            raise ModelError(f"{self.path}: tensor {name} has shape {shape}, should be a matrix")
        return shape[0]

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a tensor as a packed matrix, a read-only view of the file.

        Raises
        ------
        ModelError
            If the tensor is missing, of another shape, or of a format that is not supported.
        """
        tensor = self._tensor(name, (rows, columns))
        width = row_bytes(tensor.format, columns)
        data = self._data[tensor.begin : tensor.begin + rows * width].reshape(rows, width)
        return Matrix(_aligned(data), tensor.format, columns)

    def vector(self, name: str, length: int) -> np.ndarray:
        """Return a one-dimensional tensor as a read-only float32 array; raises as ``matrix``."""
        tensor = self._tensor(name, (length,))
        width = row_bytes(tensor.format, length)
        data = _aligned(self._data[tensor.begin : tensor.begin + width].reshape(1, width))
        if tensor.format == F32:  # nothing to unpack, so no kernel to load either
            return data[0].view(np.float32)
        values = unpack(data, tensor.format, length)[0]
        values.flags.writeable = False
        return values

    def _find(self, name: str) -> TensorEntry:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path} has no tensor {name}, which its architecture needs")
        return tensor

    def _tensor(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        tensor = self._find(name)
        if tensor.format not in FORMATS:
            supported = ", ".join(entry.name for entry in FORMATS.values())
            raise ModelError(
                f"{self.path}: tensor {name} has format {_format_name(tensor.format)}, "
                f"supported are {supported}"
            )
        if tensor.shape != shape:
            raise ModelError(
                f"{self.path}: tensor {name} has shape {tensor.shape}, should have {shape}"
            )
        return tensor


def open_gguf(path: str | Path) -> GGUFFile:
    """Open a GGUF file; raises ModelError as ``GGUFFile`` does."""
    return GGUFFile(Path(path))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file; see ``GGUFFile.metadata``."""
    return GGUFFile(Path(path)).metadata


def _check_start(path: Path) -> None:
    """Check the magic number, the byte order and the version, before anything is mapped."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder, should be a GGUF file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if start[:4] != b"GGUF"[: len(start)] or not start:
        raise ModelError(f"{path} is not a GGUF file: it starts with {start[:4]!r}, not b'GGUF'")
    if len(start) < 8:
        raise ModelError(f"{path} is truncated: it has {len(start)} bytes. Fetch the file again")
    version = struct.unpack("<I", start[4:])[0]
    if version & 0xFFFF == 0:
        raise ModelError(f"{path} is a big-endian GGUF file; only little-endian is supported")
    if version not in VERSIONS:
        raise ModelError(f"{path} is GGUF version {version}; supported are {VERSIONS}")


def _block(kind: int) -> tuple[int, int]:
    """Return a format's block and its bytes; zeros where nobody knows it."""
    known = FORMATS.get(kind)
    if known is not None:
        return known.block, known.block_bytes
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        return GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        return 0, 0


def _format_name(kind: int) -> str:
    from gguf.constants import GGMLQuantizationType  # 25 ms, and seldom needed

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return f"number {kind}"


def _aligned(data: np.ndarray) -> np.ndarray:
    """Return ``data`` itself, or a copy where it does not start at a multiple of four bytes.

    Kernels read 16- and 32-bit elements of F16, BF16 and F32 rows in place.
    """
    if data.ctypes.data % np.dtype(np.float32).itemsize:
        data = data.copy()
    data.flags.writeable = False
    return data
