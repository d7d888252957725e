"""All layers of a decoder for the tokens of a step, in one kernel that a team runs together.

Each thread does its share of every operation and meets the others at a barrier before what needs
their shares. What a thread does depends on no other thread's timing, and a row's numbers on no
other row, so the bits are the same for any team and any batch.

The decoder is told by tables: a record of ``MATRIX`` for each matrix, of ``NORM`` for each norm and
of ``LAYER`` for what else differs from layer to layer.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import overload

from numbatch.kernels.barrier import address_pointer, mark, meet, share
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.activation import activate_row, softcap
from numbatch.kernels.scoring.activations import convert_row
from numbatch.kernels.scoring.attention.attend import (
    attend_items_by_tiles,
    attend_items_by_vectors,
)
from numbatch.kernels.scoring.attention.store import store_tokens
from numbatch.kernels.scoring.formats import unpack_span
from numbatch.kernels.scoring.norm import norm_row
from numbatch.kernels.scoring.product import multiply
from numbatch.kernels.scoring.rotary import fill_row, rotate_row
from numbatch.kernels.simd import LANES, load_float32, store_float32
from numbatch.kernels.simd_path import simd_path

__all__ = [
    "CONFIG",
    "LAYER",
    "MATRICES",
    "NORM",
    "NORMS",
    "PHASES",
    "prepare_rows",
    "run_head",
    "run_layers",
]

MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(len(MATRICES))

NORMS = ("attention", "query", "key", "post_attention", "mlp", "post_mlp")
ATTENTION_NORM, QUERY_NORM, KEY_NORM, POST_ATTENTION_NORM, MLP_NORM, POST_MLP_NORM = range(6)

NORM = np.dtype([("weight", np.int64), ("bias", np.int64), ("width", np.int64)])
"""Addresses of float32, padded to whole vectors; weight 0: there is no such norm."""

LAYER = np.dtype(
    [
        ("frequencies", np.int64),  # address of float32; 0: no rotary positions
        ("pairs", np.int64),
        ("window", np.int64),
        ("plan", np.int64),  # which plan of attention is that of the window
    ]
)

CONFIG = np.dtype(
    [
        ("compute", np.int64),
        ("width", np.int64),
        ("heads", np.int64),
        ("kv_heads", np.int64),
        ("head_size", np.int64),
        ("inner", np.int64),
        ("activation", np.int64),
        ("gated", np.int64),
        ("interleaved", np.int64),
        ("embedding_format", np.int64),
        ("position_format", np.int64),  # -1: no learned positions
        ("epsilon", np.float64),
        ("magnitude", np.float64),
        ("embedding_scale", np.float32),
        ("attention_scale", np.float32),
        ("attention_softcap", np.float32),
        ("logit_scale", np.float32),
        ("logit_softcap", np.float32),
    ]
)
"""Sizes and choices, as ``models.decoder.DecoderConfig`` has them."""

PHASES = (
    "embedding",
    "norm",
    "query, key, value",
    "rotary, store",
    "attention",
    "convert",
    "output",
    "gate, up",
    "activation",
    "down",
    "wait",
)
"""What a step's cycles are counted by, where that is asked for."""
EMBEDDING, NORMING, QKV, PLACING, ATTENDING, CONVERTING, OUTPUTTING, GATING, ACTIVATING = range(9)
LOWERING, WAITING = 9, 10

_HAS_TILES = simd_path() == "amx"


def _attend(start, stop, scratch, q, cache, *rest):
    """Attend by what the cache's type allows; chosen when the kernel is compiled."""
    raise NotImplementedError("only kernels call it")


@overload(_attend)
def _choose_attention(start, stop, scratch, q, cache, *rest):
    if _HAS_TILES and cache.dtype != types.float32:

        def attend(start, stop, scratch, q, cache, *rest):
            attend_items_by_tiles(start, stop, scratch, q, cache, *rest)
    else:

        def attend(start, stop, scratch, q, cache, *rest):
            attend_items_by_vectors(start, stop, scratch, q, cache, *rest)

    return attend


@cpu_device
def _vector(address, size):
    return carray(address_pointer(address), (size,), np.float32)


@cpu_device
def _embed(start, stop, config, tokens, positions, table, position_table, hidden, row_buffer):
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
def _norm_and_convert(start, stop, config, norm, hidden, normed, activations):
    """Norm rows of the residual stream and put them into the form of a product."""
    for token in range(start, stop):
        norm_row(
            hidden[token], _vector(norm.weight, norm.width),
            _vector(norm.bias, norm.width if norm.bias else 0), config.epsilon, normed[token],
        )  # fmt: skip
        at = token * normed.shape[1]
        convert_row(config.compute, normed, at, config.width, token, activations)


@cpu_device
def _norm_heads(x, token, heads, head_size, norm, epsilon):
    weight, bias = _vector(norm.weight, norm.width), _vector(norm.bias, 0)
    for head in range(heads):
        row = x[token, head * head_size : (head + 1) * head_size]
        norm_row(row, weight, bias, epsilon, row)


@cpu_device
def _place_heads(start, stop, config, layer, norms, q, k, cosine, sine):
    """Norm and rotate the queries and keys of tokens."""
    for token in range(start, stop):
        if norms[QUERY_NORM].weight:
            _norm_heads(q, token, config.heads, config.head_size, norms[QUERY_NORM], config.epsilon)
        if norms[KEY_NORM].weight:
            _norm_heads(k, token, config.kv_heads, config.head_size, norms[KEY_NORM],
                        config.epsilon)  # fmt: skip
        if layer.frequencies:
            for x, heads in ((q, config.heads), (k, config.kv_heads)):
                rotate_row(
                    x[token], heads, config.head_size, layer.pairs, config.interleaved,
                    cosine[token], sine[token],
                )  # fmt: skip


@cpu_device
def _add_normed(start, stop, config, norm, added, hidden):
    """Norm rows in place and add them to the residual stream (Gemma)."""
    weight, bias = _vector(norm.weight, norm.width), _vector(norm.bias, 0)
    for token in range(start, stop):
        norm_row(added[token], weight, bias, config.epsilon, added[token])
        for i in range(0, hidden.shape[1], LANES):
            at = token * hidden.shape[1] + i
            store_float32(hidden, at, load_float32(hidden, at) + load_float32(added, at))


@cpu_kernel
def run_layers(
    thread, threads, counter, memory, scores, config, matrices, norms, layers,
    shapes, table, embedding, position_table, tokens, positions, rows, slots, tables, plans,
    cache, hidden, normed, q, k, v, attended, gate, up, cosine, sine, activations, cycles,
):  # fmt: skip
    """Run a thread's share of all layers over the tokens of a step.

    No error check. All threads of a team call it at a time, with the same arguments but the first.

    Parameters
    ----------
    thread, threads : int
    counter : int64 array, shape (8,)
        Zero; see ``barrier.meet``.
    memory : uint8 array, shape (threads, bytes)
        Working memory of products.
    scores : float32 array, shape (threads, ...)
        Working memory of attention.
    config : array of CONFIG, shape (1,)
    matrices : array of MATRIX, shape (layers, 7)
        In the order of ``MATRICES``.
    norms : array of NORM, shape (layers, 6)
        In the order of ``NORMS``.
    layers : array of LAYER, shape (layers,)
    shapes, table
        As for ``product.multiply_range``.
    embedding, position_table : uint8 arrays, shape (rows, bytes of a row)
        In the file's format.
    tokens, positions, rows, slots, tables
        As in ``batching.forward.Batch``.
    plans : int64 array, shape (windows, tokens + 2, 4)
        Of attention; see ``attention.plan_attention``.
    cache : array
        Keys and values; modified in place.
    hidden : float32 array, shape (max tokens, padded width)
        Modified in place: the residual stream after the last layer.
    normed, q, k, v, attended, gate, up, cosine, sine : float32 arrays, shape (max tokens, ...)
        Overwritten.
    activations : tuple
        ``Activations.arrays``; overwritten.
    cycles : int64 array, shape (threads, 11) or (threads, 0)
        Modified in place: the CPU's clock ticks of each of ``PHASES`` are added; with no columns
        nothing is counted.
    """
    c = config[0]
    n, own = tokens.size, memory[thread]
    first, last = share(n, 1, thread, threads)
    size, ticks = c.heads * c.head_size, cycles[thread]
    since = mark(ticks, EMBEDDING, 0)
    _embed(first, last, c, tokens, positions, embedding, position_table, hidden, normed[first])
    meeting, frequencies = 0, 0
    since = mark(ticks, EMBEDDING, since)
    for index in range(layers.size):
        layer, matrix, norm = layers[index], matrices[index], norms[index]
        if layer.frequencies != frequencies:
            frequencies = layer.frequencies
            if frequencies:
                inverse = _vector(frequencies, layer.pairs)
                for token in range(first, last):
                    fill_row(positions[token], inverse, c.magnitude, cosine[token], sine[token])
        _norm_and_convert(first, last, c, norm[ATTENTION_NORM], hidden, normed, activations)
        since = mark(ticks, NORMING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        for which, out in ((QUERY, q), (KEY, k), (VALUE, v)):
            multiply(
                c.compute, thread, threads, own, shapes, table, matrix[which], activations, n,
                out, False,
            )  # fmt: skip
        since = mark(ticks, QKV, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        _place_heads(first, last, c, layer, norm, q, k, cosine, sine)
        store_tokens(first, last, k, v, slots, index, c.head_size, cache)
        since = mark(ticks, PLACING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        plan = plans[layer.plan]
        start, stop = share(plan[0, 1] * c.kv_heads, 1, thread, threads)
        _attend(
            start, stop, scores[thread], q, cache, tables, rows, positions, plan, index,
            c.heads // c.kv_heads, c.head_size, layer.window, c.attention_scale,
            c.attention_softcap, attended,
        )  # fmt: skip
        since = mark(ticks, ATTENDING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        for token in range(first, last):
            convert_row(c.compute, attended, token * attended.shape[1], size, token, activations)
        since = mark(ticks, CONVERTING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        meeting = _add_product(
            thread, threads, counter, meeting, own, c, shapes, table, matrix[OUTPUT],
            norm[POST_ATTENTION_NORM], activations, n, normed, hidden,
        )  # fmt: skip
        since = mark(ticks, OUTPUTTING, since)
        _norm_and_convert(first, last, c, norm[MLP_NORM], hidden, normed, activations)
        since = mark(ticks, NORMING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        if c.gated:
            multiply(
                c.compute, thread, threads, own, shapes, table, matrix[GATE], activations, n,
                gate, False,
            )  # fmt: skip
        multiply(
            c.compute, thread, threads, own, shapes, table, matrix[UP], activations, n, up, False
        )
        since = mark(ticks, GATING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        for token in range(first, last):
            activate_row(c.activation, c.gated, gate[token], up[token])
            convert_row(c.compute, up, token * up.shape[1], c.inner, token, activations)
        since = mark(ticks, ACTIVATING, since)
        meeting = meet(counter, threads, meeting)
        since = mark(ticks, WAITING, since)
        meeting = _add_product(
            thread, threads, counter, meeting, own, c, shapes, table, matrix[DOWN],
            norm[POST_MLP_NORM], activations, n, normed, hidden,
        )  # fmt: skip
        since = mark(ticks, LOWERING, since)


@cpu_device
def _add_product(
    thread, threads, counter, meeting, memory, config, shapes, table, matrix, post_norm,
    activations, rows, added, hidden,
):  # fmt: skip
    """Add a product, normed where the family does that, to the residual stream."""
    post = post_norm.weight != 0
    out = added if post else hidden
    multiply(
        config.compute, thread, threads, memory, shapes, table, matrix, activations, rows, out,
        not post,
    )  # fmt: skip
    meeting = meet(counter, threads, meeting)
    if post:
        start, stop = share(rows, 1, thread, threads)
        _add_normed(start, stop, config, post_norm, added, hidden)
    return meeting


@cpu_kernel
def prepare_rows(start, stop, config, norm, hidden, normed, activations):
    """Norm a range of hidden states and put them into the form of a product. No error check.

    Arguments are those of :func:`run_head`.
    """
    _norm_and_convert(start, stop, config[0], norm[0], hidden, normed, activations)


@cpu_kernel
def run_head(
    thread, threads, counter, memory, config, norm, matrix, shapes, table, hidden, normed,
    activations, out,
):  # fmt: skip
    """Do a thread's share of the logits of hidden states.

    No error check; called by a team as :func:`run_layers`.

    Parameters
    ----------
    norm, matrix : arrays of NORM and MATRIX, shape (1,)
        The last norm, and the matrix onto the vocabulary.
    hidden : float32 array, shape (n, padded width)
    normed : float32 array, shape (at least n, padded width)
        Overwritten.
    out : float32 array, shape (n, vocabulary padded to whole vectors)
        Modified in place.
    """
    c = config[0]
    first, last = share(hidden.shape[0], 1, thread, threads)
    _norm_and_convert(first, last, c, norm[0], hidden, normed, activations)
    meet(counter, threads, 0)
    multiply(
        c.compute, thread, threads, memory[thread], shapes, table, matrix[0], activations,
        hidden.shape[0], out, False,
    )  # fmt: skip
    if c.logit_scale != 1 or c.logit_softcap != 0:
        start, stop = share(matrix[0].rows, 2 * LANES, thread, threads)
        for row in range(hidden.shape[0]):
            for i in range(start, stop):
                out[row, i] = softcap(out[row, i] * c.logit_scale, c.logit_softcap)
