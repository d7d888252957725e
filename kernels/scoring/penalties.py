"""Penalties for tokens that a request has seen, on its row of logits."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device

__all__ = ["penalize"]


@cpu_device
def penalize(logits, counts, history, prompt, repetition, presence, frequency):
    """Apply the penalties of one request to its row of logits, in place.

    Repetition (Keskar et al. 2019, arXiv 1909.05858) counts prompt and output,
    presence and frequency (OpenAI's definition) the output alone.

    Parameters
    ----------
    logits : float32 array, shape (vocabulary,)
    counts : int32 array, shape (vocabulary,)
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
