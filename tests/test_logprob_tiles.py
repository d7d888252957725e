"""Log-probabilities whose sums are taken while the logits are multiplied: as those of a row."""

import numpy as np
import pytest
from test_logit_tiles import reduce_logits
from test_products import CODES, Product, _convert, packed

from numbatch.kernels.aligned import aligned
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.activations import Activations
from numbatch.kernels.scoring.logprob import logprob_scratch, logprobs
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import product_memory
from numbatch.kernels.threads import ThreadTeam

COLUMNS = 96


class Head:
    """A matrix onto a vocabulary, and hidden states in the form of a product."""

    def __init__(self, rng, vocabulary, name="Q4_1", scale=1.0):
        self.data = packed(rng, name, vocabulary, COLUMNS)
        self.product = Product("bfloat16", self.data, name, COLUMNS)
        self.name, self.scale = name, scale

    def activations(self, x):
        wide = np.zeros((len(x), padded(COLUMNS)), np.float32)
        wide[:, :COLUMNS] = x
        found = Activations.empty(self.product.compute, len(x), COLUMNS).arrays
        _convert(self.product.compute, 1, wide, COLUMNS, found)
        return found

    def logprobs(self, x, targets, threads=1):
        size = product_memory(self.product.compute, COLUMNS, len(x))
        memory = aligned((threads, -(-size // 64) * 64), np.uint8)
        return logprobs(
            *(ThreadTeam(threads), self.product.compute, self.product.matrix, self.activations(x)),
            *(1.0, 0.0, targets, memory, logprob_scratch(threads)),
        )

    def row_by_row(self, x, targets):
        """Return the same from whole rows of logits."""
        found, greedy = reduce_logits(self.product(x), targets)[:2]
        return found.astype(np.float32), greedy


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("vocabulary", [1, 16, 31, 32, 1000, 1024, 2100])
@pytest.mark.parametrize("tokens", [1, 16, 33, 130])
def test_bits_of_rows(rng, vocabulary, tokens):
    head = Head(rng, vocabulary)
    x, targets = rng.standard_normal((tokens, COLUMNS)) * 3, rng.integers(0, vocabulary, tokens)
    found, greedy = head.logprobs(x, targets, threads=2)
    expected, likeliest = head.row_by_row(x, targets)
    assert np.array_equal(found, expected)
    assert np.array_equal(greedy, likeliest)
    alone, _ = head.logprobs(x[-1:], targets[-1:])
    assert np.array_equal(alone, found[-1:])


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "BF16"])
def test_near_exact(rng, name):
    head = Head(rng, 700, name)
    x, targets = rng.standard_normal((40, COLUMNS)), rng.integers(0, 700, 40)
    weights = formats.unpack(head.data, CODES[name], COLUMNS).astype(np.float64)
    logits = x @ weights.T
    exact = logits[np.arange(40), targets] - np.log(np.exp(logits).sum(axis=1))
    np.testing.assert_allclose(head.logprobs(x, targets)[0], exact, atol=2e-2)


def test_the_likeliest_is_greedy_and_the_first_of_equal_ones(rng):
    head = Head(rng, 1500)
    x = rng.standard_normal((50, COLUMNS))
    best = head.product(x).argmax(axis=1)
    assert head.logprobs(x, best)[1].all()
    assert not head.logprobs(x, (best + 1) % 1500)[1].any()
    zeros = np.zeros((2, COLUMNS))
    assert head.logprobs(zeros, np.array([0, 7]))[1].tolist() == [True, False]


def test_logits_that_rise_by_far(rng):
    """Sums are made relative to larger logits over and over, by up to thousands."""
    head = Head(rng, 1024)
    x, targets = rng.standard_normal((64, COLUMNS)), rng.integers(0, 1024, 64)
    x *= np.logspace(-3, 5, 64)[:, None]
    assert np.array_equal(head.logprobs(x, targets)[0], head.row_by_row(x, targets)[0])


def test_nan_stays_with_its_row(rng):
    head = Head(rng, 1030)
    x, targets = rng.standard_normal((40, COLUMNS)), rng.integers(0, 1030, 40)
    expected = head.logprobs(x, targets)[0]
    x[3], x[39, 5], x[20] = np.nan, np.nan, np.inf
    found = head.logprobs(x, targets)[0]
    bad = np.isin(np.arange(40), [3, 20, 39])
    assert np.isnan(found[bad]).all()
    assert np.array_equal(found[~bad], expected[~bad])
