"""Drawing the next token from a row of logits.

The order of the steps is vLLM's: penalties, temperature, min_p, top_k, top_p. The coin is a hash of
(seed, position), so a request draws the same tokens in any batch. Nothing sorts the vocabulary: the
cut-offs of top_k and top_p are found by a radix selection on the bits of the logits.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.random import coin

__all__ = ["ROW", "coin", "sample_rows", "sampling_scratch"]

RADIX = 11
BUCKETS = 1 << RADIX

ROW = np.dtype(
    [
        ("temperature", np.float64),  # 0: the likeliest token, the first of them where several are
        ("top_p", np.float64),  # in (0, 1]; 1: all
        ("min_p", np.float64),  # least probability as a share of the likeliest token's; 0: all
        ("top_k", np.int64),  # 0: all
        ("repetition", np.float32),  # neutral at 1
        ("presence", np.float32),  # neutral at 0
        ("frequency", np.float32),  # neutral at 0
        ("prompt", np.int64),  # how many tokens of the history are the prompt
        ("seed", np.uint64),
        ("position", np.uint64),  # how many tokens the request has drawn before
    ]
)
"""What one row of logits is sampled with."""


def sampling_scratch(threads: int, vocabulary: int) -> np.ndarray:
    """Allocate the working memory of :func:`sample_rows`."""
    return np.zeros((threads, 3 * (vocabulary + 1) + BUCKETS))


@cpu_device
def _penalize(logits, counts, history, prompt, repetition, presence, frequency):
    """Apply the penalties of one request to its row of logits, in place.

    Repetition (Keskar et al. 2019, arXiv 1909.05858) counts prompt and output,
    presence and frequency (OpenAI's definition) the output alone.

    Parameters
    ----------
    logits : float32 array, shape (vocabulary,)
    counts : int64 array, shape (vocabulary,)
        All zero; left all zero.
    history : int64 array, shape (tokens so far,)
        Ids of the prompt and the output.
    prompt : int
        How many of them are the prompt.
    repetition, presence, frequency : float32
        Neutral at 1, 0 and 0.
    """
    for i in range(history.size):
        # The prompt marks a token as seen; each output token adds two.
        counts[history[i]] = counts[history[i]] | 1 if i < prompt else counts[history[i]] + 2
    for i in range(history.size):
        token = history[i]
        count = counts[token]
        if count == 0:
            continue
        counts[token] = 0
        logit = logits[token]
        logit = logit / repetition if logit > 0 else logit * repetition
        if count >= 2:
            logit -= frequency * np.float32(count // 2) + presence
        logits[token] = logit


@cpu_device
def _order_key(x):
    """Map a float32's bits to a uint32 so that the order of keys is the order of numbers."""
    bits = np.float32(x).view(np.uint32)
    if bits >> np.uint32(31):
        return ~bits
    return bits | np.uint32(0x80000000)


@cpu_device
def _threshold(keys, weights, buckets, target):
    """Return the largest key t for which the weights of keys >= t add up to ``target`` or more.

    Radix selection: three passes of 11, 11 and 10 bits, each within the bucket that the pass before
    found. Keys of weight 0 do not count.
    """
    prefix, mask, above = np.uint32(0), np.uint32(0), 0.0
    for shift, bits in ((21, RADIX), (10, RADIX), (0, 10)):
        buckets[:] = 0
        digits = np.uint32((1 << bits) - 1)
        for i in range(keys.size):
            if keys[i] & mask == prefix:
                buckets[(keys[i] >> np.uint32(shift)) & digits] += weights[i]
        digit, lowest = np.intp(digits), np.intp(-1)
        while digit >= 0:
            if buckets[digit] > 0:
                lowest = digit
                if above + buckets[digit] >= target:
                    break
                above += buckets[digit]
            digit -= 1
        if digit < 0:  # rounding kept the sum below the target: take all there is
            digit = lowest
            above -= buckets[digit]
        prefix |= np.uint32(digit) << np.uint32(shift)
        mask |= digits << np.uint32(shift)
    return prefix


@cpu_device
def _first_largest(logits):
    """Return the first place of the largest logit, or -1 where it is no finite number."""
    best = 0
    for i in range(logits.size):
        if math.isnan(logits[i]):
            return -1
        if logits[i] > logits[best]:
            best = i
    return best if math.isfinite(logits[best]) else -1


@cpu_device
def _keep_from(keys, weights, threshold):
    """Set the weights of smaller keys to 0; return the sum of the others."""
    total = 0.0
    for i in range(keys.size):
        if keys[i] < threshold:
            weights[i] = 0.0
        total += weights[i]
    return total


@cpu_device
def _draw(weights, target, best):
    """Return the first token at which the running sum passes ``target``."""
    running = 0.0
    chosen = best
    for i in range(weights.size):
        if weights[i] > 0:
            running += weights[i]
            chosen = i
            if running > target:
                break
    return chosen


@cpu_device
def _sample(logits, keys, weights, buckets, row, u):
    """Draw a token with the coin ``u``; return its id, or -1 where a logit is not a number.

    Tokens tied with the last one that top_k or top_p admits are admitted too.
    """
    best = _first_largest(logits)
    if best < 0 or row.temperature == 0:
        return best
    lowest = np.uint32(0)
    for i in range(logits.size):
        keys[i] = _order_key(logits[i])
    if 0 < row.top_k < logits.size:
        weights[:] = 1
        lowest = _threshold(keys, weights, buckets, float(row.top_k))
    peak = float(logits[best])
    for i in range(logits.size):
        weight = math.exp((float(logits[i]) - peak) / row.temperature)
        weights[i] = weight if weight >= row.min_p else 0.0
    total = _keep_from(keys, weights, lowest)
    if row.top_p < 1:
        lowest = _threshold(keys, weights, buckets, row.top_p * total)
        total = _keep_from(keys, weights, lowest)
    return _draw(weights, u * total, best)


@cpu_device
def _top_logprobs(logits, chosen, ids, values):
    """Write the likeliest tokens and their log-probabilities; return that of ``chosen``."""
    peak = float(logits[0])
    for i in range(logits.size):
        peak = max(peak, float(logits[i]))
    total = 0.0
    for i in range(logits.size):
        total += math.exp(float(logits[i]) - peak)
    norm = peak + math.log(total)
    count, n = 0, ids.size
    for i in range(logits.size if n else 0):
        if count == n and not logits[i] > values[n - 1]:
            continue
        place = min(count, n - 1)
        count = min(count + 1, n)
        while place > 0 and values[place - 1] < logits[i]:
            ids[place], values[place] = ids[place - 1], values[place - 1]
            place -= 1
        ids[place], values[place] = i, logits[i]
    for i in range(n):
        values[i] = float(values[i]) - norm
    return float(logits[chosen]) - norm


@cpu_kernel
def sample_rows(
    start, stop, scratch, logits, rows, history, offsets, chosen, logprob, top_ids, top_values
):
    """Draw one token for each of the rows ``start`` to ``stop - 1`` of logits.

    No error check. Log-probabilities are those of the logits as the model gave them, before
    penalties and temperature, as vLLM reports them.

    Parameters
    ----------
    scratch : float64 array
        From :func:`sampling_scratch`.
    logits : float32 array, shape (rows, vocabulary)
        Modified in place by the penalties.
    rows : array of ROW, shape (rows,)
    history : int64 array
        Ids of prompt and output of each row that has penalties, one row after another.
    offsets : int64 array, shape (rows + 1,)
        Where each row's history starts and ends.
    chosen : int64 array, shape (rows,)
        Modified in place: the token drawn, or -1 where a logit is NaN or the largest is infinite.
    logprob : float32 array, shape (rows,)
        Modified in place: the log-probability of the token drawn.
    top_ids, top_values : int64 and float32 arrays, shape (rows, n)
        Modified in place: the ``n`` likeliest tokens, likeliest first, and their
        log-probabilities.
    """
    vocabulary = logits.shape[1]
    weights = scratch[:vocabulary]
    counts = scratch[vocabulary : 2 * vocabulary].view(np.int64)
    buckets = scratch[2 * vocabulary : 2 * vocabulary + BUCKETS]
    rest = scratch[2 * vocabulary + BUCKETS :]
    keys = rest.view(np.uint32)[:vocabulary]
    unpenalized = rest.view(np.float32)[vocabulary : 2 * vocabulary]
    for i in range(start, stop):
        row = rows[i]
        past = history[offsets[i] : offsets[i + 1]]
        unpenalized[:] = logits[i]
        _penalize(logits[i], counts, past, row.prompt, row.repetition, row.presence, row.frequency)
        u = coin(row.seed, row.position)
        chosen[i] = _sample(logits[i], keys, weights, buckets, row, u)
        logprob[i] = np.nan
        if chosen[i] >= 0:
            logprob[i] = _top_logprobs(unpenalized, chosen[i], top_ids[i], top_values[i])
