"""Attention's products by instructions for pairs of bfloat16 (AVX512-BF16).

Four queries meet four vectors of keys, or of values, at a time: sixteen sums stay in registers, and
eight loads serve sixteen products of 16 pairs.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.attention.layout import BLOCK
from numbatch.kernels.scoring.attention.plan import KEYS
from numbatch.kernels.scoring.attention.scratch import DEEP
from numbatch.kernels.simd import LANES, load_float32, load_int32, splat, store_float32
from numbatch.kernels.simd_bfloat16 import dot_pairs
from numbatch.kernels.simd_bytes import splat_bytes

__all__ = ["add_values", "begin_products", "end_products", "score_unit"]

SHARING = 4
"""Queries that share loads."""


@cpu_device(inline=True)
def begin_products(rows):
    """Nothing has to be made ready."""


@cpu_device(inline=True)
def end_products():
    """Nothing has to be given back."""


@cpu_device(inline=True)
def _zeros():
    zero = splat(np.float32(0))
    return zero, zero, zero, zero


@cpu_device(inline=True)
def _load_four(array, at, step):
    return (
        load_float32(array, at),
        load_float32(array, at + step),
        load_float32(array, at + 2 * step),
        load_float32(array, at + 3 * step),
    )


@cpu_device(inline=True)
def _store_four(array, at, step, four):
    store_float32(array, at, four[0])
    store_float32(array, at + step, four[1])
    store_float32(array, at + 2 * step, four[2])
    store_float32(array, at + 3 * step, four[3])


@cpu_device(inline=True)
def _add_products(sums, vectors, pair):
    """Add the products of one pair with four vectors of pairs."""
    return (
        dot_pairs(sums[0], vectors[0], pair),
        dot_pairs(sums[1], vectors[1], pair),
        dot_pairs(sums[2], vectors[2], pair),
        dot_pairs(sums[3], vectors[3], pair),
    )


@cpu_device(inline=True)
def score_unit(scratch, queries, steps, keys, first, second, third, fourth, step_size, rows, out):
    """Write the products of up to 16 queries with four blocks of keys to rows of scores."""
    pairs, size = steps * DEEP // 2, step_size // (DEEP // 2)
    for row in range(0, rows, SHARING):
        a = b = c = d = _zeros()
        query = queries + row * pairs
        for pair in range(pairs):
            at = pair * size
            found = (
                load_int32(keys, first + at),
                load_int32(keys, second + at),
                load_int32(keys, third + at),
                load_int32(keys, fourth + at),
            )
            a = _add_products(a, found, splat_bytes(scratch, query + pair))
            b = _add_products(b, found, splat_bytes(scratch, query + pairs + pair))
            c = _add_products(c, found, splat_bytes(scratch, query + 2 * pairs + pair))
            d = _add_products(d, found, splat_bytes(scratch, query + 3 * pairs + pair))
        to = out + row * KEYS
        _store_four(scratch, to, BLOCK, a)
        _store_four(scratch, to + KEYS, BLOCK, b)
        _store_four(scratch, to + 2 * KEYS, BLOCK, c)
        _store_four(scratch, to + 3 * KEYS, BLOCK, d)


@cpu_device(inline=True)
def add_values(scratch, weights, values, width, rows, out):
    """Add 64 values, times the weights of up to 16 queries, to rows of results."""
    whole, pairs = width // (4 * LANES) * 4 * LANES, KEYS // 2
    for row in range(0, rows, SHARING):
        weight = weights + row * pairs
        for i in range(0, whole, 4 * LANES):
            to = out + row * width + i
            a, b = _load_four(scratch, to, LANES), _load_four(scratch, to + width, LANES)
            c = _load_four(scratch, to + 2 * width, LANES)
            d = _load_four(scratch, to + 3 * width, LANES)
            for pair in range(pairs):
                at = values + pair * width + i
                found = (
                    load_int32(scratch, at),
                    load_int32(scratch, at + LANES),
                    load_int32(scratch, at + 2 * LANES),
                    load_int32(scratch, at + 3 * LANES),
                )
                a = _add_products(a, found, splat_bytes(scratch, weight + pair))
                b = _add_products(b, found, splat_bytes(scratch, weight + pairs + pair))
                c = _add_products(c, found, splat_bytes(scratch, weight + 2 * pairs + pair))
                d = _add_products(d, found, splat_bytes(scratch, weight + 3 * pairs + pair))
            _store_four(scratch, to, LANES, a)
            _store_four(scratch, to + width, LANES, b)
            _store_four(scratch, to + 2 * width, LANES, c)
            _store_four(scratch, to + 3 * width, LANES, d)
        for i in range(whole, width, LANES):
            to = out + row * width + i
            four = _load_four(scratch, to, width)
            for pair in range(pairs):
                found = load_int32(scratch, values + pair * width + i)
                at = weight + pair
                four = (
                    dot_pairs(four[0], found, splat_bytes(scratch, at)),
                    dot_pairs(four[1], found, splat_bytes(scratch, at + pairs)),
                    dot_pairs(four[2], found, splat_bytes(scratch, at + 2 * pairs)),
                    dot_pairs(four[3], found, splat_bytes(scratch, at + 3 * pairs)),
                )
            _store_four(scratch, to, width, four)
