"""One product for every arithmetic: a matrix as a record that kernels read, and its share of work.

Matrices are told to a kernel by their addresses, so that one kernel can run all layers of a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbatch.kernels.aligned import Arena
from numbatch.kernels.array_at import array_at
from numbatch.kernels.barrier import share
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import int8_panels
from numbatch.kernels.scoring.activations import BFLOAT16, FLOAT32, INT8
from numbatch.kernels.scoring.bfloat16_panels import (
    Bfloat16Matrix,
    bfloat16_bytes,
    pack_all_bfloat16,
)
from numbatch.kernels.scoring.bfloat16_product import multiply_bfloat16, panel_memory
from numbatch.kernels.scoring.bfloat16_tiles import multiply_bfloat16_by_tiles, tiles_memory
from numbatch.kernels.scoring.bfloat16_unpack import AHEAD, HAS_TILES
from numbatch.kernels.scoring.int8_panels import PackedMatrix, int8_bytes, pack
from numbatch.kernels.scoring.int8_product import multiply_panels
from numbatch.kernels.scoring.matmul import TILE_ROWS, multiply_rows, padded
from numbatch.kernels.simd import LANES
from numbatch.kernels.threads import ThreadTeam

__all__ = [
    "MATRIX",
    "matrix_record",
    "multiply",
    "multiply_range",
    "prepare",
    "prepared_bytes",
    "product_memory",
    "share_address",
]

MATRIX = np.dtype(
    [
        ("data", np.int64),  # addresses; 0: there is none
        ("scales", np.int64),
        ("bias", np.int64),  # float32, as many as whole panels have rows
        ("bits", np.int64),  # of a packed code, or the GGML type code of the file's format
        ("rows", np.int64),
        ("columns", np.int64),
        ("stride", np.int64),  # bytes of a panel, or of a row
    ]
)
"""A matrix as a kernel reads it."""

Prepared = PackedMatrix | Bfloat16Matrix | np.ndarray


def prepare(
    compute: int,
    weights: Sequence[tuple[np.ndarray, int, int]],
    names: Sequence[str],
    team: ThreadTeam,
    arena: Arena | None = None,
) -> Sequence[Prepared]:
    """Return matrices in the form of an arithmetic; float32 reads them as the file holds them.

    Parameters
    ----------
    compute : int
    weights : sequence of (data, format, columns)
        ``data`` is uint8, shape (rows, bytes of a row).
    names : sequence of str
        What messages call them.
    team : ThreadTeam
    arena : Arena, optional
        Where the memory is taken from.

    Raises
    ------
    ValueError
        If a weight is NaN or infinite (not in float32), or the format is unknown; the message names
        the matrix and the row.
    """
    if compute == BFLOAT16:
        return pack_all_bfloat16(weights, names, team, arena)
    if compute == INT8:
        return [_pack(*each, name, team, arena) for each, name in zip(weights, names, strict=True)]
    return [data for data, _, _ in weights]


def _pack(
    data: np.ndarray, format: int, columns: int, name: str, team: ThreadTeam, arena: Arena | None
) -> PackedMatrix:
    try:
        return pack(data, format, columns, team, arena)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def prepared_bytes(compute: int, format: int, rows: int, columns: int) -> int:
    """Return the bytes that :func:`prepare` takes for a matrix."""
    if compute == FLOAT32:
        return 0
    size = bfloat16_bytes if compute == BFLOAT16 else int8_bytes
    return size(format, rows, columns)


def matrix_record(prepared: Prepared, format: int, columns: int, bias: int) -> tuple[int, ...]:
    """Return the fields of ``MATRIX``; ``bias`` is an address, 0 for none."""
    if isinstance(prepared, np.ndarray):
        shape = (format, len(prepared), columns, prepared.shape[1])
        return (prepared.ctypes.data, 0, bias, *shape)
    scales = prepared.scales.ctypes.data if isinstance(prepared, PackedMatrix) else 0
    shape = (prepared.bits, prepared.rows, prepared.columns, prepared.data.shape[1])
    return (prepared.data.ctypes.data, scales, bias, *shape)


def product_memory(compute: int, columns: int, rows: int) -> int:
    """Return the bytes of working memory that a thread needs for so many columns and rows of x."""
    if compute == BFLOAT16:
        return tiles_memory(columns, rows) if HAS_TILES else panel_memory(columns)
    if compute == INT8:
        return tile_memory(columns)
    return TILE_ROWS * padded(columns) * 4


if HAS_TILES:
    from numbatch.kernels.scoring.int8_tiles import TILED, multiply_panels_by_tiles, tile_memory

    _multiply_bfloat16 = multiply_bfloat16_by_tiles

    @cpu_device
    def _multiply_int8(start, stop, memory, shapes, data, scales, bits, x, rows, out, shift, bias,
                       add):  # fmt: skip
        if rows >= TILED:
            multiply_panels_by_tiles(
                start, stop, memory, shapes[15], data, scales, bits, x, rows, out, shift, bias, add
            )
        else:
            multiply_panels(start, stop, memory, data, scales, bits, x, rows, out, shift, bias, add)
else:
    from numbatch.kernels.scoring.int8_panels import PANEL, wide

    _multiply_bfloat16 = multiply_bfloat16

    def tile_memory(columns: int) -> int:
        """Return the bytes for a panel of unpacked codes."""
        return wide(columns) * PANEL

    @cpu_device
    def _multiply_int8(start, stop, memory, shapes, data, scales, bits, x, rows, out, shift, bias,
                       add):  # fmt: skip
        multiply_panels(start, stop, memory, data, scales, bits, x, rows, out, shift, bias, add)


@cpu_device(inline=True)
def share_address(matrix, thread, threads):
    """Return where a thread's share of a matrix in panels begins."""
    start, _ = share(matrix.rows, 2 * LANES, thread, threads)
    return matrix.data + start // LANES * matrix.stride


@cpu_device(general=True)
def multiply_range(
    compute, start, stop, memory, shapes, table, matrix, following, activations, first, rows, out,
    shift, add,
):  # fmt: skip
    """Multiply activations with rows ``start`` to ``stop - 1`` of a matrix. No error check.

    Parameters
    ----------
    compute : int
        From ``COMPUTE``.
    start, stop : int
        Multiples of 16, or the end.
    memory : uint8 array
        Of ``product_memory`` bytes; overwritten.
    shapes, table
        ``bfloat16_tiles.SHAPES`` and ``bfloat16_unpack.HALF_BYTES``.
    matrix : record of MATRIX
    following : int
        Address of what the thread reads of the next matrix, 0 where that is not known.
    activations : tuple
        ``Activations.arrays``.
    first, rows : int
        Which rows of activations: ``first`` is a multiple of 32.
    out : float32 array, shape (at least rows, at least 16 * panels)
        Modified in place: matrix row n goes to column ``n - shift``, activations ``first`` to
        row 0.
    shift : int
    add : bool
        Whether products are added to what is in ``out``.
    """
    floats, halves, codes, scales, sums = activations
    columns, panels = matrix.columns, (matrix.rows + LANES - 1) // LANES
    bias = array_at(matrix.bias, (panels * LANES if matrix.bias else 0,), np.float32)
    room = (rows + 31) // 32 * 32
    if compute == BFLOAT16:
        wide = (columns + 31) // 32 * 32
        data = array_at(matrix.data, (panels, matrix.stride), np.uint8)
        x = halves[first * wide :][: room * wide].reshape((room, wide))
        last = (stop + LANES - 1) // LANES
        jump = following - (matrix.data + last * matrix.stride) if following else -AHEAD
        _multiply_bfloat16(
            start // LANES, last, memory, shapes, table, data, matrix.bits, jump,
            x, rows, out, shift, bias, add,
        )  # fmt: skip
    elif compute == INT8:
        wide = (columns + 63) // 64 * 64
        groups = (wide + int8_panels.GROUP - 1) // int8_panels.GROUP
        data = array_at(matrix.data, (panels, matrix.stride), np.uint8)
        w_scales = array_at(matrix.scales, (panels, groups, LANES), np.float32)
        x = (
            codes[first * wide :][: room * wide].reshape((room, wide)),
            scales[first * groups :][: room * groups].reshape((room, groups)),
            sums[first * groups :][: room * groups].reshape((room, groups)),
        )
        _multiply_int8(
            start // LANES, (stop + LANES - 1) // LANES, memory, shapes, data, w_scales,
            matrix.bits, x, rows, out, shift, bias, add,
        )  # fmt: skip
    else:
        width = (columns + LANES - 1) // LANES * LANES
        data = array_at(matrix.data, (matrix.rows, matrix.stride), np.uint8)
        x = floats[first * width :][: rows * width].reshape((rows, width))
        scratch = memory[: TILE_ROWS * width * 4].view(np.float32)
        multiply_rows(start, stop, scratch, x, data, matrix.bits, columns, out, shift, bias, add)


@cpu_device(general=True)
def multiply(
    compute, thread, threads, memory, shapes, table, matrix, following, activations, first, rows,
    out, add,
):  # fmt: skip
    """Do a thread's share of a product; see :func:`multiply_range`. No error check."""
    start, stop = share(matrix.rows, 2 * LANES, thread, threads)
    if start < stop:
        multiply_range(
            compute, start, stop, memory, shapes, table, matrix,
            share_address(following, thread, threads), activations, first, rows, out, 0, add,
        )  # fmt: skip
