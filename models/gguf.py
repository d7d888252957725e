"""GGUF files: metadata and packed tensors, memory-mapped.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and read with
the ``gguf`` package; every length that a file names is checked before it is used.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_reader import ReaderField

from numbatch.errors import ModelError
from numbatch.kernels.scoring.formats import F32, FORMATS, row_bytes, unpack
from numbatch.models.decoder import Matrix

__all__ = ["GGUFFile", "open_gguf", "read_metadata"]

VERSIONS = (2, 3)


class _Reader(GGUFReader):
    """The package's reader, with arrays read whole and every length checked.

    The package reads an array element by element, with several NumPy views each: SmolLM2's
    98,000 strings take it 3.2 s, and this class 0.1 s. It also slices past the end of a short
    file without noticing, and walks as many elements as a damaged length says.
    """

    def __init__(self, path: Path) -> None:
        # A slice of an mmap is bytes at once; slices of a memoryview take three times as long.
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with self._bytes:
            super().__init__(path)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise _TruncatedError(end)
        return super()._get(int(offset), dtype, count, override_order)

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        kind = GGUFValueType(raw_type)
        if kind != GGUFValueType.ARRAY:
            return cast(Any, super()._get_field_parts(orig_offs, raw_type))
        raw_element = self._get(orig_offs, np.uint32)
        length = self._get(orig_offs + 4, np.uint64)
        element, begin = GGUFValueType(int(raw_element[0])), orig_offs + 12
        values: Any
        if element == GGUFValueType.STRING:
            values, end = self._strings(begin, int(length[0]))
        elif element in self.gguf_scalar_to_np:
            values = self._get(begin, self.gguf_scalar_to_np[element], int(length[0]))
            end = begin + values.nbytes
        else:
            raise ValueError(f"an array of {element.name} is not supported")
        return end - orig_offs, [raw_element, length, values], [2], [kind, element]

    def _strings(self, at: int, count: int) -> tuple[list[str], int]:
        """Return ``count`` strings that start at byte ``at``, and where they end."""
        if at + 8 * count > len(self.data):
            raise _TruncatedError(at + 8 * count)
        buffer, size, read_length = self._bytes, len(self.data), struct.Struct("<Q").unpack_from
        strings = []
        for _ in range(count):
            if at + 8 > size:
                raise _TruncatedError(at + 8)
            end = at + 8 + read_length(buffer, at)[0]
            if end > size:
                raise _TruncatedError(end)
            strings.append(buffer[at + 8 : end].decode())
            at = end
        return strings, at

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        """Leave the tensors' data alone: ``GGUFFile`` describes them, and checks more."""
        self.tensor_fields = fields


class _TruncatedError(Exception):
    """The file ends before a byte that it should have."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Where a tensor lies; ``shape`` as NumPy orders it, the row's length last."""

    format: int
    shape: tuple[int, ...]
    begin: int


class GGUFFile:
    """An open GGUF file.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    metadata : dict
        Arrays of strings as lists of ``str``, other arrays as read-only NumPy arrays, scalars as
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
            reader = _Reader(path)
            self.metadata = {
                name: _value(field)
                for name, field in reader.fields.items()
                if not name.startswith("GGUF.")
            }
            self._data: np.ndarray = np.asarray(reader.data)
            self._tensors = dict(
                self._describe(field, int(reader.data_offset)) for field in reader.tensor_fields
            )
        except _TruncatedError as error:
            raise ModelError(
                f"{path} is truncated: it has {path.stat().st_size:,} bytes and names data up to "
                f"byte {error.needed:,}. Fetch the file again"
            ) from None
        except ModelError:
            raise
        except (ValueError, KeyError, IndexError, OverflowError, OSError, MemoryError) as error:
            raise ModelError(f"{path} is not a GGUF file that can be read: {error}") from error

    def _describe(self, field: ReaderField, start: int) -> tuple[str, _Tensor]:
        """Return a tensor's name and place, checked against the file's size."""
        name = bytes(field.parts[1]).decode()
        shape = tuple(int(size) for size in reversed(field.parts[3]))
        kind, begin = int(field.parts[4][0]), start + int(field.parts[5][0])
        columns = shape[-1] if shape else 1
        # Tensors of other formats may lie in a file, as long as nobody asks for them.
        block, block_bytes = _block(kind)
        if block and columns % block:
            raise ModelError(
                f"{self.path}: tensor {name} has rows of {columns} weights, should have a multiple "
                f"of {block} ({_format_name(kind)})"
            )
        end = begin + math.prod(shape) * block_bytes // max(block, 1)
        if end > len(self._data):
            raise _TruncatedError(end)
        return name, _Tensor(kind, shape, begin)

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

    def _find(self, name: str) -> _Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path} has no tensor {name}, which its architecture needs")
        return tensor

    def _tensor(self, name: str, shape: tuple[int, ...]) -> _Tensor:
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


def _value(field: ReaderField) -> Any:
    """Return a metadata field as a plain value."""
    values = field.parts[-1]
    if field.types[0] == GGUFValueType.STRING:
        return bytes(values).decode()
    if field.types[0] != GGUFValueType.ARRAY:
        return values[0].item()
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    return values


def _block(kind: int) -> tuple[int, int]:
    """Return a format's block and its bytes; zeros where the gguf package does not know it."""
    try:
        return GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        return 0, 0


def _format_name(kind: int) -> str:
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
