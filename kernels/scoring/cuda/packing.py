"""Weights as the GPU reads them: bfloat16, or 4- and 8-bit codes with a scale for each 32.

The codes and scales are those of the file, only their order is another: a lane of a warp finds its
codes in 16 bytes. Columns are padded to a multiple of 256 with weights that are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.cuda.words import bfloat16_array, float32_array
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["PackedMatrix", "device_bytes", "pack_matrix", "padded_columns", "unpacked"]

UNIT = 256
GROUP = 128
_SHIFTS = np.array([0, 16, 4, 20, 8, 24, 12, 28], np.uint32)
"""Where the eight codes of a word lie: pairs come out 16 bits apart."""

PACKED = {formats.Q4_0: "nibbles", formats.Q4_1: "nibbles", formats.Q8_0: "bytes"}


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A weight matrix in host memory as the GPU reads it.

    Parameters
    ----------
    kind : str
        ``plain``, ``nibbles`` or ``bytes``.
    columns : int
        Inputs, without the padding.
    words : array, shape (rows, words)
        ``plain``: uint16, bfloat16. ``nibbles``: uint32 of eight 4-bit codes; ``bytes``: uint32 of
        four 8-bit codes, each plus 128.
    scales, leasts : uint16 arrays, shape (rows, padded columns / 32), or None
        Bits of float16. A weight is ``scale * (code - 8)`` (nibbles without leasts),
        ``scale * code + least`` or ``scale * (code - 128)`` (bytes).
    """

    kind: str
    columns: int
    words: np.ndarray
    scales: np.ndarray | None = None
    leasts: np.ndarray | None = None


def padded_columns(columns: int) -> int:
    """Return the columns with their padding."""
    return -(-columns // UNIT) * UNIT


def device_bytes(rows: int, columns: int, format: int, *, plain: bool = False) -> int:
    """Return the bytes that a matrix takes on the device."""
    weights = rows * padded_columns(columns)
    kind = "plain" if plain else PACKED.get(format, "plain")
    scales = 2 if format == formats.Q4_1 else 1
    return {
        "plain": 2 * weights,
        "nibbles": weights // 2 + scales * weights // 16,
        "bytes": weights + weights // 16,
    }[kind]


def pack_matrix(
    data: np.ndarray, format: int, columns: int, *, plain: bool = False
) -> PackedMatrix:
    """Return a packed matrix of a file (see ``formats``) as the GPU reads it.

    ``plain``: as bfloat16, whatever the format.
    """
    kind = "plain" if plain else PACKED.get(format, "plain")
    if kind == "plain":
        return PackedMatrix("plain", columns, _bfloat16(data, format, columns))
    blocks = data.reshape(len(data), columns // 32, -1)
    scales = _halves(blocks, 0)
    leasts = _halves(blocks, 2) if format == formats.Q4_1 else None
    if kind == "bytes":
        codes = blocks[:, :, 2:] ^ np.uint8(0x80)
        words = _byte_words(_padded(codes.reshape(len(data), columns), 128))
    else:
        words = np.full((len(data), padded_columns(columns) // 8), 0x88888888, np.uint32)
        skipped = 4 if format == formats.Q4_1 else 2
        call = Call(_pack_nibbles, len(data), (blocks, skipped, words), grain=64)
        ThreadTeam().run(call)
    return PackedMatrix(kind, columns, words, scales, leasts)


def _bfloat16(data: np.ndarray, format: int, columns: int) -> np.ndarray:
    if format == formats.BF16 and columns == padded_columns(columns):
        return data.view(np.uint16)
    out = np.zeros((len(data), padded_columns(columns)), np.uint16)
    if format == formats.BF16:
        out[:, :columns] = data.view(np.uint16)
        return out
    rows = np.empty((min(len(data), 4096), columns), np.float32)
    for low in range(0, len(data), len(rows)):
        part = data[low : low + len(rows)]
        formats.unpack_rows(part, format, np.arange(len(part)), rows[: len(part)])
        out[low : low + len(part), :columns] = bfloat16_array(rows[: len(part)])
    return out


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    """Return the float16 at byte ``at`` of each block, as bits, with zeros for the padding."""
    bits = np.ascontiguousarray(blocks[:, :, at : at + 2]).view(np.uint16)[:, :, 0]
    out = np.zeros((len(blocks), padded_columns(32 * bits.shape[1]) // 32), np.uint16)
    out[:, : bits.shape[1]] = bits
    return out


def _padded(codes: np.ndarray, value: int) -> np.ndarray:
    out = np.full((len(codes), padded_columns(codes.shape[1])), value, np.uint8)
    out[:, : codes.shape[1]] = codes
    return out


@cpu_kernel
def _pack_nibbles(start, stop, blocks, skipped, words):
    """Order the 4-bit codes of some rows by group, lane, chunk of 32 columns; eight a word.

    No error check. ``blocks`` are a file's, whose codes begin after ``skipped`` bytes: the low
    halves of 16 bytes, then the high ones. ``words`` is modified in place.
    """
    for row in range(start, stop):
        for block in range(blocks.shape[1]):
            first = block // 4 * 16 + block % 4
            for lane in range(4):
                at, shift = skipped + lane % 2 * 8, np.uint32(lane // 2 * 4)
                word = np.uint32(0)
                for i in range(8):
                    code = (np.uint32(blocks[row, block, at + i]) >> shift) & np.uint32(15)
                    word |= code << np.uint32(i % 2 * 16 + i // 2 * 4)
                words[row, first + lane * 4] = word


def _byte_words(codes: np.ndarray) -> np.ndarray:
    """Order codes by group, lane, chunk of 32 columns; four a word."""
    parts = np.ascontiguousarray(codes.reshape(len(codes), -1, 4, 4, 8).swapaxes(2, 3))
    return parts.view(np.uint32).reshape(len(codes), -1)


def unpacked(matrix: PackedMatrix) -> np.ndarray:
    """Return a matrix as float32, shape (rows, columns): the reference of the kernels."""
    if matrix.kind == "plain":
        return float32_array(matrix.words[:, : matrix.columns])
    rows = len(matrix.words)
    if matrix.kind == "bytes":
        codes = matrix.words.view(np.uint8).reshape(rows, -1, 4, 4, 8)
        offset = 128
    else:
        parts = matrix.words.reshape(rows, -1, 4, 4, 1) >> _SHIFTS & 15
        codes, offset = parts.astype(np.uint8), 8 if matrix.leasts is None else 0
    flat = codes.swapaxes(2, 3).reshape(rows, -1)[:, : matrix.columns].astype(np.float32)
    values = (flat - offset) * _spread(matrix.scales, matrix.columns)
    return values if matrix.leasts is None else values + _spread(matrix.leasts, matrix.columns)


def _spread(halves: np.ndarray | None, columns: int) -> np.ndarray:
    if halves is None:
        raise ValueError("a packed matrix has no scales")
    return np.repeat(halves.view(np.float16).astype(np.float32), 32, axis=1)[:, :columns]
