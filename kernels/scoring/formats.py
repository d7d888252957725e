"""Storage formats of weight matrices, and the kernels that unpack them to float32.

A matrix stays as its file holds it: rows of bytes, each row a whole number of blocks, each block
a few small integers and the float16 scales that turn them into numbers. A format is named by its
GGML type code; the block layouts are those of ``ggml-common.h`` (https://github.com/ggml-org/ggml).

Unpacking is exact: every product and every sum is rounded to float32 on its own, in the order of
the ``gguf`` package's ``gguf.quants.dequantize``, so the two agree bit for bit. All kernels read
little-endian bytes, as the file formats do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.simd import lanes, load_int8, load_uint8, store_float32, to_float32

__all__ = [
    "BF16",
    "F16",
    "F32",
    "FORMATS",
    "Q4_0",
    "Q4_1",
    "Q4_K",
    "Q5_0",
    "Q5_1",
    "Q5_K",
    "Q6_K",
    "Q8_0",
    "SPAN",
    "Format",
    "half",
    "half_to_float",
    "k_scales",
    "round_to_half",
    "row_bytes",
    "unpack",
    "unpack_rows",
    "unpack_span",
]

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 3, 6, 7, 8
Q4_K, Q5_K, Q6_K, BF16 = 12, 13, 14, 30

SPAN = 256
"""A span of columns may start at any multiple of this number: no format's block is larger."""


@dataclass(frozen=True, slots=True)
class Format:
    """One storage format: ``block`` weights take ``block_bytes`` bytes."""

    name: str
    block: int
    block_bytes: int


FORMATS = {
    F32: Format("F32", 1, 4),
    F16: Format("F16", 1, 2),
    Q4_0: Format("Q4_0", 32, 18),
    Q4_1: Format("Q4_1", 32, 20),
    Q5_0: Format("Q5_0", 32, 22),
    Q5_1: Format("Q5_1", 32, 24),
    Q8_0: Format("Q8_0", 32, 34),
    Q4_K: Format("Q4_K", 256, 144),
    Q5_K: Format("Q5_K", 256, 176),
    Q6_K: Format("Q6_K", 256, 210),
    BF16: Format("BF16", 1, 2),
}
"""Every supported format by its GGML type code."""


def row_bytes(format: int, columns: int) -> int:
    """Return the number of bytes that one matrix row of ``columns`` weights takes.

    Raises
    ------
    ValueError
        If the format is unknown, or the row is not a whole number of its blocks.
    """
    known = FORMATS.get(format)
    if known is None:
        names = ", ".join(f"{code} ({entry.name})" for code, entry in FORMATS.items())
        raise ValueError(f"format {format} is not supported; supported are {names}")
    if columns < 0 or columns % known.block:
        raise ValueError(
            f"a {known.name} row has {columns} columns, should have a multiple of {known.block}"
        )
    return columns // known.block * known.block_bytes


@cpu_device
def half_to_float(bits):
    """Return the float32 of a float16 given as its 16 bits (a uint32); exact, NaN stays NaN.

    The exponent and fraction move to their float32 places, and a product with 2**112 mends the
    exponent's bias, for subnormal numbers too. Infinity and NaN (exponent 31) get exponent 255.
    """
    sign = np.uint32((bits & np.uint32(0x8000)) << np.uint32(16))
    rest = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13))
    scaled = np.float32(rest.view(np.float32) * np.float32(2.0**112))
    special = np.uint32(np.uint32(rest >= np.uint32(0x0F800000)) * np.uint32(0x7F800000))
    return np.uint32(scaled.view(np.uint32) | special | sign).view(np.float32)


@cpu_device
def round_to_half(bits):
    """Return the 16 bits of the float16 nearest to a float32 given as its bits; half to even.

    Too large a number becomes infinity; NaN stays NaN.
    """
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    rest = np.uint32(bits & np.uint32(0x7FFFFFFF))
    if rest > np.uint32(0x7F800000):
        return np.uint16(sign | np.uint32(0x7E00))
    if rest >= np.uint32(0x477FF000):  # 65520
        return np.uint16(sign | np.uint32(0x7C00))
    if rest < np.uint32(0x38800000):  # subnormal: the sum puts the rounded fraction lowest
        shifted = np.float32(rest.view(np.float32) + np.float32(0.5)).view(np.uint32)
        return np.uint16(sign | (shifted - np.uint32(0x3F000000)))
    odd = np.uint32((rest >> np.uint32(13)) & np.uint32(1))
    rounded = np.uint32(rest + np.uint32(0xFFF) + odd - np.uint32(0x38000000))
    return np.uint16(sign | (rounded >> np.uint32(13)))


@cpu_device
def half(row, at):
    """Return as float32 the float16 that stands at byte ``at``."""
    return half_to_float(np.uint32(np.uint32(row[at]) | (np.uint32(row[at + 1]) << np.uint32(8))))


@cpu_device
def _unpack_f32(row, out):
    values = row.view(np.float32)
    for i in range(len(out)):
        out[i] = values[i]


@cpu_device
def _unpack_f16(row, out):
    values = row.view(np.uint16)
    for i in range(len(out)):
        out[i] = half_to_float(np.uint32(values[i]))


@cpu_device
def _unpack_bf16(row, out):
    values = row.view(np.uint16)
    for i in range(len(out)):
        out[i] = np.uint32(np.uint32(values[i]) << np.uint32(16)).view(np.float32)


@cpu_device
def _unpack_q8_0(row, out):
    """Block: scale, 32 signed bytes."""
    for block in range(len(out) // 32):
        at, to = block * 34, block * 32
        scale = half(row, at)
        store_float32(out, to, to_float32(load_int8(row, at + 2)) * scale)
        store_float32(out, to + 16, to_float32(load_int8(row, at + 18)) * scale)


@cpu_device
def _unpack_q4_0(row, out):
    """Block: scale, 16 bytes; their low halves are the first 16 weights, each less 8."""
    for block in range(len(out) // 32):
        at, to = block * 18, block * 32
        scale = half(row, at)
        packed = load_uint8(row, at + 2)
        store_float32(out, to, to_float32((packed & 15) - 8) * scale)
        store_float32(out, to + 16, to_float32((packed >> 4) - 8) * scale)


@cpu_device
def _unpack_q4_1(row, out):
    """Block: scale, least weight, 16 bytes as in Q4_0."""
    for block in range(len(out) // 32):
        at, to = block * 20, block * 32
        scale, least = half(row, at), half(row, at + 2)
        packed = load_uint8(row, at + 4)
        store_float32(out, to, to_float32(packed & 15) * scale + least)
        store_float32(out, to + 16, to_float32(packed >> 4) * scale + least)


@cpu_device
def _fifth_bits(row, at):
    """Return 16 bits, the first from byte ``at``'s lowest, each as a lane of 0 or 16."""
    bits = np.int32(row[at]) | (np.int32(row[at + 1]) << 8)
    return ((bits >> lanes()) & 1) << 4


@cpu_device
def _unpack_q5_0(row, out):
    """Block: scale, 32 fifth bits, 16 bytes as in Q4_0; each weight less 16."""
    for block in range(len(out) // 32):
        at, to = block * 22, block * 32
        scale = half(row, at)
        packed = load_uint8(row, at + 6)
        first = ((packed & 15) | _fifth_bits(row, at + 2)) - 16
        second = ((packed >> 4) | _fifth_bits(row, at + 4)) - 16
        store_float32(out, to, to_float32(first) * scale)
        store_float32(out, to + 16, to_float32(second) * scale)


@cpu_device
def _unpack_q5_1(row, out):
    """Block: scale, least weight, 32 fifth bits, 16 bytes as in Q4_0."""
    for block in range(len(out) // 32):
        at, to = block * 24, block * 32
        scale, least = half(row, at), half(row, at + 2)
        packed = load_uint8(row, at + 8)
        first = (packed & 15) | _fifth_bits(row, at + 4)
        second = (packed >> 4) | _fifth_bits(row, at + 6)
        store_float32(out, to, to_float32(first) * scale + least)
        store_float32(out, to + 16, to_float32(second) * scale + least)


@cpu_device
def k_scales(row, at, part):
    """Return the 6-bit scale and least weight of a K block's part 0 to 7, packed at byte ``at``."""
    if part < 4:
        scale, least = row[at + part] & 63, row[at + part + 4] & 63
    else:
        low = row[at + part + 4]
        scale = (low & 15) | ((row[at + part - 4] >> 2) & 48)
        least = (low >> 4) | ((row[at + part] >> 2) & 48)
    return np.float32(scale), np.float32(least)


@cpu_device
def _unpack_q4_k(row, out):
    """Block: scale of scales, scale of leasts, 12 bytes of both for 8 parts, 128 bytes.

    Part 2j is the low halves of bytes 32j to 32j + 31, part 2j + 1 the high halves.
    """
    for block in range(len(out) // 256):
        at = block * 144
        whole_scale, whole_least = half(row, at), half(row, at + 2)
        for j in range(8):
            scale, least = k_scales(row, at + 4, j)
            scale, least = whole_scale * scale, whole_least * least
            to = block * 256 + j * 32
            for i in range(0, 32, 16):
                packed = load_uint8(row, at + 16 + j // 2 * 32 + i) >> (j % 2 * 4)
                store_float32(out, to + i, to_float32(packed & 15) * scale - least)


@cpu_device
def _unpack_q5_k(row, out):
    """Block: as Q4_K, with 32 bytes of fifth bits before the 128: bit j of each is part j's."""
    for block in range(len(out) // 256):
        at = block * 176
        whole_scale, whole_least = half(row, at), half(row, at + 2)
        for j in range(8):
            scale, least = k_scales(row, at + 4, j)
            scale, least = whole_scale * scale, whole_least * least
            to = block * 256 + j * 32
            for i in range(0, 32, 16):
                packed = load_uint8(row, at + 48 + j // 2 * 32 + i) >> (j % 2 * 4)
                fifth = ((load_uint8(row, at + 16 + i) >> j) & 1) << 4
                store_float32(out, to + i, to_float32((packed & 15) | fifth) * scale - least)


@cpu_device
def _unpack_q6_k(row, out):
    """Block: 128 bytes of low halves, 64 of upper bit pairs, 16 signed scales, scale of scales.

    Each half of a block holds four parts of 32 weights: parts 0 and 1 are the low halves of its
    64 bytes, parts 2 and 3 the high ones; part s has bits 2s and 2s + 1 of its 32 upper bytes.
    """
    for part in range(len(out) // 32):
        at, to, side, s = part // 8 * 210, part * 32, part % 8 // 4, part % 4
        whole = half(row, at + 208)
        for i in range(0, 32, 16):
            low = load_uint8(row, at + side * 64 + s % 2 * 32 + i) >> (s // 2 * 4)
            high = load_uint8(row, at + 128 + side * 32 + i) >> (2 * s)
            scale = whole * np.float32(np.int8(row[at + 192 + part % 8 * 2 + i // 16]))
            weights = ((low & 15) | ((high & 3) << 4)) - 32
            store_float32(out, to + i, to_float32(weights) * scale)


@cpu_device
def unpack_span(format, row, start, out):
    """Unpack ``len(out)`` weights of one packed matrix row, from column ``start`` on.

    No error check.

    Parameters
    ----------
    format : int
        GGML type code. Looked at here, when the kernel runs: one compiled caller serves all.
    row : uint8 array, shape (bytes of a row,)
        C-contiguous; aligned to the element where the format is F32, F16 or BF16.
    start : intp
        A multiple of ``SPAN``.
    out : float32 array, C-contiguous
        Modified in place. Its length is a multiple of the format's block.
    """
    if format == Q4_1:
        _unpack_q4_1(row[start // 32 * 20 :], out)
    elif format == Q8_0:
        _unpack_q8_0(row[start // 32 * 34 :], out)
    elif format == F32:
        _unpack_f32(row[start * 4 :], out)
    elif format == F16:
        _unpack_f16(row[start * 2 :], out)
    elif format == BF16:
        _unpack_bf16(row[start * 2 :], out)
    elif format == Q4_0:
        _unpack_q4_0(row[start // 32 * 18 :], out)
    elif format == Q5_0:
        _unpack_q5_0(row[start // 32 * 22 :], out)
    elif format == Q5_1:
        _unpack_q5_1(row[start // 32 * 24 :], out)
    elif format == Q4_K:
        _unpack_q4_k(row[start // 256 * 144 :], out)
    elif format == Q5_K:
        _unpack_q5_k(row[start // 256 * 176 :], out)
    elif format == Q6_K:
        _unpack_q6_k(row[start // 256 * 210 :], out)


@cpu_kernel
def unpack_rows(data, format, rows, out):
    """Unpack the rows ``data[rows]`` of a packed matrix into ``out``. No error check.

    Parameters
    ----------
    data : uint8 array, shape (matrix rows, bytes of a row)
        C-contiguous, read-only.
    format : int
        GGML type code.
    rows : intp array, shape (n,)
    out : float32 array, shape (n, columns)
        Modified in place.
    """
    for i in range(len(rows)):
        unpack_span(format, data[rows[i]], 0, out[i])


def unpack(
    data: np.ndarray, format: int, columns: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Unpack a whole matrix, or as many of its rows as ``data`` holds.

    Parameters
    ----------
    data : uint8 array, shape (rows, bytes of a row)
        C-contiguous.
    format : int
        GGML type code.
    columns : int
        Number of weights in a row.
    out : float32 array, shape (rows, columns), optional
        C-contiguous; modified in place.

    Returns
    -------
    float32 array, shape (rows, columns)
        ``out`` where it is given.

    Raises
    ------
    ValueError
        If the format is unknown or an array has another dtype, shape or layout.
    """
    width = row_bytes(format, columns)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != width:
        raise ValueError(
            f"a {FORMATS[format].name} matrix of {columns} columns has data of {data.dtype} "
            f"{data.shape}, should be uint8 (rows, {width})"
        )
    shape = (len(data), columns)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.dtype != np.float32 or out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(
            f"out is {out.dtype} {out.shape}, should be float32 {shape} and C-contiguous"
        )
    data = np.require(data, requirements=["C", "A"]).view()
    data.flags.writeable = False  # one specialisation serves all callers
    unpack_rows(data, format, np.arange(len(data), dtype=np.intp), out)
    return out
