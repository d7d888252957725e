"""Slow references in float64, written to be read, not to be fast."""

import numpy as np


def log_softmax(logits):
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def softcap(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def rms_norm(x, weight, epsilon):
    x = np.asarray(x, np.float64)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + epsilon) * weight


def layer_norm(x, weight, bias, epsilon):
    x = np.asarray(x, np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + epsilon) * weight + bias


def rotate(x, position, inverse_frequencies, interleaved):
    """One head's vector, rotated as complex numbers."""
    pairs = len(inverse_frequencies)
    turned = np.array(x, np.float64)
    part = turned[: 2 * pairs]
    a, b = (part[0::2], part[1::2]) if interleaved else (part[:pairs], part[pairs:])
    z = (a + 1j * b) * np.exp(1j * position * np.asarray(inverse_frequencies, np.float64))
    a[:], b[:] = z.real.copy(), z.imag.copy()
    return turned


def attention(q, k, v, scale, window=0, cap=0.0):
    """One sequence: q (tokens, heads, size), k and v (tokens, kv_heads, size); causal."""
    tokens, heads, _ = q.shape
    group = heads // k.shape[1]
    out = np.zeros(q.shape, np.float64)
    for head in range(heads):
        for t in range(tokens):
            first = max(0, t - window + 1) if window else 0
            scores = k[first : t + 1, head // group].astype(np.float64) @ q[t, head] * scale
            weights = np.exp(log_softmax(softcap(scores, cap)))
            out[t, head] = weights @ v[first : t + 1, head // group]
    return out


def penalize(logits, prompt, output, repetition, presence, frequency):
    logits = np.array(logits, np.float64)
    for token in {*prompt, *output}:
        logits[token] = (
            logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
        )
    for token in set(output):
        logits[token] -= presence + frequency * list(output).count(token)
    return logits


def sampling_probabilities(logits, temperature, top_k, top_p, min_p):
    """The distribution that a token is drawn from: min_p, then top_k, then top_p; ties stay in."""
    logits = np.asarray(logits, np.float64)
    weights = np.exp((logits - logits.max()) / temperature)
    weights[weights < min_p] = 0
    if 0 < top_k < len(logits):
        weights[logits < np.sort(logits)[-top_k]] = 0
    if top_p < 1:
        order = np.argsort(-weights, kind="stable")
        enough = np.searchsorted(np.cumsum(weights[order]), top_p * weights.sum())
        weights[weights < weights[order[min(enough, len(order) - 1)]]] = 0
    return weights / weights.sum()
