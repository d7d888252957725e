"""How long a step takes: a line fitted while the engine runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["StepTime"]

SCALES = (1.0, 1e-2, 1e-1, 1e-4)
"""So that typical steps have features of about one: 1, tokens, sequences, KV positions read."""
FEATURES = len(SCALES)

FORGET = 0.99
"""A step counts so much of the one after it: speed changes with what else the machine does."""
QUANTILE = 0.95


class StepTime:
    """Step time as a linear function of tokens, sequences and KV positions read.

    Fitted by recursive least squares with forgetting (Ljung, "System Identification", 1999,
    section 11.2); coefficients are used as if none were below 0. ``spread`` follows the 95th
    percentile of actual by expected time.

    Attributes
    ----------
    observations : int
        How many steps were seen.
    spread : float
    """

    def __init__(self) -> None:
        self.observations = 0
        self.spread = 1.0
        self._weights = [0.0] * FEATURES
        self._covariance = [[100.0 * (i == j) for j in range(FEATURES)] for i in range(FEATURES)]

    def observe(self, tokens: int, sequences: int, kv_read: int, seconds: float) -> None:
        """Learn from a step.

        By Python's floats: NumPy took a tenth of a millisecond for vectors of four after a step
        that left nothing of it in the cache.
        """
        x = (SCALES[0], tokens * SCALES[1], sequences * SCALES[2], kv_read * SCALES[3])
        expected = sum(max(w, 0.0) * each for w, each in zip(self._weights, x, strict=True))
        if self.observations > 8 and expected > 0:
            above = seconds / expected > self.spread
            self.spread *= 1.0 + 0.02 * (QUANTILE if above else QUANTILE - 1.0)
            self.spread = min(max(self.spread, 1.0), 4.0)
        # The covariance is symmetric, so this is x @ covariance as well.
        carried = [_dot(row, x) for row in self._covariance]
        scale, error = 1.0 / (FORGET + _dot(x, carried)), seconds - _dot(x, self._weights)
        for i, row in enumerate(self._covariance):
            gain = carried[i] * scale
            self._weights[i] += gain * error
            self._covariance[i] = [a - gain * b for a, b in zip(row, carried, strict=True)]
        trace = sum(self._covariance[i][i] for i in range(FEATURES))
        factor = min(1.0 / FORGET, 400.0 / trace)
        self._covariance = [[a * factor for a in row] for row in self._covariance]
        self.observations += 1

    @property
    def coefficients(self) -> np.ndarray:
        """Seconds for a step as such, a token, a sequence and a KV position read; float64 (4,)."""
        return np.maximum(self._weights, 0.0) * SCALES

    def expected(self, tokens: float, sequences: float, kv_read: float) -> float:
        """Return the expected seconds of a step."""
        return float(self.coefficients @ (1.0, tokens, sequences, kv_read))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
