"""Bits picked out and put back, by the CPU's instructions and without them."""

import numpy as np
import pytest

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.words import deposit_bits, extract_bits

PLACES = np.arange(64, dtype=np.uint64)


@cpu_kernel
def _move(words, masks, picked, put):
    for i in range(words.size):
        picked[i] = extract_bits(words[i], masks[i])
        put[i] = deposit_bits(words[i], masks[i])


def _bits(word):
    return (np.uint64(word) >> PLACES & np.uint64(1)).astype(bool)


@pytest.mark.parametrize("masks", ["random", "none", "all"])
def test_bits_are_picked_out_and_put_back(masks):
    rng = np.random.default_rng(6)
    words = rng.integers(0, 1 << 64, 200, dtype=np.uint64)
    masks = {
        "random": rng.integers(0, 1 << 64, 200, dtype=np.uint64),
        "none": np.zeros(200, np.uint64),
        "all": np.full(200, (1 << 64) - 1, np.uint64),
    }[masks]
    picked, put = np.empty_like(words), np.empty_like(words)
    _move(words, masks, picked, put)
    for word, mask, out, back in zip(words, masks, picked, put, strict=True):
        chosen = np.flatnonzero(_bits(mask))
        expected = np.zeros(64, bool)
        expected[: chosen.size] = _bits(word)[chosen]
        assert np.array_equal(_bits(out), expected)
        expected = np.zeros(64, bool)
        expected[chosen] = _bits(word)[: chosen.size]
        assert np.array_equal(_bits(back), expected)
