"""Slow references for the statistics, in exact or float64 arithmetic, written to be read."""

import math
from fractions import Fraction
from itertools import product

import numpy as np


def exact_moments(values):
    """Mean and central moments (sums) of finite values, rounded once."""
    exact = [Fraction(float(x)) for x in values]
    n = len(exact)
    mean = sum(exact) / n
    return float(mean), *(float(sum((x - mean) ** k for x in exact)) for k in (2, 3, 4))


def logsumexp(values):
    peak = max(values)
    return peak + math.log(math.fsum(math.exp(x - peak) for x in values))


def entropy(weights):
    total = math.fsum(weights)
    return -math.fsum(w / total * math.log(w / total) for w in weights if w > 0)


def permutation_p(a, b, alternative):
    """All swaps of the two of each pair."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    observed = math.fsum(differences)
    sums = [
        math.fsum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    extreme = {
        "two-sided": lambda s: abs(s) >= abs(observed) - 1e-12,
        "greater": lambda s: s >= observed - 1e-12,
        "less": lambda s: s <= observed + 1e-12,
    }[alternative]
    return sum(map(extreme, sums)) / len(sums)


def binomial_tail(k, n):
    return sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n


def average_ranks(values):
    return [(sum(y < x for y in values) + 1 + sum(y <= x for y in values)) / 2 for x in values]


def calibration_error(confidences, correct, bins):
    total = 0.0
    for i in range(bins):
        inside = [
            (p, c)
            for p, c in zip(confidences, correct, strict=True)
            if i / bins < p <= (i + 1) / bins or (i == 0 and p == 0)
        ]
        if inside:
            p, c = np.mean(inside, axis=0)
            total += abs(p - c) * len(inside)
    return total / len(confidences)
