"""Products in every arithmetic and format: near the exact ones, the same bits for any rows."""

import gguf
import numpy as np
import pytest

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.activations import COMPUTE, Activations, convert_terms
from numbatch.kernels.scoring.bfloat16_tiles import SHAPES
from numbatch.kernels.scoring.bfloat16_unpack import HALF_BYTES
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import (
    MATRIX,
    matrix_record,
    multiply_range,
    prepare,
    prepared_bytes,
    product_memory,
)
from numbatch.kernels.threads import ThreadTeam

CASES = [
    *(
        (name, columns)
        for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
        for columns in (32, 352)
    ),
    *((name, columns) for name in ("F32", "F16", "BF16") for columns in (20, 352)),
    *((name, columns) for name in ("Q4_K", "Q5_K", "Q6_K") for columns in (256, 768)),
]
CODES = {entry.name: code for code, entry in formats.FORMATS.items()}
ERROR = {"float32": 1e-6, "bfloat16": 6e-3, "int8": 1.5e-2}
"""Root mean square of the error over that of the products."""


@cpu_kernel
def _convert(compute, terms, x, columns, activations):
    flat = x.reshape(x.size)
    for row in range(x.shape[0]):
        convert_terms(compute, terms, flat, row * x.shape[1], row, columns, activations)


@cpu_kernel
def _multiply(compute, start, stop, memory, shapes, table, matrix, activations, rows, out, add):
    multiply_range(
        compute, start, stop, memory, shapes, table, matrix[0], 0, activations, 0, rows, out, 0,
        add,
    )  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def packed(rng, name, rows, columns):
    """Return rows of random weights in a format."""
    weights = (rng.standard_normal((rows, columns)) * 0.05).astype(np.float32)
    kind = gguf.GGMLQuantizationType[name]
    try:
        data = gguf.quants.quantize(weights, kind)
    except NotImplementedError:  # gguf reads K formats only: any bytes with small scales will do
        entry = formats.FORMATS[CODES[name]]
        data = rng.integers(0, 256, (rows, columns // entry.block * entry.block_bytes), np.uint8)
        blocks = data.reshape(-1, entry.block_bytes)
        places = [208] if name == "Q6_K" else [0, 2]
        for place in places:
            scales = (rng.random(len(blocks)) * 1e-3).astype(np.float16)
            blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    data = np.ascontiguousarray(data).view(np.uint8).reshape(rows, -1)
    data.flags.writeable = False
    return data


class Product:
    """A matrix prepared for an arithmetic."""

    def __init__(self, compute, data, name, columns, bias=None, terms=1, given=None):
        self.compute, self.columns, self.rows = COMPUTE[compute], columns, len(data)
        self.given = given or terms
        self.bias = None if bias is None else np.pad(bias, (0, -len(bias) % 16))
        self.prepared = prepare(
            self.compute, [(data, CODES[name], columns)], ["it"], ThreadTeam(1)
        )[0]
        address = 0 if bias is None else self.bias.ctypes.data
        record = matrix_record(self.prepared, CODES[name], columns, address, terms, self.given)
        self.matrix = np.array([record], MATRIX)

    def __call__(self, x, parts=1, out=None):
        wide = np.zeros((len(x), padded(self.columns)), np.float32)
        wide[:, : self.columns] = x
        activations = Activations.empty(self.compute, len(x), self.columns, self.given).arrays
        _convert(self.compute, self.given, wide, self.columns, activations)
        add = out is not None
        if out is None:
            out = np.full((len(x), padded(self.rows)), np.nan, np.float32)
        self.run(activations, len(x), out, add, parts)
        return out[:, : self.rows]

    def run(self, activations, count, out, add=False, parts=1):
        """Multiply what is in the form of a product already."""
        memory = aligned((product_memory(self.compute, self.columns, count),), np.uint8)
        grains = -(-self.rows // 32)
        for part in range(parts):
            start, stop = (min(self.rows, grains * p // parts * 32) for p in (part, part + 1))
            args = (self.matrix, activations, count, out, add)
            _multiply(self.compute, start, stop, memory, SHAPES, HALF_BYTES, *args)


@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize(("name", "columns"), CASES)
def test_products_are_near_the_exact_ones_and_have_the_same_bits_alone(rng, compute, name, columns):
    data = packed(rng, name, 75, columns)
    weights = formats.unpack(data, CODES[name], columns).astype(np.float64)
    x = rng.standard_normal((70, columns)).astype(np.float32)
    multiply = Product(compute, data, name, columns)
    found, exact = multiply(x), x @ weights.T
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert error < ERROR[compute]
    for count in (*range(1, 13), 16, 33):
        assert np.array_equal(multiply(x[:count]), found[:count])
    assert np.array_equal(multiply(x[69:]), found[69:])
    assert np.array_equal(multiply(x, parts=3), found)


@pytest.mark.parametrize(("name", "columns"), [("Q4_1", 352), ("Q8_0", 32), ("Q6_K", 256)])
def test_two_terms_of_int8_are_nearly_exact(rng, name, columns):
    """Only what becomes of weights in 8 bits is left: nothing of Q4_1 and Q8_0."""
    data = packed(rng, name, 75, columns)
    weights = formats.unpack(data, CODES[name], columns).astype(np.float64)
    x = rng.standard_normal((70, columns)).astype(np.float32)
    bias = rng.standard_normal(75).astype(np.float32)
    multiply = Product("int8", data, name, columns, bias, terms=2)
    found, exact = multiply(x), x @ weights.T + bias
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert error < (1e-2 if name == "Q6_K" else 1e-4)
    for count in (*range(1, 13), 16, 33):
        assert np.array_equal(multiply(x[:count]), found[:count])
    assert np.array_equal(multiply(x, parts=3), found)


@pytest.mark.parametrize("name", ["Q4_1", "Q8_0"])
def test_the_first_of_two_terms_alone(rng, name):
    data = packed(rng, name, 75, 352)
    x = rng.standard_normal((70, 352)).astype(np.float32)
    plain = Product("int8", data, name, 352)(x)
    multiply = Product("int8", data, name, 352, given=2)
    for count in (*range(1, 13), 33, 70):
        assert np.array_equal(multiply(x[:count]), plain[:count])


@pytest.mark.parametrize("name", ["Q4_1", "F16"])
def test_wide_activations_go_through_the_cache_in_chunks(rng, name):
    # More of them than bfloat16_tiles.FITS: pairs of panels take turns; the last pair is a panel.
    data = packed(rng, name, 75, 2080)
    weights = formats.unpack(data, CODES[name], 2080).astype(np.float64)
    x = rng.standard_normal((290, 2080)).astype(np.float32)
    multiply = Product("bfloat16", data, name, 2080)
    found, exact = multiply(x), x @ weights.T
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert error < ERROR["bfloat16"]
    assert np.array_equal(multiply(x[:33]), found[:33])
    assert np.array_equal(multiply(x[288:]), found[288:])
    assert np.array_equal(multiply(x, parts=2), found)


@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize(("rows", "columns"), [(5, 64), (40, 64), (128, 1152)])
def test_bias_and_sums(rng, compute, rows, columns):
    data = packed(rng, "Q4_1", 104, columns)
    bias = rng.standard_normal(104).astype(np.float32)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    plain = Product(compute, data, "Q4_1", columns)
    with_bias = Product(compute, data, "Q4_1", columns, bias)
    assert np.array_equal(with_bias(x), plain(x) + bias)
    before = rng.standard_normal((rows, 112)).astype(np.float32)
    for multiply in (plain, with_bias):
        found = multiply(x, out=before.copy(), parts=2)
        assert np.array_equal(found, before[:, :104] + multiply(x))


@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_stays_in_its_row(rng, compute, bad):
    data = packed(rng, "Q8_0", 20, 96)
    x = rng.standard_normal((34, 96)).astype(np.float32)
    multiply = Product(compute, data, "Q8_0", 96)
    sound = multiply(x)
    x[7, 50] = bad
    found = multiply(x)
    assert not np.isfinite(found[7]).any()
    assert np.array_equal(np.delete(found, 7, axis=0), np.delete(sound, 7, axis=0))


@pytest.mark.parametrize("compute", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["F32", "Q4_1", "Q8_0"])
def test_weights_that_are_no_numbers_are_named(rng, compute, name):
    data = packed(rng, name, 20, 64).copy()
    halves = data[13].view(np.float32 if name == "F32" else np.float16)
    halves[0] = np.nan
    with pytest.raises(ValueError, match="row 13 has a weight that is NaN or infinite"):
        Product(compute, data, name, 64)


@pytest.mark.parametrize("compute", COMPUTE)
def test_large_weights(rng, compute):
    """Beyond what scaled float16 can hold."""
    data = packed(rng, "Q8_0", 20, 64).copy()
    data.view(np.float16).reshape(20, -1)[:, 0] *= 20000
    weights = formats.unpack(data, CODES["Q8_0"], 64).astype(np.float64)
    x = rng.standard_normal((3, 64)).astype(np.float32)
    exact = x @ weights.T
    found = Product(compute, data, "Q8_0", 64)(x)
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < ERROR[compute]


@pytest.mark.parametrize("compute", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", ["Q4_1", "Q8_0", "Q6_K", "F16"])
def test_the_bytes_of_a_prepared_matrix_are_known_before(rng, compute, name):
    data = packed(rng, name, 40, 256)
    known = prepared_bytes(COMPUTE[compute], CODES[name], 40, 256)
    assert known - 128 <= Product(compute, data, name, 256).prepared.nbytes <= known
