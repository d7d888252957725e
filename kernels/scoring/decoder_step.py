"""All layers of a decoder for the tokens of a step, in one kernel that a team runs together.

Two ways to share the work. Few rows: the columns of a product are shared out, all threads work on
the same rows and meet at a barrier before what needs the others' columns. Many rows (``apart``):
each thread has rows of its own, in blocks that stay in its second level of cache, and meets the
others only once a layer, when all keys and values are stored. What a thread does depends on no
other thread's timing, and a row's numbers on no other row, so the bits are the same for any team
and any batch.
"""

from __future__ import annotations

from numbatch.kernels.barrier import mark, meet, share
from numbatch.kernels.fork_join import call_on_team, entry_of
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.scoring.attention.attend import attend_tiles
from numbatch.kernels.scoring.attention.plan import find_tile, find_token, tile_of
from numbatch.kernels.scoring.attention.store import store_tokens
from numbatch.kernels.scoring.decoder_records import (
    ATTENTION_NORM,
    DOWN,
    GATE,
    KEY,
    MLP_NORM,
    OUTPUT,
    POST_ATTENTION_NORM,
    POST_MLP_NORM,
    QUERY,
    UP,
    VALUE,
)
from numbatch.kernels.scoring.decoder_rows import (
    add_normed,
    convert_rows,
    embed_rows,
    fill_rotary,
    norm_and_convert,
    place_heads,
)
from numbatch.kernels.scoring.gated import gate_and_up
from numbatch.kernels.scoring.product import multiply
from numbatch.kernels.threads import TeamKernel

__all__ = ["PHASES", "run_layers"]

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


@cpu_device
def _run_layers(
    thread, threads, counter, memory, scores, spans, config, matrices, norms, layers,
    shapes, table, embedding, position_table, tokens, positions, rows, slots, tables,
    ranges, apart, block, plans,
    cache, hidden, normed, q, k, v, attended, cosine, sine, inputs, cycles,
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
    spans : float32 array, shape (threads, ...)
        Working memory of ``gated.gate_and_up``.
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
    ranges : int64 array, shape (threads, 2)
        The rows of each thread (bfloat16: from a multiple of 16 on); if not ``apart`` all rows.
    apart : bool
        Whether each thread has rows of its own.
    block : int
        Rows that go through a layer at a time; in bfloat16 a multiple of 32.
    plans : int64 array, shape (windows, tokens + 2, 4)
        Of attention; see ``attention.plan_attention``. If ``apart``, tiles break where blocks do.
    cache : array
        Keys and values; modified in place.
    hidden : float32 array, shape (max tokens, padded width)
        Modified in place: the residual stream after the last layer.
    normed, q, k, v, attended, cosine, sine : float32 arrays, shape (max tokens, ...)
        Overwritten.
    inputs : four tuples
        ``Activations.arrays``; overwritten: inputs of the products for queries, keys and values, of
        that after attention, of the MLP's first ones and of its last. Two may be the same if rows
        are equally wide: else a thread's rows would lie where others of another thread do.
    cycles : int64 array, shape (threads, 11), or bool array, shape (threads, 0)
        Modified in place: the CPU's clock ticks of each of ``PHASES`` are added. For bool the
        kernel is compiled without its counters.
    """
    c, own, ticks = config[0], memory[thread], cycles[thread]
    place, team = (0, 1) if apart else (thread, threads)
    first, last = ranges[thread]
    group, size = c.heads // c.kv_heads, c.heads * c.head_size
    low, high = _part(first, last, place, team)
    since = mark(ticks, EMBEDDING, 0)
    embed_rows(low, high, c, tokens, positions, embedding, position_table, hidden, normed[low])
    since = mark(ticks, EMBEDDING, since)
    meeting, frequencies = 0, 0
    # Each token of a sequence of its own: who attends for a head of it needs no other's keys.
    alone = plans[0, 0, 2] > 0
    activations, after_attention, before_mlp, inner = inputs
    every, count = matrices.reshape(matrices.size), matrices.shape[1]
    for index in range(layers.size):
        layer, norm = layers[index], norms[index]
        matrix, following = every[index * count :], every[min((index + 1) * count, every.size - 1)]
        if layer.frequencies != frequencies:
            frequencies = layer.frequencies
            if frequencies:
                fill_rotary(low, high, c, layer, positions, cosine, sine)
        for row in range(first, last, block):
            stop = min(row + block, last)
            n, (low_row, high_row) = stop - row, _part(row, stop, place, team)
            norm_and_convert(low_row, high_row, c, norm[ATTENTION_NORM], hidden, normed,
                             activations, matrix[QUERY].given)  # fmt: skip
            since = mark(ticks, NORMING, since)
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            for which, out in ((QUERY, q), (KEY, k), (VALUE, v)):
                multiply(c.compute, place, team, own, shapes, table, matrix[which],
                         matrix[which + 1], activations, row, n, out[row:stop], False)  # fmt: skip
            since = mark(ticks, QKV, since)
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            if not alone:
                place_heads(low_row, high_row, 0, c.kv_heads, c, layer, norm, q, k, cosine, sine)
                store_tokens(low_row, high_row, k, v, slots, index, c.head_size, cache, 0,
                             c.kv_heads)  # fmt: skip
                since = mark(ticks, PLACING, since)
        if not alone:
            meeting = _meet(counter, threads, meeting)
            since = mark(ticks, WAITING, since)
        plan = plans[layer.plan]
        for row in range(first, last, block):
            stop = min(row + block, last)
            n, (low_row, high_row) = stop - row, _part(row, stop, place, team)
            for head in range(c.kv_heads if apart else 1):
                from_, to = _tiles_of(plan, head, row, stop, c.kv_heads, apart, thread, threads)
                if alone:
                    _place_tiles(from_, to, plan, c, layer, norm, q, k, v, cosine, sine, slots,
                                 index, cache)  # fmt: skip
                    since = mark(ticks, PLACING, since)
                attend_tiles(
                    from_, to, scores[thread], q, cache, tables, rows, positions, plan, index,
                    group, c.head_size, layer.window, c.attention_scale, c.attention_softcap,
                    attended,
                )  # fmt: skip
            since = mark(ticks, ATTENDING, since)
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            convert_rows(low_row, high_row, c.compute, attended, size, after_attention)
            since = mark(ticks, CONVERTING, since)
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            meeting = _add_product(
                place, team, counter, meeting, own, c, shapes, table, matrix[OUTPUT],
                matrix[GATE], norm[POST_ATTENTION_NORM], after_attention, row, n, normed, hidden,
            )  # fmt: skip
            since = mark(ticks, OUTPUTTING, since)
            norm_and_convert(low_row, high_row, c, norm[MLP_NORM], hidden, normed, before_mlp,
                             matrix[UP].given)  # fmt: skip
            since = mark(ticks, NORMING, since)
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            since = gate_and_up(
                place, team, own, spans[thread], c, shapes, table, matrix[GATE], matrix[UP],
                matrix[DOWN], before_mlp, row, n, inner, (GATING, ACTIVATING), ticks, since,
            )  # fmt: skip
            meeting = _meet(counter, team, meeting)
            since = mark(ticks, WAITING, since)
            meeting = _add_product(
                place, team, counter, meeting, own, c, shapes, table, matrix[DOWN],
                following, norm[POST_MLP_NORM], inner, row, n, normed, hidden,
            )  # fmt: skip
            since = mark(ticks, LOWERING, since)


@cpu_device(inline=True)
def _part(first, last, place, team):
    """Return a thread's part of a range of rows, for what is done row by row."""
    start, stop = share(last - first, 1, place, team)
    return first + start, first + stop


@cpu_device(inline=True)
def _meet(counter, threads, meeting):
    """Wait for the team; a team of one has nobody to wait for."""
    return meet(counter, threads, meeting) if threads > 1 else meeting


@cpu_device
def _tiles_of(plan, head, first, last, heads, apart, thread, threads):
    """Return a thread's range of tiles: of its own rows and one head, or its share of all."""
    if apart:
        before = head * plan[0, 0]
        return before + find_token(plan, first), before + find_token(plan, last)
    start, stop = share(plan[0, 1] * heads, 1, thread, threads)
    return find_tile(plan, start), find_tile(plan, stop)


@cpu_device
def _place_tiles(
    first, end, plan, config, layer, norms, q, k, v, cosine, sine, slots, index, cache
):  # fmt: skip
    """Place and store the heads that a range of tiles attends for, each of one token."""
    at = first
    while at < end:
        head, token, _ = tile_of(plan, at)
        stop = min(config.kv_heads, head + end - at)
        place_heads(token, token + 1, head, stop, config, layer, norms, q, k, cosine, sine)
        store_tokens(token, token + 1, k, v, slots, index, config.head_size, cache, head, stop)
        at += stop - head


@cpu_device
def _add_product(
    thread, threads, counter, meeting, memory, config, shapes, table, matrix, following,
    post_norm, activations, row, rows, added, hidden,
):  # fmt: skip
    """Add a product, normed where the family does that, to rows of the residual stream."""
    post = post_norm.weight != 0
    out = added if post else hidden
    multiply(
        config.compute, thread, threads, memory, shapes, table, matrix, following, activations,
        row, rows, out[row : row + rows], not post,
    )  # fmt: skip
    meeting = _meet(counter, threads, meeting)
    if post:
        start, stop = _part(row, row + rows, thread, threads)
        add_normed(start, stop, config, post_norm, added, hidden)
    return meeting


_layers_entry = entry_of(_run_layers)


@cpu_kernel
def _launch_layers(board, threads, *args):
    """Run all layers on a team."""
    return call_on_team(board, threads, _layers_entry(args), args)


run_layers = TeamKernel(_run_layers, _launch_layers)
