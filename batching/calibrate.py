"""A few steps of made-up texts, that tell how long steps take where nothing was run yet."""

from __future__ import annotations

import numpy as np

from numbatch.batching.engine import Engine
from numbatch.batching.request import Request

__all__ = ["calibrate"]

TEXTS = (
    *((1, 2), (4, 2), (8, 2), (1, 33), (1, 65), (16, 2)),
    *((2, 17), (1, 49), (8, 9), (1, 12), (4, 33), (12, 2)),
)
"""How many texts, and how long, so that a line can be fitted."""


def calibrate(engine: Engine) -> None:
    """Run steps of different sizes, which the engine's sizer watches."""
    rng = np.random.default_rng(0)
    for count, length in TEXTS:
        shape = (count, min(length, engine.context))
        texts = rng.integers(0, engine.model.decoder.config.vocabulary, shape)
        list(engine.run([Request(i, text) for i, text in enumerate(texts)]))
