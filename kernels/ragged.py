"""The one type for everything that varies in length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from numbatch.errors import InputError

__all__ = ["Ragged", "device_dtype", "on_device", "to_host"]


def on_device(array: Any) -> bool:
    """Return whether an array lies in the memory of a CUDA device."""
    if type(array) is np.ndarray:
        return False
    # The second is what Numba's simulator has.
    return hasattr(array, "__cuda_array_interface__") or hasattr(array, "__cuda_ndarray__")


def to_host(array: Any) -> np.ndarray:
    """Return a copy on the host of an array on a device; an array on the host as it is."""
    if on_device(array) and hasattr(array, "copy_to_host"):
        # Numba copies in the default stream, which does not wait for that of our functions.
        from numbatch.kernels.device_arrays import gpu_of

        gpu_of(array, "array").synchronize()
    for copy in ("copy_to_host", "get", "cpu"):  # Numba, CuPy, PyTorch
        if on_device(array) and hasattr(array, copy):
            return np.asarray(getattr(array, copy)())
    return array if isinstance(array, np.ndarray) else np.asarray(array)  # a mask is kept


def device_dtype(array: Any) -> np.dtype:
    """Return NumPy's dtype of a device array; PyTorch and JAX have types of their own."""
    interface = getattr(array, "__cuda_array_interface__", None)
    return np.dtype(array.dtype if interface is None else interface["typestr"])


class Ragged:
    """Rows of different lengths in one flat array, as Arrow lays out a list array.

    Parameters
    ----------
    values : array, shape (total,)
        The rows one after another.
    offsets : int64 array, shape (rows + 1,)
        Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``. Starts at 0, never decreases, ends at
        ``total``.

    Raises
    ------
    InputError
        If the two arrays do not describe rows.

    Notes
    -----
    Both arrays may lie on a CUDA device (whatever has ``__cuda_array_interface__``). They are kept
    as they are, and what uses them there checks the offsets; rows are read on the host only.

    Examples
    --------
    >>> ragged = Ragged.from_rows([[1, 2], [], [3]], dtype="int64")
    >>> len(ragged), ragged[0].tolist(), ragged.lengths.tolist()
    (3, [1, 2], [2, 0, 1])
    """

    __slots__ = ("offsets", "values")

    def __init__(self, values: Any, offsets: Any) -> None:
        if on_device(values) or on_device(offsets):
            _check_device_arrays(values, offsets)
            self.values, self.offsets = values, offsets
            return
        self.values = np.ascontiguousarray(values)
        self.offsets = np.ascontiguousarray(offsets, dtype=np.int64)
        if self.values.ndim != 1 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise InputError(
                f"Ragged needs one-dimensional values and at least one offset, got shapes "
                f"{self.values.shape} and {self.offsets.shape}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise InputError(
                f"Ragged offsets run from {self.offsets[0]} to {self.offsets[-1]}, "
                f"should run from 0 to {len(self.values)}"
            )
        if np.any(self.offsets[1:] < self.offsets[:-1]):
            raise InputError("Ragged offsets decrease, should never decrease")

    @classmethod
    def from_rows(cls, rows: Iterable[Any], dtype: Any) -> Ragged:
        """Copy an iterable of one-dimensional rows into one Ragged of ``dtype``."""
        arrays = [np.asarray(row, dtype=dtype) for row in rows]
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype)
        return cls(values, offsets)

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64, shape (rows,); on the host, wherever the rows lie."""
        return np.diff(to_host(self.offsets))

    def to_host(self) -> Ragged:
        """Return a copy on the host of rows that lie on a device; otherwise the same object."""
        if not on_device(self.values):
            return self
        return Ragged(to_host(self.values), to_host(self.offsets))

    def to_device(self, gpu: Any) -> Ragged:
        """Return a copy on a device of rows that lie on the host.

        Parameters
        ----------
        gpu : numbatch.kernels.cuda.Gpu
        """
        placed = Ragged(gpu.upload(self.values), gpu.upload(self.offsets))
        gpu.synchronize()  # who reads it may do so in another stream
        return placed

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """Row ``row`` as a view; negative rows count from the end, as in a list."""
        rows = len(self)
        if not -rows <= row < rows:
            raise IndexError(f"row {row} is out of range for a Ragged of {rows} rows")
        row %= rows
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Ragged({len(self)} rows, {len(self.values)} values, {self.values.dtype})"


def _check_device_arrays(values: Any, offsets: Any) -> None:
    """Raise InputError where two arrays cannot be the parts of a Ragged on a device."""
    if not (on_device(values) and on_device(offsets)):
        raise InputError(
            "one of values and offsets lies on a device and one on the host, should be together"
        )
    if len(values.shape) != 1 or len(offsets.shape) != 1 or offsets.shape[0] == 0:
        raise InputError(
            f"Ragged needs one-dimensional values and at least one offset, got shapes "
            f"{tuple(values.shape)} and {tuple(offsets.shape)}"
        )
    if device_dtype(offsets) != np.int64:
        raise InputError(f"offsets on a device are {device_dtype(offsets)}, should be int64")
