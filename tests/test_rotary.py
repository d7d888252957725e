"""Inverse frequencies against transformers' own functions."""

import math
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from numbatch.errors import ModelError
from numbatch.models.decoders.rotary import inverse_frequencies

CONTEXT = 4096
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 1024},
    {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    {
        "rope_type": "yarn",
        "factor": 16.0,
        "original_max_position_embeddings": 256,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "attention_factor": 1.25,
    },
    {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 100,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
    },
]


@pytest.mark.parametrize("size", [16, 20, 128])
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("scaling", CASES, ids=lambda case: case["rope_type"])
def test_scalings(scaling: dict[str, Any], theta: float, size: int) -> None:
    config = LlamaConfig(
        head_dim=size,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": theta, **scaling},
    )
    wanted, wanted_magnitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu")
    got, magnitude = inverse_frequencies(size, theta, scaling, CONTEXT, "test")
    assert got.dtype == np.float32
    assert not got.flags.writeable
    np.testing.assert_allclose(got, wanted.numpy(), rtol=2e-6)
    assert math.isclose(magnitude, wanted_magnitude, rel_tol=1e-12)


def test_default_and_older_key() -> None:
    plain, magnitude = inverse_frequencies(8, 100.0, {}, CONTEXT, "test")
    np.testing.assert_allclose(plain, [1, 100**-0.25, 0.1, 100**-0.75], rtol=1e-6)
    assert magnitude == 1.0
    older, _ = inverse_frequencies(8, 100.0, {"type": "linear", "factor": 2}, CONTEXT, "test")
    assert np.array_equal(older, plain / 2)


@pytest.mark.parametrize(
    ("size", "theta", "scaling", "message"),
    [
        (8, 1e4, {"rope_type": "longrope"}, "'longrope' is not supported.*llama3, yarn"),
        (7, 1e4, {}, "7 entries"),
        (0, 1e4, {}, "0 entries"),
        (8, 1.0, {}, "base is 1.0"),
        (8, 1e4, {"rope_type": "linear"}, "lacks factor"),
        (8, 1e4, {"rope_type": "linear", "factor": 0}, "factor is 0"),
        (8, 1e4, {"rope_type": "linear", "factor": "4"}, "factor is '4'"),
        (8, 1e4, {"rope_type": "yarn", "factor": math.nan}, "factor is nan"),
        (8, 1e4, {"rope_type": ["yarn"]}, "not supported"),
        (8, 1e4, {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4.0}, "greater than"),
    ],
)
def test_refused(size: int, theta: float, scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        inverse_frequencies(size, theta, scaling, CONTEXT, "test")
