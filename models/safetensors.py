"""Safetensors files: packed tensors, memory-mapped.

The format is eight bytes of length, a header in JSON, and the tensors' bytes
(https://github.com/huggingface/safetensors#format). The ``safetensors`` library copies every
tensor that it hands to NumPy, and hands out no bfloat16; so the header is read here and the
tensors stay views of the file.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.scoring.formats import BF16, F16, F32, row_bytes, unpack
from numbatch.models.decoder import Matrix

__all__ = ["SafetensorsFolder"]

_FORMATS = {"F32": F32, "F16": F16, "BF16": BF16}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor's bytes (a view of the file) and what they mean."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


class SafetensorsFolder:
    """The tensors of ``model.safetensors``, or of the files that its index names.

    Parameters
    ----------
    folder : Path
    transposed : str, optional
        Regular expression of the names of matrices that are stored as (inputs, outputs).

    Raises
    ------
    ModelError
        If a file is missing, truncated or damaged.
    """

    def __init__(self, folder: Path, transposed: str = r"(?!)") -> None:
        self._transposed = re.compile(transposed)
        self._paths = _weight_files(folder)
        self._tensors: dict[str, _Tensor] = {}
        for path in self._paths:
            for name, tensor in _read(path).items():
                if name in self._tensors:
                    raise ModelError(
                        f"tensor {name} is in {self._tensors[name].path} and in {path}, "
                        "should be in one of them"
                    )
                self._tensors[name] = tensor

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._tensors)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the tensors lie in."""
        return tuple(str(path) for path in self._paths)

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a tensor as a packed matrix, read-only, a view of the file if it can be.

        Raises
        ------
        ModelError
            If the tensor is missing, of another shape, or of a dtype that is not supported.
        """
        transposed = self._transposed.fullmatch(name) is not None
        tensor = self._tensor(name, (columns, rows) if transposed else (rows, columns))
        format = _FORMATS[tensor.dtype]
        width = row_bytes(format, columns)
        data = tensor.data
        if transposed:
            size = width // columns
            elements = data.view(f"V{size}").reshape(columns, rows)
            data = np.ascontiguousarray(elements.T).view(np.uint8).reshape(-1)
        elif data.ctypes.data % np.dtype(np.float32).itemsize:
            data = data.copy()  # kernels read 16- and 32-bit elements in place
        data = data.reshape(rows, width)
        data.flags.writeable = False
        return Matrix(data, format, columns)

    def vector(self, name: str, length: int) -> np.ndarray:
        """Return a one-dimensional tensor as a read-only float32 array; raises as ``matrix``."""
        tensor = self._tensor(name, (length,))
        format = _FORMATS[tensor.dtype]
        values = unpack(tensor.data.copy().reshape(1, -1), format, length)[0]
        values.flags.writeable = False
        return values

    def _tensor(self, name: str, shape: tuple[int, ...]) -> _Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self._paths[0].parent} has no tensor {name}, which its model needs")
        if tensor.dtype not in _FORMATS:
            raise ModelError(
                f"{tensor.path}: tensor {name} has dtype {tensor.dtype}, supported are "
                f"{', '.join(_FORMATS)}"
            )
        if tensor.shape != shape:
            raise ModelError(
                f"{tensor.path}: tensor {name} has shape {tensor.shape}, should have {shape}"
            )
        return tensor


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the one file, or the files that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if not index.is_file():
        raise ModelError(
            f"{folder} has neither {single.name} nor {index.name}; weights in other files "
            "(pytorch_model.bin) are not supported"
        )
    try:
        placed = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(placed.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelError(f"{index} is damaged: {error!r}. Fetch it again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index} names {name!r}, should name files of its own folder")
    if not names:
        raise ModelError(f"{index} names no files")
    return tuple(folder / name for name in names)


def _read(path: Path) -> dict[str, _Tensor]:
    """Map one file and return its tensors, their places checked."""
    try:
        size = path.stat().st_size
        if size < 8:
            raise ModelError(f"{path} is truncated: it has {size} bytes. Fetch the file again")
        data = np.asarray(np.memmap(path, np.uint8, "r"))
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    begin = 8 + int(data[:8].view("<u8")[0])
    if begin > size:
        raise ModelError(
            f"{path} is truncated or not a safetensors file: it has {size:,} bytes and names a "
            f"header up to byte {begin:,}. Fetch the file again"
        )
    try:
        header = json.loads(data[8:begin].tobytes())
        header.pop("__metadata__", None)
        return {name: _place(path, name, entry, data[begin:]) for name, entry in header.items()}
    except ModelError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} has a damaged header: {error!r}. Fetch it again") from error


def _place(path: Path, name: str, entry: dict, data: np.ndarray) -> _Tensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    for number in (*shape, begin, end):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"tensor {name} has shape {shape} and bytes {begin} to {end}")
    if end > len(data):
        raise ModelError(
            f"{path} is truncated: tensor {name} ends at byte {end:,} of {len(data):,}. "
            "Fetch the file again"
        )
    width = row_bytes(_FORMATS[dtype], math.prod(shape)) if dtype in _FORMATS else end - begin
    if end - begin != width:
        raise ValueError(f"tensor {name} has {end - begin} bytes, should have {width}")
    return _Tensor(path, dtype, shape, data[begin:end])
