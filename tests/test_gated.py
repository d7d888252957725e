"""The MLP's first half: near the exact one, and the same bits for any rows and threads."""

import math

import numpy as np
import pytest
from test_products import CODES, Product, packed

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.activation import ACTIVATIONS
from numbatch.kernels.scoring.activations import COMPUTE, Activations, convert_row
from numbatch.kernels.scoring.bfloat16_tiles import SHAPES
from numbatch.kernels.scoring.bfloat16_unpack import HALF_BYTES
from numbatch.kernels.scoring.decoder_records import CONFIG
from numbatch.kernels.scoring.gated import gate_and_up, gated_memory
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import product_memory

COLUMNS = 96


@cpu_kernel
def _convert(compute, x, columns, activations):
    flat = x.reshape(x.size)
    for row in range(x.shape[0]):
        convert_row(compute, flat, row * x.shape[1], row, columns, activations)


@cpu_kernel
def _run(thread, threads, memory, span, config, gate, up, activations, first, rows, inner, ticks):
    gate_and_up(
        thread, threads, memory, span, config[0], SHAPES, HALF_BYTES, gate[0], up[0], up[0],
        activations, first, rows, inner, (0, 1), ticks, 0,
    )  # fmt: skip


class Half:
    """Both matrices in an arithmetic, and the activation between them."""

    def __init__(self, rng, compute, name, inner, activation, bias=False):
        data = packed(rng, name, inner, COLUMNS), packed(rng, name, inner, COLUMNS)
        biases = rng.standard_normal((2, inner)).astype(np.float32) if bias else (None, None)
        products = [Product(compute, *each) for each in zip(
            data, [name] * 2, [COLUMNS] * 2, biases, strict=True)]  # fmt: skip
        self.gate, self.up = products
        self.exact = [
            (formats.unpack(rows, CODES[name], COLUMNS).astype(np.float64), add)
            for rows, add in zip(data, biases, strict=True)
        ]
        self.compute, self.inner = COMPUTE[compute], inner
        self.activation = activation
        self.config = np.zeros(1, CONFIG)
        self.config["compute"], self.config["gated"] = self.compute, True
        self.config["activation"] = ACTIVATIONS[activation]

    def __call__(self, x, threads=1, first=0):
        """Return the inputs of the next product, of the rows from ``first`` on."""
        wide = np.zeros((len(x), padded(COLUMNS)), np.float32)
        wide[:, :COLUMNS] = x
        given = Activations.empty(self.compute, len(x), COLUMNS).arrays
        _convert(self.compute, wide, COLUMNS, given)
        inner = Activations.empty(self.compute, len(x), self.inner)
        for array in inner.arrays:
            array.view(np.uint8)[:] = 0
        memory = aligned((product_memory(self.compute, COLUMNS, len(x)),), np.uint8)
        span = aligned((gated_memory(len(x)),), np.float32)
        for thread in range(threads):
            _run(
                thread, threads, memory, span, self.config, self.gate.matrix, self.up.matrix,
                given, first, len(x) - first, inner.arrays, np.zeros(0, np.bool_),
            )  # fmt: skip
        return inner

    def reference(self, x):
        """Return the exact outputs in float64."""
        gate, up = (
            x.astype(np.float64) @ weights.T + (0 if bias is None else bias)
            for weights, bias in self.exact
        )
        if self.activation == "silu":
            return gate / (1 + np.exp(-gate)) * up
        if self.activation == "gelu":
            return gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2))) * up
        inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
        return gate * 0.5 * (1 + np.tanh(inner)) * up


def outputs(half, x, **options):
    """Return the outputs as numbers, by a product with a matrix that has ones on its diagonal."""
    one = np.eye(half.inner, padded(half.inner), dtype=np.float32)[:, : half.inner].copy()
    compute = next(name for name, code in COMPUTE.items() if code == half.compute)
    unit = Product(compute, one.view(np.uint8).reshape(half.inner, -1), "F32", half.inner)
    out = np.zeros((len(x), padded(half.inner)), np.float32)
    unit.run(half(x, **options).arrays, len(x), out)
    return out[:, : half.inner]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_outputs_are_near_the_exact_ones(rng, compute, activation):
    half = Half(rng, compute, "Q8_0", 80, activation)
    x = rng.standard_normal((70, COLUMNS)).astype(np.float32)
    found, exact = outputs(half, x), half.reference(x)
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert error < {"float32": 1e-6, "bfloat16": 1e-2}[compute]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize(("name", "inner"), [("Q4_1", 96), ("Q8_0", 80), ("F16", 70)])
def test_bits_do_not_depend_on_other_rows_or_threads(rng, compute, name, inner, activation):
    half = Half(rng, compute, name, inner, activation)
    x = rng.standard_normal((107, COLUMNS)).astype(np.float32)
    found = outputs(half, x)
    for count in (1, 16, 31, 33, 40, 48, 64):
        assert np.array_equal(outputs(half, x[:count]), found[:count])
    assert np.array_equal(outputs(half, x, threads=3), found)
    assert np.array_equal(outputs(half, x, first=32)[32:], found[32:])


@pytest.mark.parametrize("compute", ["bfloat16", "int8"])
def test_bias(rng, compute):
    half = Half(rng, compute, "Q8_0", 64, "silu", bias=True)
    x = rng.standard_normal((50, COLUMNS)).astype(np.float32)
    found, exact = outputs(half, x), half.reference(x)
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 2e-2
    assert np.array_equal(outputs(half, x[:5]), found[:5])


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_what_is_not_a_number_stays_in_its_row(rng, compute):
    half = Half(rng, compute, "Q4_1", 64, "silu")
    x = rng.standard_normal((40, COLUMNS)).astype(np.float32)
    found = outputs(half, x)
    x[7, 3] = np.nan
    others = np.arange(40) != 7
    again = outputs(half, x)
    assert np.isnan(again[7]).all()
    assert np.array_equal(again[others], found[others])
