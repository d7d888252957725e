"""How long a step takes: a line fitted while the engine runs."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.least_squares import fit_next

__all__ = ["StepTime"]

SCALES = (1.0, 1e-2, 1e-1, 1e-4)
"""So that typical steps have features of about one: 1, tokens, sequences, KV positions read."""
FEATURES = len(SCALES)

FORGET = 0.99
"""A step counts so much of the one after it: speed changes with what else the machine does."""
MOST_TRACE = 400.0
"""Of the covariance: what does not change for long is not forgotten without end."""
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
        self._weights, self._carried = np.zeros((2, FEATURES))
        self._covariance = np.eye(FEATURES) * 100.0

    def observe(self, tokens: int, sequences: int, kv_read: int, seconds: float) -> None:
        """Learn from a step.

        In one kernel: after a step that left nothing of them in the cache, each of NumPy's
        operations takes some microseconds, and the same by Python's floats took 30.
        """
        x = (SCALES[0], tokens * SCALES[1], sequences * SCALES[2], kv_read * SCALES[3])
        expected = fit_next(
            self._weights, self._covariance, self._carried, x, float(seconds), FORGET, MOST_TRACE
        )
        if self.observations > 8 and expected > 0:
            above = seconds / expected > self.spread
            self.spread *= 1.0 + 0.02 * (QUANTILE if above else QUANTILE - 1.0)
            self.spread = min(max(self.spread, 1.0), 4.0)
        self.observations += 1

    @property
    def coefficients(self) -> np.ndarray:
        """Seconds for a step as such, a token, a sequence and a KV position read; float64 (4,)."""
        return np.maximum(self._weights, 0.0) * SCALES

    def expected(self, tokens: float, sequences: float, kv_read: float) -> float:
        """Return the expected seconds of a step."""
        return float(self.coefficients @ (1.0, tokens, sequences, kv_read))
