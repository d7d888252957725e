"""Unpacking against the gguf package and NumPy, bit for bit."""

import gguf
import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.formats import FORMATS, SPAN, row_bytes, unpack

QUANTIZABLE = [code for code in FORMATS if code not in (formats.Q4_K, formats.Q5_K, formats.Q6_K)]


def dequantize(data: np.ndarray, code: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType(code))


def assert_same_bits(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    both_nan = np.isnan(got) & np.isnan(wanted)
    same = got.view(np.uint32) == np.ascontiguousarray(wanted).view(np.uint32)
    assert (same | both_nan).all()


@cpu_kernel
def unpack_from(format, row, start, out):
    formats.unpack_span(format, row, start, out)


@cpu_kernel
def halves(bits, out):
    for i in range(len(bits)):
        out[i] = formats.half_to_float(np.uint32(bits[i]))


@pytest.mark.parametrize("code", FORMATS)
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_random_bytes(code: int, blocks: int) -> None:
    columns = blocks * FORMATS[code].block
    rng = np.random.default_rng(code)
    # Any byte pattern is a row: scales are infinite, NaN and subnormal among them.
    data = rng.integers(0, 256, (300, row_bytes(code, columns)), dtype=np.uint8)
    assert_same_bits(unpack(data, code, columns), dequantize(data, code))


@pytest.mark.parametrize("code", QUANTIZABLE)
def test_quantized_weights(code: int) -> None:
    weights = np.random.default_rng(1).normal(size=(37, 480)).astype(np.float32)
    kind = gguf.GGMLQuantizationType(code)
    data = np.ascontiguousarray(gguf.quants.quantize(weights, kind)).view(np.uint8)
    got = unpack(data, code, 480)
    assert_same_bits(got, dequantize(data, code))
    assert np.abs(got - weights).max() < 0.4  # they are the weights that went in


@pytest.mark.parametrize("code", FORMATS)
def test_every_quant_of_one_block(code: int) -> None:
    """Scales of one and every value of every packed byte, in every place."""
    entry = FORMATS[code]
    data = np.repeat(np.arange(256, dtype=np.uint8)[:, None], entry.block_bytes, 1)
    one = np.frombuffer(np.float16(1.0).tobytes(), np.uint8)
    if entry.block > 1:
        at = 208 if code == formats.Q6_K else 0
        data[:, at : at + 2] = one
    assert_same_bits(unpack(data, code, entry.block), dequantize(data, code))


@pytest.mark.parametrize("code", [formats.F32, formats.F16, formats.BF16])
@pytest.mark.parametrize("columns", [0, 1, 3, 17, 33, 255])
def test_plain_formats_take_any_width(code: int, columns: int) -> None:
    data = np.random.default_rng(2).integers(0, 256, (5, row_bytes(code, columns)), dtype=np.uint8)
    wanted = dequantize(data, code) if columns else np.empty((5, 0), np.float32)
    assert_same_bits(unpack(data, code, columns), wanted)


@pytest.mark.parametrize("code", FORMATS)
def test_spans_are_parts_of_the_row(code: int) -> None:
    columns = 5 * SPAN
    row = np.random.default_rng(3).integers(0, 256, row_bytes(code, columns), dtype=np.uint8)
    row.flags.writeable = False
    whole = unpack(row[None], code, columns)[0]
    for start in range(0, columns, SPAN):
        for length in (SPAN, columns - start):
            out = np.full(length, 7, np.float32)
            unpack_from(code, row, start, out)
            assert_same_bits(out, whole[start : start + length])


def test_a_span_leaves_its_surroundings_alone() -> None:
    row = np.random.default_rng(4).integers(0, 256, row_bytes(formats.Q4_1, 512), dtype=np.uint8)
    row.flags.writeable = False
    around = np.full(512 + 64, 7, np.float32)
    unpack_from(formats.Q4_1, row, 0, around[32:-32])
    assert (around[:32] == 7).all()
    assert (around[-32:] == 7).all()


def test_all_halves() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    got = np.empty(65536, np.float32)
    halves(bits, got)
    wanted = bits.view(np.float16).astype(np.float32)
    assert_same_bits(got, wanted)
    assert np.isnan(got).sum() == 2 * 1023


def test_unpack_rows_gathers() -> None:
    data = np.random.default_rng(5).integers(0, 128, (9, row_bytes(formats.Q8_0, 64)), np.uint8)
    whole = unpack(data, formats.Q8_0, 64)
    data.flags.writeable = False
    rows = np.array([8, 0, 0, 3], np.intp)
    out = np.empty((4, 64), np.float32)
    formats.unpack_rows(data, formats.Q8_0, rows, out)
    assert_same_bits(out, whole[rows])


def test_out_is_used_and_no_rows_is_fine() -> None:
    data = np.zeros((0, row_bytes(formats.Q4_K, 256)), np.uint8)
    out = np.empty((0, 256), np.float32)
    assert unpack(data, formats.Q4_K, 256, out) is out


@pytest.mark.parametrize(
    ("code", "columns", "message"),
    [
        (99, 32, r"format 99 is not supported.*8 \(Q8_0\)"),
        (formats.Q4_0, 33, "33 columns, should have a multiple of 32"),
        (formats.Q6_K, 128, "128 columns, should have a multiple of 256"),
        (formats.F32, -1, "-1 columns"),
    ],
)
def test_row_bytes_refuses(code: int, columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_bytes(code, columns)


def test_unpack_refuses_other_shapes() -> None:
    data = np.zeros((2, 34), np.uint8)
    with pytest.raises(ValueError, match=r"should be uint8 \(rows, 68\)"):
        unpack(data, formats.Q8_0, 64)
    with pytest.raises(ValueError, match="int8"):
        unpack(data.view(np.int8), formats.Q8_0, 32)
    with pytest.raises(ValueError, match=r"should be float32 \(2, 32\)"):
        unpack(data, formats.Q8_0, 32, np.empty((2, 31), np.float32))
    with pytest.raises(ValueError, match="C-contiguous"):
        unpack(data, formats.Q8_0, 32, np.empty((32, 2), np.float32).T)
