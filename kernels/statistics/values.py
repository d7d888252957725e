"""What enters the statistics kernels: flat, contiguous, read-only float32 or float64 arrays."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import on_device

__all__ = ["NanPolicy", "as_values", "check_nan_policy", "check_no_nan", "check_same_policy"]

NanPolicy = Literal["propagate", "omit", "raise"]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
"""Taken as they are."""

EXACT = 2**53
"""Integers up to this magnitude are exact in float64."""


def as_values(array: Any, name: str = "values") -> np.ndarray:
    """Return an array's elements in C order as a flat read-only float32 or float64 array.

    float32 and float64 are taken as they are (without a copy where they are contiguous), float16
    becomes float32, booleans and integers become float64.

    Raises
    ------
    InputError
        If the dtype is another one, an integer is too large to be exact in float64, or the array
        is masked.
    """
    if type(array) is np.ndarray and array.flags.c_contiguous:
        dtype = array.dtype
        if dtype is FLOAT32 or dtype is FLOAT64:  # equal ones that are not the same go on below
            flat = array.view() if array.ndim == 1 else array.reshape(-1)
            # As _for_reading does. NumPy's types want a name, which takes 100 ns to read.
            flat.setflags(False)  # type: ignore[call-arg]
            return flat
    if type(array) is not np.ndarray:
        if on_device(array):
            raise InputError(f"{name} lies on a GPU, where this has no kernel: copy it to the host")
        if isinstance(array, np.ma.MaskedArray):
            raise InputError(
                f"{name} is a masked array, whose mask would be lost: give its .compressed(), or "
                f".filled(nan) with nan_policy='omit'"
            )
        array = np.asarray(array)
    dtype = array.dtype
    if dtype.kind in "iu" and dtype.itemsize == 8 and array.size:
        largest = max(int(array.max()), -int(array.min()))
        if largest > EXACT:
            raise InputError(
                f"{name} is {dtype.name} and holds magnitudes up to {largest}, which float64 does "
                f"not hold exactly; should be at most 2**53, or be converted by the caller"
            )
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize == 8):
        wanted: Any = np.float64
    elif dtype.kind == "f" and dtype.itemsize in (2, 4):
        wanted = np.float32
    elif array.size == 0 and dtype == np.object_:
        wanted = np.float64
    else:
        raise InputError(
            f"{name} has dtype {dtype.name}, should be float32, float64, float16, an integer or "
            f"a boolean type"
        )
    return _for_reading(np.ascontiguousarray(array, dtype=wanted).reshape(-1).view())


def _for_reading(view: np.ndarray) -> np.ndarray:
    """Make a view read-only: Numba would compile once more for arrays that can be written."""
    view.setflags(write=False)
    return view


def check_nan_policy(nan_policy: str) -> None:
    """Raise InputError unless ``nan_policy`` is one of SciPy's three names."""
    if nan_policy not in ("propagate", "omit", "raise"):
        raise InputError(f"nan_policy is {nan_policy!r}, should be 'propagate', 'omit' or 'raise'")


def check_same_policy(one: str, other: str) -> None:
    """Raise InputError unless two states to be merged have the same NaN policy."""
    if one != other:
        raise InputError(
            f"the states to merge have nan_policy {one!r} and {other!r}, should have the same"
        )


def check_no_nan(nans: int, nan_policy: str, name: str = "values") -> bool:
    """Return whether NaN decides the result; raise InputError where the policy says so."""
    if nans and nan_policy == "raise":
        raise InputError(f"{name} holds {nans} NaN, and nan_policy is 'raise'")
    return bool(nans) and nan_policy == "propagate"
