"""A decoder as records that a step's kernel reads: matrices, norms, layers and sizes."""

from __future__ import annotations

import numpy as np

__all__ = [
    "ATTENTION_NORM",
    "CONFIG",
    "DOWN",
    "GATE",
    "KEY",
    "KEY_NORM",
    "LAYER",
    "MATRICES",
    "MLP_NORM",
    "NORM",
    "NORMS",
    "OUTPUT",
    "POST_ATTENTION_NORM",
    "POST_MLP_NORM",
    "QUERY",
    "QUERY_NORM",
    "UP",
    "VALUE",
]

MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(len(MATRICES))

NORMS = ("attention", "query", "key", "post_attention", "mlp", "post_mlp")
ATTENTION_NORM, QUERY_NORM, KEY_NORM, POST_ATTENTION_NORM, MLP_NORM, POST_MLP_NORM = range(6)

NORM = np.dtype([("weight", np.int64), ("bias", np.int64), ("width", np.int64)])
"""Addresses of float32, padded to whole vectors; weight 0: there is no such norm."""

LAYER = np.dtype(
    [
        ("frequencies", np.int64),  # address of float32; 0: no rotary positions
        ("pairs", np.int64),
        ("window", np.int64),
        ("plan", np.int64),  # which plan of attention is that of the window
    ]
)

CONFIG = np.dtype(
    [
        ("compute", np.int64),
        ("width", np.int64),
        ("heads", np.int64),
        ("kv_heads", np.int64),
        ("head_size", np.int64),
        ("inner", np.int64),
        ("activation", np.int64),
        ("gated", np.int64),
        ("interleaved", np.int64),
        ("embedding_format", np.int64),
        ("position_format", np.int64),  # -1: no learned positions
        ("epsilon", np.float64),
        ("magnitude", np.float64),
        ("embedding_scale", np.float32),
        ("attention_scale", np.float32),
        ("attention_softcap", np.float32),
        ("logit_scale", np.float32),
        ("logit_softcap", np.float32),
    ]
)
"""Sizes and choices, as ``models.decoder.DecoderConfig`` has them."""
