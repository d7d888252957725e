"""Dense products of bfloat16 matrices: cuBLAS, and NumPy in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, array_pointer, is_simulated
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array

__all__ = ["Dense"]

_TRANSPOSED, _AS_IT_IS = 1, 0
_BFLOAT16, _FLOAT32 = 14, 0
_SUMS_IN_FLOAT32, _ITS_CHOICE = 68, -1


class Dense:
    """Products ``x @ weight.T`` on a GPU's stream, summed in float32."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._one, self._zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        if not is_simulated():
            from cupy.cuda import device
            from cupy_backends.cuda.libs import cublas

            self._cublas, self._device = cublas, device

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
        """
        count = rows[1] - rows[0]
        if is_simulated():
            self._simulate(x, weight, tokens, inputs, out, rows, at, first, add)
            return
        handle = self._device.get_cublas_handle()
        self._cublas.setStream(handle, self._gpu.stream.ptr)
        is_half = out.dtype.itemsize == 2
        self._cublas.gemmEx(
            handle, _TRANSPOSED, _AS_IT_IS, count, tokens, inputs, self._one.ctypes.data,
            array_pointer(weight) + 2 * rows[0] * weight.shape[1], _BFLOAT16, weight.shape[1],
            array_pointer(x) + 2 * first * x.shape[1], _BFLOAT16, x.shape[1],
            (self._one if add else self._zero).ctypes.data,
            array_pointer(out) + out.dtype.itemsize * (at[0] * out.shape[1] + at[1]),
            _BFLOAT16 if is_half else _FLOAT32, out.shape[1], _SUMS_IN_FLOAT32, _ITS_CHOICE,
        )  # fmt: skip

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
