"""Drawing the next token from a row of logits.

The order of the steps is vLLM's: the user's processor, penalties, temperature, min_p, top_k, top_p.
The coin is a hash of (seed, position), so a request draws the same tokens in any batch.

Nothing sorts the vocabulary. One pass reduces the row by tiles of ``TILE`` logits and 16 lanes
(:mod:`numbatch.kernels.scoring.logit_tiles`), while logits are computed: that is all that greedy
decoding and its log-probability need. The largest of each lane also tell where large logits can be:
``top_k`` looks only into tiles that hold one at least as large as the k-th largest of these.
``top_p`` computes the weights, takes out those that matter, and selects among them.

The limit: a row of 49,152 float32 logits is 196 KB in the second level of the cache, which a core
reads in 3 to 6 us; the exponentials of all of them are 21,500 cycles. So a draw from all of them
costs one such pass, greedy none.
"""

from __future__ import annotations

import math

import numpy as np

from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.random import coin
from numbatch.kernels.scoring.logit_tiles import (
    BOUND,
    STATE,
    keep_largest,
    log_sum,
    whole_part,
)
from numbatch.kernels.scoring.nucleus import TILE, draw, keep_nucleus, weigh
from numbatch.kernels.scoring.penalties import penalize
from numbatch.kernels.scoring.processors import call_processor
from numbatch.kernels.scoring.select import kth_largest
from numbatch.kernels.simd import (
    LANES,
    lanes,
    load_float32,
    maximum,
    splat,
    store_float32,
    sum_lanes,
)
from numbatch.kernels.simd_exp import LOG2_E, exp2
from numbatch.kernels.simd_masks import (
    above,
    at_least,
    count_bits,
    largest_lane,
    load_part,
    lowest_bit,
    not_numbers,
    store_lanes_where,
    store_where,
)

__all__ = [
    "NO_LOGITS",
    "NO_TOKEN",
    "PROCESSOR_RAISED",
    "ROW",
    "coin",
    "sample_rows",
    "sampling_scratch",
]

NO_LOGITS = -1
"""Instead of a token: a logit of the model is NaN, or the largest is beyond ``BOUND``."""

NO_TOKEN = -2
"""The same, after the processor and the penalties: none is left, or one is NaN."""

PROCESSOR_RAISED = -3
"""The processor raised an exception; the row of logits is as the model gave it."""

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
        ("processor", np.int64),  # the address of the user's function; 0: none
        ("argument", np.int64),  # what it is told of the request
    ]
)
"""What one row of logits is sampled with."""


def sampling_scratch(threads: int, vocabulary: int) -> np.ndarray:
    """Allocate the working memory of :func:`sample_rows`: float32, all zero."""
    tiles = -(-vocabulary // TILE)
    # Each thread's begins at a cache line: sums, of two numbers a tile, are padded to that.
    return aligned((threads, 6 * (tiles + 1) * TILE + -(-tiles // 8) * LANES), np.float32)


@cpu_device
def _row_log_sum(state, tiles, peak):
    """Return the logarithm of the sum of exponentials over the tiles of a row."""
    whole = whole_part(splat(peak))
    total = lost = splat(np.float32(0))
    for tile in range(tiles):
        to = tile * STATE
        scaled = exp2(whole_part(load_float32(state, to)) - whole)
        # Compensated (Kahan 1965, 10.1145/363707.363723): a lane has as many terms as tiles.
        term = load_float32(state, to + LANES) * scaled - lost
        new = total + term
        lost = (new - total) - term
        total = new
    return log_sum(peak, np.float64(sum_lanes(total)))


@cpu_device
def _peak(state, tiles):
    """Return the largest logit of a row."""
    top = load_float32(state, 0)
    for tile in range(1, tiles):
        top = maximum(load_float32(state, tile * STATE), top)
    return largest_lane(top)


@cpu_device
def _first_at(logits, size, state, value):
    """Return the first place of a value that is the largest of a row."""
    bound = splat(value)
    for tile in range((size + TILE - 1) // TILE):
        if at_least(load_float32(state, tile * STATE), bound):
            for i in range(tile * TILE, size, LANES):
                x = load_part(logits, i, min(size - i, LANES), np.float32(-np.inf))
                found = at_least(x, bound)
                if found:
                    return i + lowest_bit(found)
    return np.int64(0)


@cpu_device
def _find_tops(logits, size, state):
    """Write the largest logit of each tile and lane; return whether none is NaN."""
    bad = np.int64(0)
    full = size // TILE * TILE
    for low in range(0, full, TILE):
        top = other = splat(np.float32(-np.inf))
        for i in range(low, low + TILE, 2 * LANES):  # two chains of comparisons
            x, y = load_float32(logits, i), load_float32(logits, i + LANES)
            bad |= not_numbers(x, y)
            top, other = maximum(x, top), maximum(y, other)
        store_float32(state, low // TILE * STATE, maximum(top, other))
    if full < size:
        top = splat(np.float32(-np.inf))
        for i in range(full, size, LANES):
            x = load_part(logits, i, min(size - i, LANES), np.float32(-np.inf))
            bad |= not_numbers(x, x)
            top = maximum(x, top)
        store_float32(state, full // TILE * STATE, top)
    return bad == 0


@cpu_device
def _kth_of_tops(state, tiles, peak, k, spare):
    """Return a number that at least ``k`` logits reach, close to the ``k``-th largest."""
    if k > tiles * LANES:
        return np.float32(-np.inf)
    for tile in range(tiles):
        store_float32(spare, tile * LANES, load_float32(state, tile * STATE))
    return kth_largest(spare, tiles * LANES, peak, k)


@cpu_device
def _pack(x, size, state, least, packed, ids):
    """Write the logits from ``least`` up, and their places, next to each other.

    ``packed`` and ``ids`` (int32) have room for 15 more. Returns how many there are.
    """
    kept, bound = 0, splat(least)
    for tile in range((size + TILE - 1) // TILE):
        if not at_least(load_float32(state, tile * STATE), bound):
            continue
        for i in range(tile * TILE, min(tile * TILE + TILE, size), LANES):
            here = load_part(x, i, min(size - i, LANES), np.float32(np.nan))
            mask = at_least(here, bound)
            if mask:
                store_where(packed, kept, here, mask)
                store_lanes_where(ids, kept, lanes() + np.int32(i), mask)
                kept += count_bits(mask)
    return kept


@cpu_device
def _least_logit(peak, temperature, min_p):
    """Return the smallest float32 whose weight is ``min_p`` or more of the largest."""
    if min_p <= 0:
        return np.float32(-np.inf)
    exact = np.float64(peak) + temperature * math.log(min_p)
    least = np.float32(exact)
    if np.float64(least) < exact:
        least = np.nextafter(least, np.float32(np.inf))
    return min(least, peak)


@cpu_device
def _sample(logits, state, peak, row, u, packed, weights, spare, ids, sums):
    """Draw a token with the coin ``u`` from a row whose largest logit is ``peak``."""
    size = logits.size
    tiles = (size + TILE - 1) // TILE
    if row.temperature == 0:
        return _first_at(logits, size, state, peak)
    factor = np.float32(min(LOG2_E / row.temperature, 1e38))
    least = _least_logit(peak, row.temperature, row.min_p)
    cuts = 0 < row.top_k < size
    if cuts:
        least = max(least, _kth_of_tops(state, tiles, peak, row.top_k, spare))
    if not cuts and row.min_p <= 0:
        total = weigh(logits, size, peak, least, factor, weights, sums)
        if row.top_p < 1:
            total = keep_nucleus(logits, weights, size, total, row.top_p, spare, sums)
        return draw(weights, size, sums, u * total)
    count = _pack(logits, size, state, least, packed, ids)
    if cuts and row.top_k < count:
        for i in range(0, count, LANES):
            store_float32(spare, i, load_float32(packed, i))
        least = kth_largest(spare, count, peak, row.top_k)
    total = weigh(packed, count, peak, least, factor, weights, sums)
    if row.top_p < 1:
        total = keep_nucleus(packed, weights, count, total, row.top_p, spare, sums)
    return np.int64(ids[draw(weights, count, sums, u * total)])


@cpu_device
def _top_logprobs(logits, state, norm, ids, values):
    """Write the likeliest tokens and their log-probabilities."""
    for i in range(ids.size):
        ids[i], values[i] = -1, -np.inf
    if ids.size:
        for tile in range((logits.size + TILE - 1) // TILE):
            least = values[ids.size - 1]
            if least == -np.inf or above(load_float32(state, tile * STATE), splat(least)):
                low = tile * TILE
                count = min(TILE, logits.size - low)
                keep_largest(logits, low, count, low, values, ids, 0, ids.size)
        for i in range(ids.size):
            values[i] = min(np.float64(values[i]) - norm, 0.0)


@cpu_device
def _copy(source, target):
    """Copy a row; an assignment of slices would compile the text of its error, for seconds."""
    for i in range(source.size):
        target[i] = source[i]


@cpu_device
def _holds(history, token):
    """Return whether a token is in the history."""
    for each in history:
        if each == token:
            return True
    return False


@cpu_device
def _change(logits, raw, counts, history, row):
    """Apply the processor and the penalties of a request to its row, in place; 0 if all is well.

    ``raw`` keeps what the row was: all of it where there is a processor, else at the history's
    tokens.
    """
    if row.processor:
        _copy(logits, raw)
        if call_processor(row.processor, logits, row.argument, np.int64(row.position)):
            _copy(raw, logits)
            return PROCESSOR_RAISED
    else:
        for token in history:
            raw[token] = logits[token]
    if history.size:
        penalize(logits, counts, history, row.prompt, row.repetition, row.presence, row.frequency)
    return 0


@cpu_kernel
def sample_rows(
    start, stop, scratch, logits, states, rows, history, offsets,
    chosen, logprob, top_ids, top_values,
):  # fmt: skip
    """Draw one token for each of the rows ``start`` to ``stop - 1`` of logits.

    No error check. Log-probabilities are those of the logits as the model gave them, before
    processor, penalties and temperature, as vLLM reports them. Tokens whose logits are equal to
    that of the last one that ``top_k`` or ``top_p`` admits are admitted too.

    Parameters
    ----------
    scratch : float32 array
        From :func:`sampling_scratch`.
    logits : float32 array, shape (rows, vocabulary)
        Modified in place by processor and penalties.
    states : float32 array, shape (rows, row_states.state_numbers(vocabulary))
        Of the tiles of logits, from ``decoder_head.run_head`` or ``row_states.reduce_rows``;
        modified in place.
    rows : array of ROW, shape (rows,)
    history : int64 array
        Ids of prompt and output of each row that has penalties, one row after another.
    offsets : int64 array, shape (rows + 1,)
        Where each row's history starts and ends.
    chosen : int64 array, shape (rows,)
        Modified in place: the token drawn, or ``NO_LOGITS``, ``NO_TOKEN`` or ``PROCESSOR_RAISED``.
    logprob : float32 array, shape (rows,)
        Modified in place: the log-probability of the token drawn.
    top_ids, top_values : int64 and float32 arrays, shape (rows, n)
        Modified in place: the ``n`` likeliest tokens, likeliest first, and their
        log-probabilities; -1 where there are not so many.
    """
    size = logits.shape[1]
    tiles = (size + TILE - 1) // TILE
    room = (tiles + 1) * TILE
    packed, weights = scratch[:room], scratch[room : 2 * room]
    spare = scratch[2 * room : 3 * room]
    ids = scratch[3 * room : 4 * room].view(np.int32)
    counts = scratch[4 * room : 5 * room].view(np.int32)
    raw = scratch[5 * room : 5 * room + size]
    sums = scratch[6 * room :].view(np.float64)
    for i in range(start, stop):
        row, line, state = rows[i], logits[i], states[i]
        past = history[offsets[i] : offsets[i + 1]]
        peak = _peak(state, tiles)
        norm = _row_log_sum(state, tiles, peak)
        chosen[i] = NO_LOGITS
        logprob[i] = np.nan
        if math.isnan(norm):
            continue
        _top_logprobs(line, state, norm, top_ids[i], top_values[i])
        changed = row.processor != 0 or past.size > 0
        if changed:
            chosen[i] = _change(line, raw, counts, past, row)
            if chosen[i] < 0:
                continue
            chosen[i] = NO_TOKEN
            is_good = _find_tops(line, size, state)
            peak = _peak(state, tiles)
            if not (is_good and -BOUND <= peak <= BOUND):
                continue
        u = coin(row.seed, row.position)
        chosen[i] = _sample(line, state, peak, row, u, packed, weights, spare, ids, sums)
        before = line[chosen[i]]
        if row.processor or _holds(past, chosen[i]):
            before = raw[chosen[i]]
        logprob[i] = min(np.float64(before) - norm, 0.0)
