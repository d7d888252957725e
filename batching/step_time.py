"""How long a step takes: a line fitted while the engine runs."""

from __future__ import annotations

import numpy as np

__all__ = ["StepTime"]

SCALES = np.array([1.0, 1e-2, 1e-1, 1e-4])
"""So that typical steps have features of about one: 1, tokens, sequences, KV positions read."""
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
        self._weights = np.zeros(4)
        self._covariance = np.eye(4) * 100.0

    def observe(self, tokens: int, sequences: int, kv_read: int, seconds: float) -> None:
        """Learn from a step."""
        x = SCALES * (1, tokens, sequences, kv_read)
        expected = float(np.maximum(self._weights, 0.0) @ x)
        if self.observations > 8 and expected > 0:
            above = seconds / expected > self.spread
            self.spread *= 1.0 + 0.02 * (QUANTILE if above else QUANTILE - 1.0)
            self.spread = min(max(self.spread, 1.0), 4.0)
        carried = self._covariance @ x  # symmetric, so it is x @ covariance as well
        gain = carried / (FORGET + float(x @ carried))
        self._weights += gain * (seconds - float(x @ self._weights))
        self._covariance -= gain[:, None] * carried
        self._covariance *= min(1.0 / FORGET, 400.0 / float(self._covariance.trace()))
        self.observations += 1

    @property
    def coefficients(self) -> np.ndarray:
        """Seconds for a step as such, a token, a sequence and a KV position read; float64 (4,)."""
        return np.maximum(self._weights, 0.0) * SCALES

    def expected(self, tokens: float, sequences: float, kv_read: float) -> float:
        """Return the expected seconds of a step."""
        return float(self.coefficients @ (1.0, tokens, sequences, kv_read))
