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
from numbatch.kernels.scoring.activations import BFLOAT16, FLOAT32, INT8
from numbatch.kernels.scoring.bfloat16_panels import begin_bfloat16, bfloat16_bytes
from numbatch.kernels.scoring.bfloat16_product import multiply_bfloat16, panel_memory
from numbatch.kernels.scoring.bfloat16_tiles import multiply_bfloat16_by_tiles, tiles_memory
from numbatch.kernels.scoring.bfloat16_unpack import AHEAD, HAS_TILES
from numbatch.kernels.scoring.int8_panels import begin_int8, int8_bytes
from numbatch.kernels.scoring.int8_product import multiply_int8
from numbatch.kernels.scoring.matmul import TILE_ROWS, multiply_rows, padded
from numbatch.kernels.scoring.packed_matrix import PackedMatrix, pack_all
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
        ("bias", np.int64),  # float32, as many as whole panels have rows
        ("bits", np.int64),  # of a packed code, or the GGML type code of the file's format
        ("rows", np.int64),
        ("columns", np.int64),
        ("stride", np.int64),  # bytes of 16 rows, or of a row in the file's format
        ("terms", np.int64),  # of each activation that it is multiplied with; int8 only
        ("given", np.int64),  # of which each activation is the sum
    ]
)
"""A matrix as a kernel reads it."""

Prepared = PackedMatrix | np.ndarray


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
        return pack_all(begin_bfloat16, 16, weights, names, team, arena)
    if compute == INT8:
        return pack_all(begin_int8, 8, weights, names, team, arena)
    return [data for data, _, _ in weights]


def prepared_bytes(compute: int, format: int, rows: int, columns: int) -> int:
    """Return the bytes that :func:`prepare` takes for a matrix."""
    if compute == FLOAT32:
        return 0
    size = bfloat16_bytes if compute == BFLOAT16 else int8_bytes
    return size(format, rows, columns)


def matrix_record(
    prepared: Prepared, format: int, columns: int, bias: int, terms: int = 1, given: int = 1
) -> tuple[int, ...]:
    """Return the fields of ``MATRIX``; ``bias`` is an address, 0 for none."""
    if isinstance(prepared, np.ndarray):
        data, shape = prepared, (format, len(prepared), columns, prepared.shape[1])
    else:
        data = prepared.data
        stride = data.shape[1] // prepared.panel * LANES
        shape = (prepared.bits, prepared.rows, prepared.columns, stride)
    return (data.ctypes.data, bias, *shape, terms, given)


def product_memory(compute: int, columns: int, rows: int) -> int:
    """Return the bytes of working memory that a thread needs for so many columns and rows of x."""
    if compute == BFLOAT16:
        return tiles_memory(columns, rows) if HAS_TILES else panel_memory(columns)
    return 0 if compute == INT8 else TILE_ROWS * padded(columns) * 4


_multiply_bfloat16 = multiply_bfloat16_by_tiles if HAS_TILES else multiply_bfloat16


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
        Multiples of 32, or the end.
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
        Which rows of activations; in bfloat16 ``first`` is a multiple of 16.
    out : float32 array, shape (at least rows, at least 16 * panels)
        Modified in place: matrix row n goes to column ``n - shift``, activations ``first`` to
        row 0.
    shift : int
    add : bool
        Whether products are added to what is in ``out``.
    """
    floats, halves, codes, factors, sums = activations
    columns, panels = matrix.columns, (matrix.rows + LANES - 1) // LANES
    bias = array_at(matrix.bias, (panels * LANES if matrix.bias else 0,), np.float32)
    blocks, last = (columns + 31) // 32, (stop + LANES - 1) // LANES
    jump = following - (matrix.data + last * matrix.stride) if following else -AHEAD
    if compute == BFLOAT16:
        room = (rows + LANES - 1) // LANES * LANES
        data = array_at(matrix.data, (panels, matrix.stride), np.uint8)
        x = halves[first * blocks * 32 :][: room * blocks * 32].reshape((room, blocks * 32))
        _multiply_bfloat16(
            start // LANES, last, memory, shapes, table, data, matrix.bits, jump,
            x, rows, out, shift, bias, add,
        )  # fmt: skip
    elif compute == INT8:
        data = array_at(matrix.data, ((panels + panels % 2) * matrix.stride,), np.uint8)
        place = first * blocks * matrix.given
        multiply_int8(
            start, stop, data, matrix.bits, jump,
            (codes[place * 32 :], factors[2 * place :], sums[place:]),
            rows, blocks, matrix.terms, matrix.given, out, shift, bias, add,
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
