"""Weights repacked once, at load, into panels that the int8 product reads from end to end.

Each row of a matrix gets one scale for every ``GROUP`` columns, so that its weights are
``scale * (code - 128)`` with codes of 8 bits: the integer sum over a whole group is exact, and only
then a scale is needed. (Summing blocks of 32 columns apart, each with the scale of the file's
format, cost three times the product itself where there are tiles, and half of it with AVX-512.)

A panel holds 16 rows, a row a lane of a vector, columns rounded up to 64. Two ways to keep codes:

8 bits
    For every 4 columns a vector of 64 bytes: lane n has the codes of row n. Any format.
4 bits
    For every 32 columns a record of 320 bytes: 16 factors and 16 summands of 16 bits, then for
    every 8 columns a vector: lane n has 4 half bytes of row n in the low halves of its bytes and
    the next 4 in the high ones. A code is ``(half * factor + summand) >> 8``. Q4_0, Q4_1 and Q4_K,
    whose weights are linear in their half bytes, block by block.

Rounding a weight to its code moves it by at most half of 1/127 of the largest in its group; 4-bit
formats themselves rounded it by ten times as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import Arena, aligned
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.block_codes import block_codes
from numbatch.kernels.scoring.formats import Q4_0, Q4_1, Q4_K
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.kernels.words import pointer_to

__all__ = [
    "BLOCK",
    "GROUP",
    "PANEL",
    "RECORD",
    "ZERO",
    "PackedMatrix",
    "int8_bytes",
    "pack",
    "wide",
]

PANEL = 16
"""Rows of a panel."""

GROUP = 256
"""Columns that share a scale."""

DEPTH = 64
"""Columns are rounded up to a multiple of it: what a product takes at a time."""

BLOCK, RECORD = 32, 320
"""Columns and bytes of a record of 4-bit codes."""

ZERO = 128
"""The code of weight 0."""

TINY = np.float32(1e-30)
"""A scale that is smaller stands for 0: its reciprocal might be infinite."""


def wide(columns: int) -> int:
    """Return ``columns`` rounded up as packed matrices and quantized activations have them."""
    return -(-columns // DEPTH) * DEPTH


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix in panels; rows beyond its own are zero.

    Parameters
    ----------
    data : uint8 array, shape (panels, bytes of a panel)
    scales : float32 array, shape (panels, groups, 16)
    bits : int
        4 or 8.
    rows, columns : int
    """

    data: np.ndarray
    scales: np.ndarray
    bits: int
    rows: int
    columns: int

    @property
    def panels(self) -> int:
        """How many panels there are."""
        return len(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.data.nbytes + self.scales.nbytes)


@cpu_device
def _group_scale(weights):
    """Return the largest of some weights, by size, over 127; NaN or infinity where one is."""
    largest = np.float32(0)
    wrong = np.float32(0)
    for weight in weights:
        largest = max(largest, abs(weight))
        wrong += weight * np.float32(0)
    return largest / np.float32(127) + wrong


@cpu_device
def _pack_bytes(weights, factor, lane, codes):
    """Write codes of 8 bits of one row's weights, a multiple of 4 of them."""
    for i in range(weights.size):
        code = np.int32(np.rint(weights[i] * factor)) + ZERO
        codes[(i // 4 * PANEL + lane) * 4 + i % 4] = np.uint8(code)


@cpu_device(inline=True)
def _pack_record(format, row, pointer, block, factor, lane, record):
    """Write a block of one row into a record."""
    scale, least, words = block_codes(format, row, pointer, block)
    numbers = record[: 4 * PANEL].view(np.uint16)
    numbers[lane] = np.uint16(np.int32(np.rint(scale * factor * np.float32(256))) & 0xFFFF)
    summand = np.rint((least * factor + np.float32(ZERO)) * np.float32(256)) + np.float32(128)
    numbers[PANEL + lane] = np.uint16(min(max(summand, np.float32(0)), np.float32(65535)))
    codes = record[4 * PANEL :].view(np.uint32)
    codes[lane] = _eight_columns(words[0])
    codes[PANEL + lane] = _eight_columns(words[1])
    codes[2 * PANEL + lane] = _eight_columns(words[2])
    codes[3 * PANEL + lane] = _eight_columns(words[3])


@cpu_device(inline=True)
def _eight_columns(word):
    """Return 8 half bytes, a byte each, in 32 bits: the first four in low halves of bytes."""
    return np.uint32((word | (word >> np.uint64(28))) & np.uint64(0xFFFFFFFF))


@cpu_kernel
def _pack_panels(start, stop, scratch, data, format, columns, bits, out, scales, wrong):
    """Pack panels ``start`` to ``stop - 1``. No error check.

    ``scratch`` (float32, of the columns rounded up) is overwritten; ``wrong[0]`` becomes the number
    of a row that has a weight which is NaN or infinite.
    """
    for panel in range(start, stop):
        for lane in range(min(PANEL, data.shape[0] - panel * PANEL)):
            number = panel * PANEL + lane
            row = data[number]
            pointer = pointer_to(row)
            formats.unpack_span(format, row, 0, scratch[:columns])
            for group in range(scales.shape[1]):
                first = group * GROUP
                last = min(first + GROUP, scratch.size)
                scale = _group_scale(scratch[first:last])
                scales[panel, group, lane] = scale
                if not np.isfinite(scale):
                    wrong[0] = number
                    continue
                factor = np.float32(1) / scale if scale > TINY else np.float32(0)
                if bits == 8:
                    codes = out[panel, first * PANEL : last * PANEL]
                    _pack_bytes(scratch[first:last], factor, lane, codes)
                    continue
                for block in range(first // BLOCK, min(last, columns) // BLOCK):
                    record = out[panel, block * RECORD : (block + 1) * RECORD]
                    _pack_record(format, row, pointer, block, factor, lane, record)


def int8_bytes(format: int, rows: int, columns: int) -> int:
    """Return the bytes that a packed matrix takes."""
    width, panels = wide(columns), -(-rows // PANEL)
    codes = width // BLOCK * RECORD if _bits(format) == 4 else width * PANEL
    return panels * (codes + -(-width // GROUP) * PANEL * 4) + 128


def _bits(format: int) -> int:
    return 4 if format in (Q4_0, Q4_1, Q4_K) else 8


def pack(
    data: np.ndarray, format: int, columns: int, team: ThreadTeam, arena: Arena | None = None
) -> PackedMatrix:
    """Repack a matrix.

    Parameters
    ----------
    data : uint8 array, shape (rows, bytes of a row)
        C-contiguous, as its file holds it.
    format : int
        GGML type code.
    columns : int
    team : ThreadTeam
    arena : Arena, optional
        Where the memory is taken from.

    Raises
    ------
    ValueError
        If the format is unknown, a row is not a whole number of its blocks, or a weight is NaN or
        infinite; the message names the row.
    """
    formats.row_bytes(format, columns)
    rows, panels, width = len(data), -(-len(data) // PANEL), wide(columns)
    bits, take = _bits(format), aligned if arena is None else arena.take
    size = width // BLOCK * RECORD if bits == 4 else width * PANEL
    out = take((panels, size), np.uint8)
    scales = take((panels, -(-width // GROUP), PANEL), np.float32)
    scratch = np.zeros((team.threads, width), np.float32)
    wrong = np.full(1, -1)
    args = (data, format, columns, bits, out, scales, wrong)
    team.run(Call(_pack_panels, panels, args, scratch))
    if wrong[0] >= 0:
        raise ValueError(f"row {wrong[0]} has a weight that is NaN or infinite")
    return PackedMatrix(out, scales, bits, rows, columns)
