"""Sums in the logarithmic domain, and what a model's log-probabilities say about text.

All logarithms are natural unless the name says bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.ragged import on_device
from numbatch.kernels.simd64 import LANES64, fill, load_numbers, sum_lanes64
from numbatch.kernels.simd64_exp import exp_below_zero
from numbatch.kernels.statistics.block_statistic import BlockStatistic
from numbatch.kernels.statistics.block_tree import BLOCK, pairs_to_fold
from numbatch.kernels.statistics.moments import block_extremes, extremes
from numbatch.kernels.statistics.sums import RunningSum
from numbatch.kernels.statistics.values import NanPolicy, as_values

__all__ = [
    "Entropy",
    "Likelihood",
    "LogSumExp",
    "bits_per_byte",
    "entropy",
    "logsumexp",
    "perplexity",
]


@cpu_device
def _join_logs(n, peak, total, m, other_peak, other_total):
    """Add ``other_total * exp(other_peak)`` to ``total * exp(peak)``."""
    if m == 0 or other_peak == -math.inf:
        return n + m, peak, total
    if n == 0 or peak == -math.inf:
        return n + m, other_peak, other_total
    if peak == math.inf or other_peak == math.inf:
        return n + m, math.inf, 1.0
    # One power for both cases: a GPU's warp would work out one after the other.
    if other_peak > peak:
        peak, other_peak, total, other_total = other_peak, peak, other_total, total
    return n + m, peak, total + other_total * math.exp(other_peak - peak)


@cpu_device(inline=True)
def _sum_of_exponentials(values, low, high, peak):
    """Return the sum of ``exp(x - peak)`` over ``values[low:high]``; NaN is left out."""
    sums, i = fill(0.0), low
    while i + LANES64 <= high:
        sums = sums + exp_below_zero(load_numbers(values, i) - peak)
        i += LANES64
    total = sum_lanes64(sums)
    while i < high:
        x = float(values[i])
        if x == x:
            total += math.exp(x - peak)
        i += 1
    return total


@cpu_kernel
def _reduce_logs(start, stop, values, nodes):
    """Write count, largest value and sum of exponentials of differences from it, block by block.

    No error check.

    Parameters
    ----------
    values : float32 or float64 array, shape (total,)
    nodes : float64 array, shape (blocks, 3)
        Modified in place.
    """
    for block in range(start, stop):
        low = block * BLOCK
        high = min(low + BLOCK, values.size)
        numbers, _, peak = block_extremes(values, low, high, False, True)
        total = 1.0 if peak == math.inf else numbers  # of none but -inf each is exp(0)
        if math.isfinite(peak):
            total = _sum_of_exponentials(values, low, high, peak)
        nodes[block, 0], nodes[block, 1], nodes[block, 2] = numbers, peak, total


@cpu_device
def join_logs(a, b, out):
    """Write the node of what ``a`` and then ``b`` saw; ``out`` may be ``a``."""
    out[0], out[1], out[2] = _join_logs(a[0], a[1], a[2], b[0], b[1], b[2])


@cpu_kernel
def _combine_logs(left, right, out):
    """Combine the nodes of :func:`_reduce_logs` row by row; no error check."""
    for i in range(left.shape[0]):
        join_logs(left[i], right[i], out[i])


@cpu_kernel
def _fold_logs(nodes, whole):
    """Combine the nodes of a stream's first blocks into the first row; no error check."""
    for left, right in pairs_to_fold(nodes.shape[0], whole):
        join_logs(nodes[left], nodes[right], nodes[left])


class LogSumExp(BlockStatistic):
    """Logarithm of the sum of exponentials of a stream; see :class:`BlockStatistic`."""

    _reduce_blocks = _reduce_logs
    _combine = _combine_logs
    _fold = _fold_logs
    _empty = (0.0, -math.inf, 0.0)
    _device_kernel = "logs"

    @property
    def value(self) -> float:
        """The logarithm; -inf of no values."""
        peak, total = self._get(1), self._get(2)
        return peak + math.log(total) if total > 0 and math.isfinite(peak) else peak


def logsumexp(values: Any, nan_policy: NanPolicy = "propagate", threads: int = 1) -> float:
    """Return ``log(sum(exp(values)))`` without overflow; -inf of no values."""
    return LogSumExp._of(values, nan_policy, threads).value


@cpu_device
def entropy_term(p):
    """Return ``-p log p``, and NaN where p is negative or NaN."""
    p = np.float64(p)  # float32 has a logarithm of its own
    if p > 0.0:
        return -p * math.log(p)
    return 0.0 if p == 0.0 else math.nan


@cpu_kernel
def _entropy_terms(probabilities, out):
    """Write :func:`entropy_term` of each; no error check."""
    for i in range(probabilities.size):
        out[i] = entropy_term(float(probabilities[i]))


class Entropy:
    """Entropy of a stream of weights, fed in pieces and mergeable to the bit.

    Parameters as of :class:`BlockStatistic`.
    """

    def __init__(
        self, nan_policy: NanPolicy = "propagate", start: int = 0, threads: int = 1
    ) -> None:
        self._weights = RunningSum(nan_policy, start, threads)
        self._terms = RunningSum(nan_policy, start, threads)

    def update(self, probabilities: Any) -> Entropy:
        """Add weights, on the host or on a GPU; returns itself.

        Raises
        ------
        InputError
            If a weight is negative or infinite, or as of :meth:`BlockStatistic.update`; the state
            is then as it was.
        """
        there = on_device(probabilities)
        weights = probabilities if there else as_values(probabilities, "probabilities")
        least, greatest = extremes(weights, "omit") if weights.size else (0.0, 0.0)
        if least < 0 or greatest == math.inf:
            bad = least if least < 0 else greatest
            raise InputError(f"a probability is {bad}, should be finite and at least 0")
        self._weights.update(weights)
        if there:
            from numbatch.kernels.statistics.cuda.arrays import device_entropy_terms

            terms = device_entropy_terms(weights)
        else:
            terms = np.empty(len(weights))
            _entropy_terms(weights, terms)
        self._terms.update(terms)
        return self

    def merge(self, other: Entropy) -> Entropy:
        """Add what ``other`` saw; see :meth:`BlockStatistic.merge`."""
        self._weights.merge(other._weights)
        self._terms.merge(other._terms)
        return self

    @property
    def count(self) -> int:
        """How many weights are not NaN."""
        return self._weights.count

    @property
    def nans(self) -> int:
        """How many weights are NaN."""
        return self._weights.nans

    @property
    def value(self) -> float:
        """Entropy in nats of the weights, normalised as SciPy does; NaN where they add up to 0."""
        total = self._weights.sum
        return self._terms.sum / total + math.log(total) if total > 0 else math.nan


def entropy(probabilities: Any, nan_policy: NanPolicy = "propagate") -> float:
    """Return the entropy in nats of weights of any sum; they are normalised as SciPy does.

    Raises
    ------
    InputError
        If a weight is negative or infinite.
    """
    return Entropy(nan_policy).update(probabilities).value


class Likelihood(RunningSum):
    """Perplexity and bits per byte of a stream of tokens' log-probabilities.

    Fed in pieces and mergeable; see :class:`BlockStatistic`.
    """

    bytes: int = 0
    """Bytes of the texts that the tokens spell."""

    def add(self, logprobs: Any, bytes: int = 0) -> Likelihood:
        """Add log-probabilities (natural) of tokens and the bytes that they spell."""
        if not bytes >= 0 or bytes != int(bytes):
            raise InputError(f"bytes is {bytes}, should be a whole number, at least 0")
        self.update(logprobs)
        self.bytes += int(bytes)
        return self

    def merge(self, other: Likelihood) -> Likelihood:
        """Add what ``other`` saw; see :meth:`BlockStatistic.merge`."""
        super().merge(other)
        self.bytes += other.bytes
        return self

    @property
    def perplexity(self) -> float:
        """``exp`` of the mean negative log-probability; inf where that overflows, NaN of none."""
        with np.errstate(over="ignore"):
            return float(np.exp(-np.float64(self.mean)))

    @property
    def bits_per_byte(self) -> float:
        """Negative log-probability in bits, divided by the bytes; NaN without bytes."""
        return -self.sum / math.log(2) / self.bytes if self.bytes else math.nan


def perplexity(logprobs: Any, nan_policy: NanPolicy = "propagate") -> float:
    """Return ``exp(-mean(logprobs))``; inf where that overflows, NaN of no tokens."""
    return Likelihood(nan_policy).add(logprobs).perplexity


def bits_per_byte(logprobs: Any, bytes: int, nan_policy: NanPolicy = "propagate") -> float:
    """Return the negative log-probability in bits of each byte of a text of ``bytes`` bytes.

    Raises
    ------
    InputError
        If ``bytes`` is less than 1.
    """
    if not bytes >= 1:
        raise InputError(f"bytes is {bytes}, should be at least 1")
    return Likelihood(nan_policy).add(logprobs, bytes).bits_per_byte
