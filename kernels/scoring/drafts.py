"""Guesses of what sequences go on with: what followed the last time that their end stood in them.

Known as prompt look-up (A. Saxena, "Prompt Lookup Decoding", 2023). It costs no second model, and
guesses well where text repeats itself or its prompt: code, summaries, answers by a scheme.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["choose_guesses", "guess_tokens", "learn_rates"]

LEARN = 0.2
"""A guess changes a sequence's rate of right ones by so much of the difference."""

LOWEST, HIGHEST = 0.02, 0.98
"""Bounds of the rate: it can recover, and guesses end."""


@cpu_device
def _last_repeat(tokens, length):
    """Return what stands behind the last earlier place of the last three tokens, or else two.

    -1 if there is none.
    """
    if length < 3:
        return -1
    last, before, third = tokens[length - 1], tokens[length - 2], tokens[length - 3]
    start = -1
    for end in range(length - 1, 1, -1):
        if tokens[end - 1] == last and tokens[end - 2] == before:
            if end > 2 and tokens[end - 3] == third:
                return end
            start = max(start, end)
    return start


@cpu_kernel
def guess_tokens(addresses, lengths, guesses, found):
    """Guess the tokens after the first ``lengths[i]`` of each sequence. No error check.

    Parameters
    ----------
    addresses : int64 array, shape (n,)
        Of the tokens of each, int64.
    lengths : int64 array, shape (n,)
    guesses : int64 array, shape (n, most)
        Modified in place, where a sequence repeats itself: what followed there, and where that
        reaches the end, the same again.
    found : bool array, shape (n,)
        Modified in place: whether it does.
    """
    for i in range(lengths.size):
        length = lengths[i]
        tokens = array_at(addresses[i], (length,), np.int64)
        start = _last_repeat(tokens, length)
        found[i] = start >= 0
        if start >= 0:
            for j in range(guesses.shape[1]):
                guesses[i, j] = tokens[start + j % (length - start)]


@cpu_device
def _likeliest(chances):
    best = 0
    for i in range(1, chances.size):
        if chances[i] > chances[best]:
            best = i
    return best


@cpu_device
def _begin(found, rooms, rates, chances, counts):
    for i in range(found.size):
        chances[i] = rates[i] if found[i] and rooms[i] > 0 else 0.0
        counts[i] = 0


@cpu_device
def _take(i, rooms, rates, chances, counts):
    counts[i] += 1
    chances[i] = chances[i] * rates[i] if counts[i] < rooms[i] else 0.0


@cpu_kernel
def choose_guesses(found, rooms, rates, fixed, row, before, tile, chances, counts):
    """Choose how many guesses of each sequence are run, so that a step gives most for its time.

    The ``j``-th guess of a sequence is right with a probability of about ``rate ** j``. The
    likeliest of all are taken, up to where the expected tokens by the expected time are most.
    No error check.

    Parameters
    ----------
    found, rooms, rates : bool, int64 and float64 arrays, shape (n,)
        Whether there are guesses, how many there may be, and how many were right lately.
    fixed, row : float
        Time of a step as such, and of a row.
    before : intp
        Rows of the step without guesses.
    tile : intp
        Half of a row's time, that of its products, goes by so many rows at a time.
    chances : float64 array, shape (n,)
        Overwritten.
    counts : int64 array, shape (n,)
        Modified in place.
    """
    n = found.size
    _begin(found, rooms, rates, chances, counts)
    expected, best, taken, total = float(n), 0.0, 0, 0
    while True:
        i, rows = _likeliest(chances), before + total
        by_tiles = (rows + tile - 1) // tile * tile - (before + tile - 1) // tile * tile
        # Rows of prompts are no guess's to pay for.
        rate = expected / (fixed + row * (n + 0.5 * (total + by_tiles)))
        if rate > best:
            best, taken = rate, total
        if chances[i] < LOWEST:
            break
        expected += chances[i]
        total += 1
        _take(i, rooms, rates, chances, counts)
    _begin(found, rooms, rates, chances, counts)
    for _ in range(taken):
        _take(_likeliest(chances), rooms, rates, chances, counts)


@cpu_kernel
def learn_rates(addresses, lengths, ends, guesses, found, rates):
    """Learn from the tokens that came, also of guesses that were not run. No error check.

    Parameters
    ----------
    addresses, lengths, guesses, found
        As :func:`guess_tokens` had them and left them.
    ends : int64 array, shape (n,)
        How many tokens are known now.
    rates : float64 array, shape (n,)
        Modified in place.
    """
    for i in range(lengths.size):
        if found[i]:
            tokens, rate = array_at(addresses[i], (ends[i],), np.int64), rates[i]
            for j in range(min(ends[i] - lengths[i], guesses.shape[1])):
                if tokens[lengths[i] + j] != guesses[i, j]:
                    rate -= LEARN * rate
                    break
                rate += LEARN * (1 - rate)
            rates[i] = min(max(rate, LOWEST), HIGHEST)
