"""Drawing the next token of each sequence on the GPU, one block a sequence.

The steps and their order are the CPU's (``numbatch.kernels.scoring.sampling``): penalties, a user's
function, temperature, min_p, top_k, top_p, and a coin that is a hash of (seed, position). Weights
are float32 here and float64 there: the same coin falls on the same token unless it lands within
about 1e-7 of the boundary between two. Sums that threads make together are of whole numbers, so a
token does not depend on their order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numbatch.kernels.cuda import LANES, cuda, cuda_device, cuda_kernel
from numbatch.kernels.scoring.cuda.logit_parts import join_parts
from numbatch.kernels.scoring.cuda.overlap import await_previous
from numbatch.kernels.scoring.cuda.sampling_steps import coin, order_key, penalized, plain
from numbatch.kernels.scoring.cuda.words import block_max, block_sum

__all__ = ["PARAMETERS", "RECORD", "WHOLE", "sample_kernel"]

PARAMETERS = ("temperature", "top_p", "min_p", "repetition", "presence", "frequency")
"""Columns of the float64 parameters."""

WHOLE = ("top_k", "prompt", "seed", "capacity")
"""Columns of the int64 parameters."""

RECORD = 2
"""Columns of a record before the likeliest tokens: the token, and its log-probability's bits."""

BUCKETS = 2048
GROUP = 64
FIXED = 2.0**40
"""A weight of at most 1 as a whole number: 2**17 of them stay far below 2**63."""


@functools.cache
def sample_kernel(process: Callable[..., Any] | None = None) -> Any:
    """Return the kernel, with a user's function compiled in.

    Parameters
    ----------
    process : function, optional
        A ``@cuda.jit(device=True)`` function ``(logit, token, request, position) -> logit``:
        a float32, the vocabulary entry, the request's seed and how many tokens it has drawn before.
        Called for each entry by whichever thread has it, after the penalties; more than once, so it
        must be a function of its arguments alone.
    """
    user, is_changed = (plain, False) if process is None else (process, True)

    @cuda_device
    def adjusted(logits, counts, row, i, has_penalties, repetition, presence, frequency, seed, at):
        """Return a logit after penalties and the user's function."""
        x = logits[row, i]
        if has_penalties:
            x = penalized(x, counts[row, i], repetition, presence, frequency)
        return np.float32(user(x, i, seed, at))

    @cuda_kernel(early=True)
    def sample(
        logits, vocabulary, extremes, parts, parameters, whole, stops, counts, history,
        has_history, tokens, positions, wanted, record,
    ):  # fmt: skip
        """Draw a token for row block x, note it, and end the row where it is done. No error check.

        Parameters
        ----------
        logits : float32 array, shape (at least rows, at least vocabulary)
        vocabulary : int
        extremes, parts : float32 and float64 arrays
            As ``reduce_logits`` left them.
        parameters, whole : float64 and int64 arrays, shape (rows, columns)
            See ``PARAMETERS`` and ``WHOLE``; ``top_k`` 0: all.
        stops : int32 array, shape (rows, n)
            Tokens that end a row; negative: none.
        counts : int32 array, shape (rows, vocabulary)
            All zero, left all zero; read where a row has penalties.
        history : int32 array, shape (rows, capacity)
            Tokens so far, where ``has_history``; the token drawn is added.
        has_history : bool
        tokens, positions : int32 arrays, shape (rows,)
            Modified in place: the token drawn and its position, -1 where the row ended. Nothing is
            done for a row whose position is negative.
        wanted : int
            How many of the likeliest tokens to report.
        record : int32 array, shape (rows, RECORD + 2 * wanted)
            Modified in place: the token (-1: a logit is not a number, or the largest is infinite;
            -2: the row had ended), the bits of its log-probability, then ids of the likeliest
            tokens and the bits of their log-probabilities. Log-probabilities are those of the
            logits as the model gave them.
        """
        slots = cuda.shared.array(32, np.float32)
        slots_two = cuda.shared.array(32, np.float32)
        totals = cuda.shared.array(32, np.float64)
        buckets = cuda.shared.array(BUCKETS, np.uint64)
        sums = cuda.shared.array(BUCKETS, np.float64)
        found = cuda.shared.array(4, np.int64)
        row = np.intp(cuda.blockIdx.x)
        thread, threads = np.intp(cuda.threadIdx.x), np.intp(cuda.blockDim.x)
        position = np.intp(positions[row])
        length = position + 1
        temperature, top_p, min_p = parameters[row, 0], parameters[row, 1], parameters[row, 2]
        repetition = np.float32(parameters[row, 3])
        presence, frequency = np.float32(parameters[row, 4]), np.float32(parameters[row, 5])
        top_k, prompt, seed = np.intp(whole[row, 0]), np.intp(whole[row, 1]), whole[row, 2]
        await_previous()
        if position < 0:
            if thread == 0:
                record[row, 0] = -2
            return
        at = length - prompt
        has_penalties = repetition != 1 or presence != 0 or frequency != 0

        # The model's own distribution: its largest logit and its sum.
        peak, best, broken, total = join_parts(
            extremes, parts, row, vocabulary, slots, totals, thread, threads
        )
        norm = np.float64(peak) + math.log(total) if total > 0 else np.float64(0)
        if broken > 0 or not math.isfinite(peak):
            if thread == 0:
                record[row, 0] = -1
                positions[row] = -1
            return
        below, after = np.float32(np.inf), np.intp(-1)
        for n in range(wanted):
            # The next likeliest: the largest of those below the last, or equal and after it.
            top, place = np.float32(-np.inf), np.intp(vocabulary)
            for i in range(thread, vocabulary, threads):
                x = logits[row, i]
                if (x < below or (x == below and i > after)) and (x > top or place == vocabulary):
                    top, place = x, i
            cuda.syncthreads()
            largest = block_max(top, slots, thread, threads, LANES)
            own = np.float32(-vocabulary)
            if top == largest:
                own = np.float32(-place)
            after = -np.intp(block_max(own, slots_two, thread, threads, LANES))
            below = largest
            if thread == 0:
                value = np.float32(np.float64(largest) - norm)
                record[row, RECORD + n] = after
                record[row, RECORD + wanted + n] = value.view(np.int32)

        if has_penalties:
            for i in range(thread, length, threads):
                token = np.intp(history[row, i])
                if i >= prompt:
                    cuda.atomic.add(counts, (row, token), 2)
            cuda.syncthreads()
            for i in range(thread, min(prompt, length), threads):
                cuda.atomic.max(counts, (row, np.intp(history[row, i])), 1)
            cuda.syncthreads()
        # A token of both prompt and output counts an even number: the prompt's mark changes
        # nothing for it.
        high = peak
        if has_penalties or is_changed:
            top, place = np.float32(-np.inf), np.intp(vocabulary)
            for i in range(thread, vocabulary, threads):
                x = adjusted(
                    logits, counts, row, i, has_penalties, repetition, presence, frequency, seed, at
                )
                if x > top:
                    top, place = x, i
            cuda.syncthreads()
            high = block_max(top, slots, thread, threads, LANES)
            cuda.syncthreads()
            own = np.float32(-place) if top == high else np.float32(-vocabulary)
            best = -np.intp(block_max(own, slots, thread, threads, LANES))
        chosen = best
        if not math.isfinite(high):
            chosen = np.intp(-1)
        elif temperature > 0:
            scale = np.float32(1.0 / temperature)
            lowest = np.uint32(0)
            least = np.float32(min_p)
            for turn in range(2):
                # Turn 0 finds the cut-off of top_k by counts, turn 1 that of top_p by weights.
                if turn == 0 and not 0 < top_k < vocabulary:
                    continue
                if turn == 1 and not top_p < 1:
                    continue
                goal = np.uint64(top_k)
                if turn == 1:
                    total = np.float64(0)
                    for i in range(thread, vocabulary, threads):
                        x = adjusted(
                            logits, counts, row, i, has_penalties, repetition, presence,
                            frequency, seed, at,
                        )  # fmt: skip
                        weight = np.float32(math.exp((x - high) * scale))
                        if weight >= least and order_key(x) >= lowest:
                            total += np.float64(np.uint64(np.float64(weight) * FIXED))
                    cuda.syncthreads()
                    total = block_sum(total, totals, thread, threads, LANES)
                    goal = np.uint64(math.ceil(total * top_p))
                prefix, mask, above = np.uint32(0), np.uint32(0), np.uint64(0)
                for level in range(3):
                    shift = np.uint32(21 - 11 * level) if level < 2 else np.uint32(0)
                    digits = np.uint32(BUCKETS - 1) if level < 2 else np.uint32(1023)
                    for i in range(thread, BUCKETS, threads):
                        buckets[i] = np.uint64(0)
                    cuda.syncthreads()
                    for i in range(thread, vocabulary, threads):
                        x = adjusted(
                            logits, counts, row, i, has_penalties, repetition, presence,
                            frequency, seed, at,
                        )  # fmt: skip
                        key = order_key(x)
                        if key & mask == prefix and key >= lowest:
                            amount = np.uint64(1)
                            if turn == 1:
                                weight = np.float32(math.exp((x - high) * scale))
                                amount = np.uint64(0)
                                if weight >= least:
                                    amount = np.uint64(np.float64(weight) * FIXED)
                            if amount > np.uint64(0):
                                digit = np.intp((key >> shift) & digits)
                                cuda.atomic.add(buckets, digit, amount)
                    cuda.syncthreads()
                    for group in range(thread, BUCKETS // GROUP, threads):
                        part = np.uint64(0)
                        for i in range(GROUP):
                            part += buckets[group * GROUP + i]
                        sums[group] = np.float64(part)
                    cuda.syncthreads()
                    if thread == 0:
                        group = np.intp(BUCKETS // GROUP - 1)
                        reached = above
                        while group > 0 and reached + np.uint64(sums[group]) < goal:
                            reached += np.uint64(sums[group])
                            group -= 1
                        digit, last = group * GROUP + GROUP - 1, np.intp(-1)
                        taken = reached
                        while digit >= 0:
                            if buckets[digit] > np.uint64(0):
                                last, taken = digit, reached
                                if reached + buckets[digit] >= goal:
                                    break
                                reached += buckets[digit]
                            digit -= 1
                        found[0], found[1] = max(last, 0), np.int64(taken)
                    cuda.syncthreads()
                    digit, above = np.uint32(found[0]), np.uint64(found[1])
                    prefix |= np.uint32(digit << shift)
                    mask |= np.uint32(digits << shift)
                lowest = max(lowest, prefix)

            # Each thread sums a run of the vocabulary; the coin picks a run, then an entry of it.
            run = -(-vocabulary // BUCKETS)
            for part in range(thread, BUCKETS, threads):
                total = np.float64(0)
                for i in range(part * run, min(vocabulary, (part + 1) * run)):
                    x = adjusted(
                        logits, counts, row, i, has_penalties, repetition, presence, frequency,
                        seed, at,
                    )  # fmt: skip
                    weight = np.float32(math.exp((x - high) * scale))
                    if weight >= least and order_key(x) >= lowest:
                        total += np.float64(weight)
                sums[part] = total
            cuda.syncthreads()
            for group in range(thread, BUCKETS // GROUP, threads):
                total = np.float64(0)
                for i in range(GROUP):
                    total += sums[group * GROUP + i]
                totals[group] = total
            cuda.syncthreads()
            if thread == 0:
                total = np.float64(0)
                for group in range(BUCKETS // GROUP):
                    total += totals[group]
                goal_weight = coin(seed, at) * total
                reached_weight, group = np.float64(0), np.intp(0)
                while (
                    group < BUCKETS // GROUP - 1
                    and not reached_weight + totals[group] > goal_weight
                ):
                    reached_weight += totals[group]
                    group += 1
                part = group * GROUP
                end = part + GROUP - 1
                while part < end and not reached_weight + sums[part] > goal_weight:
                    reached_weight += sums[part]
                    part += 1
                while part > 0 and sums[part] == 0:
                    part -= 1
                for i in range(part * run, min(vocabulary, (part + 1) * run)):
                    x = adjusted(
                        logits, counts, row, i, has_penalties, repetition, presence, frequency,
                        seed, at,
                    )  # fmt: skip
                    weight = np.float32(math.exp((x - high) * scale))
                    if weight >= least and order_key(x) >= lowest and weight > 0:
                        chosen = i
                        reached_weight += np.float64(weight)
                        if reached_weight > goal_weight:
                            break
        if has_penalties:
            cuda.syncthreads()
            for i in range(thread, length, threads):
                counts[row, np.intp(history[row, i])] = 0
        if thread == 0 and chosen < 0:
            record[row, 0] = -1
            positions[row] = -1
        elif thread == 0:
            value = np.float32(np.float64(logits[row, chosen]) - norm)
            record[row, 0], record[row, 1] = chosen, value.view(np.int32)
            tokens[row] = chosen
            if has_history and length < history.shape[1]:
                history[row, length] = chosen
            ends = length + 1 >= whole[row, 3]
            for i in range(stops.shape[1]):
                if stops[row, i] == chosen:
                    ends = True
            positions[row] = -1 if ends else length

    return sample
