"""Dense products of bfloat16 matrices: cuBLAS, and NumPy in the simulator."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, array_pointer, is_simulated
from numbatch.kernels.cuda.kernels import import_cuda
from numbatch.kernels.scoring.cuda.dense_tiles import (
    FEWEST_TOKENS,
    TiledProducts,
    check_status,
)
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

__all__ = ["Dense"]

_TRANSPOSED, _AS_IT_IS = 1, 0
_BFLOAT16, _FLOAT32 = 14, 0
_SUMS_IN_FLOAT32, _ITS_CHOICE = 68, -1

WORKSPACE = 2**26
"""Bytes for cuBLAS to split a product over; a graph that is captured must own them."""


class Dense:
    """Products ``x @ weight.T`` on a GPU's stream, summed in float32.

    cuBLAS is called past CuPy, which refuses to call it while a graph is captured.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._one, self._zero = ctypes.c_float(1), ctypes.c_float(0)
        if is_simulated():
            return
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self._library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
        self._handle = ctypes.c_void_p()
        self._workspace = gpu.empty(WORKSPACE, np.uint8)
        pointer = ctypes.c_void_p(array_pointer(self._workspace))
        size = ctypes.c_size_t(WORKSPACE)
        check_status(self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        stream = ctypes.c_void_p(gpu.stream.ptr)
        check_status(self._library.cublasSetStream_v2(self._handle, stream))
        check_status(self._library.cublasSetWorkspace_v2(self._handle, pointer, size))
        # Measured on an H200; on chips of other generations nobody knows which tiles are better.
        is_hopper = tuple(import_cuda().get_current_device().compute_capability) == (9, 0)
        self._tiled = TiledProducts(gpu, self._workspace) if is_hopper else None

    def product(
        self,
        x: Any,
        weight: Any,
        tokens: int,
        inputs: int,
        out: Any,
        *,
        rows: tuple[int, int],
        at: tuple[int, int] = (0, 0),
        first: int = 0,
        add: bool = False,
    ) -> None:
        """Write a product, or add it to what is there.

        Parameters
        ----------
        x : uint16 array, shape (at least first + tokens, at least inputs)
        weight : uint16 array, shape (at least rows[1], at least inputs)
        tokens, inputs : int
        out : uint16 or float32 array, shape (any, any)
        rows : (int, int)
            Which rows of the weight.
        at : (int, int)
            Where in ``out`` the product begins.
        first : int
            The first row of ``x``.
        add : bool

        Raises
        ------
        DeviceError
            If cuBLAS cannot start it.
        """
        count = rows[1] - rows[0]
        if is_simulated():
            self._simulate(x, weight, tokens, inputs, out, rows, at, first, add)
            return
        is_half = out.dtype.itemsize == 2
        places = (
            array_pointer(weight) + 2 * rows[0] * weight.shape[1],
            array_pointer(x) + 2 * first * x.shape[1],
            array_pointer(out) + out.dtype.itemsize * (at[0] * out.shape[1] + at[1]),
        )
        apart = (weight.shape[1], x.shape[1], out.shape[1])
        if self._tiled is not None and tokens >= FEWEST_TOKENS:
            shape = (count, tokens, inputs)
            if self._tiled.start(*places, shape, apart, is_half=is_half, add=add):
                return
        whole, pointer = ctypes.c_int, ctypes.c_void_p
        status = self._library.cublasGemmEx(
            self._handle, whole(_TRANSPOSED), whole(_AS_IT_IS), whole(count), whole(tokens),
            whole(inputs), ctypes.byref(self._one), pointer(places[0]), whole(_BFLOAT16),
            whole(apart[0]), pointer(places[1]), whole(_BFLOAT16), whole(apart[1]),
            ctypes.byref(self._one if add else self._zero), pointer(places[2]),
            whole(_BFLOAT16 if is_half else _FLOAT32), whole(apart[2]), whole(_SUMS_IN_FLOAT32),
            whole(_ITS_CHOICE),
        )  # fmt: skip
        check_status(status)

    @staticmethod
    def _simulate(
        x: Any, weight: Any, tokens: int, inputs: int, out: Any, rows: tuple[int, int],
        at: tuple[int, int], first: int, add: bool,
    ) -> None:  # fmt: skip
        left = float32_array(x._ary[first : first + tokens, :inputs])
        right = float32_array(weight._ary[rows[0] : rows[1], :inputs])
        values = left @ right.T
        part = out._ary[at[0] : at[0] + tokens, at[1] : at[1] + len(right)]
        if add:
            values = values + part
        part[:] = bfloat16_array(values) if part.dtype == np.uint16 else values
