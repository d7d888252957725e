"""Large dense products by cuBLASLt, in tiles that are fast on a GPU at its power limit.

What cuBLAS chooses by itself is fastest for milliseconds. Products that go on for longer are held
back by the card's power: an H200 at 690 of its 700 W goes from 1,980 MHz to some 1,480. Then other
tiles of the library's list are faster, most likely because they take less energy: scoring with a
model of Llama-3.1-8B's shapes was 2.3 % faster.
"""

from __future__ import annotations

import ctypes
from typing import Any

from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu, array_pointer

__all__ = ["FEWEST_TOKENS", "TiledProducts", "check_status"]

FEWEST_TOKENS = 4096
"""Inputs of a product that is large."""

ALIGNED = 256
"""Bytes of which addresses are multiples; the library takes that for granted."""

TILES = {
    # Numbers of cublasLtMatmulTile_t: 176 x 128, 168 x 128; 128 x 160, 256 x 128.
    "stored": (201, 197),
    "added": (29, 24),
    "logits": (201, 29),
}
"""For bfloat16 results, for float32 that are added and for others, the best first. Measured under
load on an H200 with 16,384 and 16,896 inputs of the products of Llama-3.1-8B, TFLOP/s, beside
cuBLAS's choice: 28,672 x 4,096 683 and 691 (668 and 675), 6,144 x 4,096 696 and 680 (668 and 658);
added 4,096 x 14,336 665 and 656 (633 and 646), 4,096 x 4,096 651 and 637 (617 and 606); logits,
8,448 of 8,448 inputs, 676 (634)."""

_CANDIDATES = 16
_KEPT = 256
"""Shapes whose tiles are kept."""

_TRANSPOSED, _BFLOAT16, _FLOAT32, _SUMS_IN_FLOAT32 = 1, 14, 0, 68
_TRANSPOSE_FIRST, _MOST_WORKSPACE, _TILE_OF = 3, 1, 1
"""Attributes of a product, of a choice, and of an algorithm."""

_Algorithm = ctypes.c_uint64 * 8


def check_status(status: int) -> None:
    """Raise MemoryError or DeviceError if a function of cuBLAS failed."""
    if status == 3:
        raise MemoryError("cuBLAS could not allocate memory on the GPU")
    if status:
        raise DeviceError(f"cuBLAS failed with status {status} (cublasStatus_t)")


class _Candidate(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", _Algorithm),
        ("workspace", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class _Plan:
    """A shape's layouts in the library, and the algorithm for it; None: the library's own choice.

    Parameters
    ----------
    library : ctypes.CDLL
    *layouts : (int, int, int, int)
        Of weight, inputs and result: type, rows, columns and what columns are apart, as the library
        has them, which calls our rows columns.
    """

    def __init__(self, library: Any, *layouts: tuple[int, int, int, int]) -> None:
        self._library = library
        self.layouts = [ctypes.c_void_p() for _ in layouts]
        self.algorithm: Any = None
        for place, (kind, rows, columns, apart) in zip(self.layouts, layouts, strict=True):
            check_status(
                library.cublasLtMatrixLayoutCreate(
                    ctypes.byref(place), ctypes.c_int(kind), ctypes.c_uint64(rows),
                    ctypes.c_uint64(columns), ctypes.c_int64(apart),
                )
            )  # fmt: skip

    def close(self) -> None:
        """Give back what the library holds."""
        for place in self.layouts:
            self._library.cublasLtMatrixLayoutDestroy(place)


class TiledProducts:
    """Products ``x @ weight.T`` on a GPU's stream, summed in float32.

    Parameters
    ----------
    gpu : Gpu
    workspace : uint8 array on the device
    """

    def __init__(self, gpu: Gpu, workspace: Any) -> None:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
        self._library, self._stream = library, ctypes.c_void_p(gpu.stream.ptr)
        self._workspace = ctypes.c_void_p(array_pointer(workspace))
        self._size = ctypes.c_size_t(workspace.size)
        self._handle, self._product, self._choice = (ctypes.c_void_p() for _ in range(3))
        check_status(library.cublasLtCreate(ctypes.byref(self._handle)))
        check_status(
            library.cublasLtMatmulDescCreate(
                ctypes.byref(self._product), ctypes.c_int(_SUMS_IN_FLOAT32), ctypes.c_int(_FLOAT32)
            )
        )
        self._set("Desc", self._product, _TRANSPOSE_FIRST, ctypes.c_int32(_TRANSPOSED))
        check_status(library.cublasLtMatmulPreferenceCreate(ctypes.byref(self._choice)))
        self._set("Preference", self._choice, _MOST_WORKSPACE, self._size)
        self._plans: dict[tuple[int, ...], _Plan] = {}

    def _set(self, name: str, what: Any, attribute: int, value: Any) -> None:
        setter = getattr(self._library, f"cublasLtMatmul{name}SetAttribute")
        size = ctypes.c_size_t(ctypes.sizeof(value))
        check_status(setter(what, ctypes.c_int(attribute), ctypes.byref(value), size))

    def start(
        self, weight: int, x: int, out: int, shape: tuple[int, int, int],
        apart: tuple[int, int, int], *, is_half: bool, add: bool,
    ) -> bool:  # fmt: skip
        """Start a product; False if cuBLAS's own choice is as good, then nothing was started.

        Parameters
        ----------
        weight, x, out : int
            Addresses.
        shape : (int, int, int)
            Rows of the weight, rows of ``x``, columns of both.
        apart : (int, int, int)
            How far apart the rows of weight, ``x`` and ``out`` are, in numbers.
        is_half : bool
            Whether the result is bfloat16, not float32.
        add : bool
            Whether it is added to what is there.
        """
        if (weight | x | out) % ALIGNED:
            return False
        plan = self._plan(shape, apart, is_half, add)
        if plan.algorithm is None:
            return False
        one, beta = ctypes.c_float(1), ctypes.c_float(1 if add else 0)
        first, second, result = plan.layouts
        check_status(
            self._library.cublasLtMatmul(
                self._handle, self._product, ctypes.byref(one), ctypes.c_void_p(weight), first,
                ctypes.c_void_p(x), second, ctypes.byref(beta), ctypes.c_void_p(out), result,
                ctypes.c_void_p(out), result, ctypes.byref(plan.algorithm), self._workspace,
                self._size, self._stream,
            )
        )  # fmt: skip
        return True

    def _plan(
        self, shape: tuple[int, int, int], apart: tuple[int, int, int], is_half: bool, add: bool
    ) -> _Plan:
        key = (*shape, *apart, is_half, add)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _KEPT:
                for each in self._plans.values():
                    each.close()
                self._plans.clear()
            rows, tokens, columns = shape
            plan = self._plans[key] = _Plan(
                self._library,
                (_BFLOAT16, columns, rows, apart[0]),
                (_BFLOAT16, columns, tokens, apart[1]),
                (_BFLOAT16 if is_half else _FLOAT32, rows, tokens, apart[2]),
            )
            kind = "stored" if is_half else "added" if add else "logits"
            plan.algorithm = self._algorithm(plan, TILES[kind])
        return plan

    def _algorithm(self, plan: _Plan, tiles: tuple[int, ...]) -> Any:
        """Return the first candidate of the best tile; None if there is none of these."""
        found, count = (_Candidate * _CANDIDATES)(), ctypes.c_int()
        first, second, result = plan.layouts
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle, self._product, first, second, result, result, self._choice,
            ctypes.c_int(_CANDIDATES), found, ctypes.byref(count),
        )  # fmt: skip
        candidates = [each for each in found[: count.value] if not each.status and not status]
        by_tile: dict[int, Any] = {}
        for each in candidates:
            by_tile.setdefault(self._tile(each.algorithm), each.algorithm)
        chosen = next((by_tile[tile] for tile in tiles if tile in by_tile), None)
        return None if chosen is None else _Algorithm(*chosen)

    def _tile(self, algorithm: Any) -> int:
        tile, written = ctypes.c_uint32(), ctypes.c_size_t()
        self._library.cublasLtMatmulAlgoConfigGetAttribute(
            ctypes.byref(algorithm), ctypes.c_int(_TILE_OF), ctypes.byref(tile),
            ctypes.c_size_t(ctypes.sizeof(tile)), ctypes.byref(written),
        )  # fmt: skip
        return tile.value
