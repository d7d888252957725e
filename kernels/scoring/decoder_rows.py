"""What a decoder's step does to each row on its own: embeddings, norms, rotary positions."""

from __future__ import annotations

import numpy as np

from numbatch.kernels.array_at import array_at
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.activations import convert_row, convert_terms
from numbatch.kernels.scoring.decoder_records import KEY_NORM, QUERY_NORM
from numbatch.kernels.scoring.formats import unpack_span
from numbatch.kernels.scoring.norm import norm_row
from numbatch.kernels.scoring.rotary import fill_row, rotate_row
from numbatch.kernels.simd import LANES, load_float32, store_float32

__all__ = [
    "add_normed",
    "convert_rows",
    "embed_rows",
    "fill_rotary",
    "norm_and_convert",
    "place_heads",
]


@cpu_device
def embed_rows(start, stop, config, tokens, positions, table, position_table, hidden, row_buffer):
    """Write the embeddings of tokens ``start`` to ``stop - 1``."""
    width = config.width
    for token in range(start, stop):
        row = hidden[token]
        unpack_span(config.embedding_format, table[tokens[token]], 0, row[:width])
        if config.embedding_scale != 1:
            for i in range(width):
                row[i] *= config.embedding_scale
        if config.position_format >= 0:
            learned = row_buffer[:width]
            unpack_span(config.position_format, position_table[positions[token]], 0, learned)
            for i in range(width):
                row[i] += learned[i]


@cpu_device
def fill_rotary(start, stop, config, layer, positions, cosine, sine):
    """Write the cosines and sines of tokens."""
    inverse = array_at(layer.frequencies, (layer.pairs,), np.float32)
    for token in range(start, stop):
        fill_row(positions[token], inverse, config.magnitude, config.interleaved, cosine[token],
                 sine[token])  # fmt: skip


@cpu_device
def norm_and_convert(start, stop, config, norm, hidden, normed, activations, terms):
    """Norm rows of the residual stream and put them into the form of a product.

    All pass through the place of the first in ``normed``, which stays in the nearest cache.
    """
    weight = array_at(norm.weight, (norm.width,), np.float32)
    bias = array_at(norm.bias, (norm.width if norm.bias else 0,), np.float32)
    x, out, to = hidden.reshape(hidden.size), normed.reshape(normed.size), start * normed.shape[1]
    for token in range(start, stop):
        norm_row(x, token * normed.shape[1], weight, bias, config.epsilon, out, to)
        convert_terms(config.compute, terms, out, to, token, config.width, activations)


@cpu_device
def convert_rows(start, stop, compute, x, columns, activations):
    """Put rows into the form of a product."""
    flat = x.reshape(x.size)
    for token in range(start, stop):
        convert_row(compute, flat, token * x.shape[1], token, columns, activations)


@cpu_device
def _norm_heads(x, token, head, end, head_size, norm, epsilon):
    weight = array_at(norm.weight, (norm.width,), np.float32)
    bias = array_at(norm.bias, (0,), np.float32)
    flat = x.reshape(x.size)
    first = token * x.shape[1]
    for at in range(first + head * head_size, first + end * head_size, head_size):
        norm_row(flat, at, weight, bias, epsilon, flat, at)


@cpu_device
def place_heads(start, stop, head, end, config, layer, norms, q, k, cosine, sine):
    """Norm and rotate keys of tokens, of heads ``head`` to ``end - 1``, and queries for them."""
    group, size = config.heads // config.kv_heads, config.head_size
    for token in range(start, stop):
        if norms[QUERY_NORM].weight:
            _norm_heads(q, token, head * group, end * group, size, norms[QUERY_NORM],
                        config.epsilon)  # fmt: skip
        if norms[KEY_NORM].weight:
            _norm_heads(k, token, head, end, size, norms[KEY_NORM], config.epsilon)
        if layer.frequencies:
            rotate_row(q[token, head * group * size :], (end - head) * group, size, layer.pairs,
                       config.interleaved, cosine[token], sine[token])  # fmt: skip
            rotate_row(k[token, head * size :], end - head, size, layer.pairs,
                       config.interleaved, cosine[token], sine[token])  # fmt: skip


@cpu_device
def add_normed(start, stop, config, norm, added, hidden):
    """Norm rows in place and add them to the residual stream (Gemma)."""
    weight = array_at(norm.weight, (norm.width,), np.float32)
    bias = array_at(norm.bias, (0,), np.float32)
    flat = added.reshape(added.size)
    for token in range(start, stop):
        first = token * hidden.shape[1]
        norm_row(flat, first, weight, bias, config.epsilon, flat, first)
        for at in range(first, first + hidden.shape[1], LANES):
            store_float32(hidden, at, load_float32(hidden, at) + load_float32(added, at))
