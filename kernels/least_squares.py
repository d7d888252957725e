"""Lines fitted to what is seen one after another: recursive least squares with forgetting.

Ljung, "System Identification", 1999, section 11.2.
"""

from __future__ import annotations

from numbatch.kernels.jit import cpu_kernel

__all__ = ["fit_next"]


@cpu_kernel
def fit_next(weights, covariance, carried, features, seen, forget, most):
    """Learn from one more number; return what was expected of it, by weights above 0.

    No error check.

    Parameters
    ----------
    weights : float64 array, shape (n,)
        Modified in place.
    covariance : float64 array, shape (n, n)
        Modified in place; symmetric.
    carried : float64 array, shape (n,)
        Overwritten.
    features : tuple of n floats
        What the number is a linear function of.
    seen : float
    forget : float
        What was seen counts so much of what comes after it.
    most : float
        Where the covariance's trace would become larger, nothing is forgotten of it.
    """
    n, expected, error, scale = len(features), 0.0, seen, forget
    for i in range(n):
        expected += max(weights[i], 0.0) * features[i]
        error -= weights[i] * features[i]
        carried[i] = 0.0
        for j in range(n):
            carried[i] += covariance[i, j] * features[j]
        scale += features[i] * carried[i]
    trace = 0.0
    for i in range(n):
        weights[i] += carried[i] / scale * error
        for j in range(n):
            covariance[i, j] -= carried[i] / scale * carried[j]
        trace += covariance[i, i]
    factor = min(1.0 / forget, most / trace)
    for i in range(n):
        for j in range(n):
            covariance[i, j] *= factor
    return expected
