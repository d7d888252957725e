"""What the machine can do at most: bytes read and multiply-adds a second, by plain measurement.

The kernels do nothing else than what they measure, so what they reach is the limit that other
kernels are held against. They belong to no statistic and to no model.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels import amx
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.simd import (
    LANES,
    fma,
    load_float32,
    load_int32,
    splat_int32,
    store_int32,
    sum_lanes,
)
from numbatch.kernels.simd64 import fill, sum_lanes64
from numbatch.kernels.simd64_lines import add_stretch, join_vectors, start_sums, stretch_of
from numbatch.kernels.simd_bytes import DOTS_BYTES, dot_bytes, dot_to_shorts, splat_bytes
from numbatch.kernels.simd_path import reads_by_four_streams

__all__ = [
    "CHAINS",
    "CHUNK",
    "TILE_BLOCKS",
    "TILE_BYTES",
    "multiply_add",
    "multiply_add_bytes",
    "multiply_add_tiles",
    "multiply_loaded_tiles",
    "read_numbers",
]

CHUNK = 1 << 13
"""Numbers that :func:`read_numbers` reads for one item."""

STREAMS = 4 if reads_by_four_streams() else 1
"""Places of a chunk that are read in turn, whichever is faster."""

CHAINS = 12
"""Sums that :func:`multiply_add` keeps apart; more than a core's units times their latency."""


TILE_BYTES, TILE_BLOCKS = 1024, 9
"""Bytes of a tile; pairs of them that :func:`multiply_loaded_tiles` goes over again and again: with
as many of activations they lie in an L1 cache of 48 KB."""


@cpu_kernel
def read_numbers(start, stop, numbers, out):
    """Read chunks ``start`` to ``stop - 1`` of an array and fold them; no error check.

    Parameters
    ----------
    numbers : float64 array, shape (total,)
        What the numbers are does not matter: additions take the same time for all.
    out : float64 array, shape (chunks,)
        Modified in place: the sum of each chunk, so that no read is left out. The last chunk may be
        shorter than ``CHUNK``.
    """
    for chunk in range(start, stop):
        low, high = chunk * CHUNK, min(chunk * CHUNK + CHUNK, numbers.size)
        part = (high - low) // STREAMS // stretch_of(numbers) * stretch_of(numbers)
        a = b = c = d = start_sums(numbers)
        for i in range(low, low + part, stretch_of(numbers)):
            a = add_stretch(a, numbers, i)
            if STREAMS == 4:
                b = add_stretch(b, numbers, i + part)
                c = add_stretch(c, numbers, i + 2 * part)
                d = add_stretch(d, numbers, i + 3 * part)
        rest = fill(0.0)
        total = sum_lanes64(join_vectors(a, rest) + join_vectors(b, rest))
        total += sum_lanes64(join_vectors(c, rest) + join_vectors(d, rest))
        for i in range(low + STREAMS * part, high):
            total += numbers[i]
        out[chunk] = total


@cpu_kernel
def multiply_add(start, stop, steps, numbers, out):
    """Multiply and add float32 in registers; no error check.

    Parameters
    ----------
    steps : int
        Each item makes ``steps * CHAINS`` vectors of 16 multiply-adds.
    numbers : float32 array, shape (2, 16)
    out : float32 array, shape (items,)
        Modified in place.
    """
    for item in range(start, stop):
        x, y = load_float32(numbers, 0), load_float32(numbers, 16)
        # All start differently: equal chains would be computed once.
        a, b, c, d = x, y, x + y, x + y + y
        e, f, g, h = a + 1.0, b + 1.0, c + 1.0, d + 1.0
        k, m, n, o = a + 2.0, b + 2.0, c + 2.0, d + 2.0
        for _ in range(steps):
            a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
            e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
            k, m, n, o = fma(k, x, y), fma(m, x, y), fma(n, x, y), fma(o, x, y)
        total = ((a + b) + (c + d)) + ((e + f) + (g + h)) + ((k + m) + (n + o))
        out[item] = sum_lanes(total)


@cpu_kernel
def _multiply_add_shorts(start, stop, steps, numbers, out):
    """As ``multiply_add_bytes``, where sums of two products of half bytes are the fastest.

    Each meets another word of an L1 cache: equal products would be computed once.
    """
    for item in range(start, stop):
        a = b = c = d = splat_int32(np.int32(0))
        weights = load_int32(numbers, 16)
        for step in range(steps):
            first = step % 4
            for i in range(first, first + CHAINS, 4):
                a = dot_to_shorts(a, weights, splat_bytes(numbers, i))
                b = dot_to_shorts(b, weights, splat_bytes(numbers, i + 1))
                c = dot_to_shorts(c, weights, splat_bytes(numbers, i + 2))
                d = dot_to_shorts(d, weights, splat_bytes(numbers, i + 3))
        store_int32(out, item * LANES, (a + b) + (c + d))


@cpu_kernel
def _multiply_add_dots(start, stop, steps, numbers, out):
    """Multiply and add bytes in registers; no error check.

    Parameters
    ----------
    steps : int
        Each item makes ``steps * CHAINS`` vectors of 64 multiply-adds.
    numbers : int32 array, shape (2, 16)
    out : int32 array, shape (items, 16)
        Modified in place.
    """
    for item in range(start, stop):
        x, y = load_int32(numbers, 0), load_int32(numbers, 16)
        a, b, c, d = x, y, x + y, x + y + y
        e, f, g, h = a + 1, b + 1, c + 1, d + 1
        k, m, n, o = a + 2, b + 2, c + 2, d + 2
        for _ in range(steps):
            a, b, c, d = (
                dot_bytes(a, x, y),
                dot_bytes(b, x, y),
                dot_bytes(c, x, y),
                dot_bytes(d, x, y),
            )
            e, f, g, h = (
                dot_bytes(e, x, y),
                dot_bytes(f, x, y),
                dot_bytes(g, x, y),
                dot_bytes(h, x, y),
            )
            k, m, n, o = (
                dot_bytes(k, x, y),
                dot_bytes(m, x, y),
                dot_bytes(n, x, y),
                dot_bytes(o, x, y),
            )
        total = ((a + b) + (c + d)) + ((e + f) + (g + h)) + ((k + m) + (n + o))
        store_int32(out, item * LANES, total)


multiply_add_bytes = _multiply_add_dots if DOTS_BYTES else _multiply_add_shorts
"""The products of int8 that the path has."""


@cpu_kernel
def multiply_add_tiles(start, stop, steps, halves, shapes, out):
    """Multiply and add in Intel's tiles; no error check. Needs the path "amx".

    Parameters
    ----------
    steps : int
        Each item makes ``steps * 4`` products of 16 x 64 with 64 x 16 bytes, or half as wide.
    halves : bool
        bfloat16, not bytes.
    shapes : uint8 array, shape (64,)
        Of :func:`numbatch.kernels.amx.tile_shapes`, all full.
    out : int32 array, shape (items, 16)
        Modified in place.
    """
    for item in range(start, stop):
        amx.configure(shapes)
        if halves:
            for _ in range(steps):
                amx.dot_bfloat16(0, 4, 6)
                amx.dot_bfloat16(1, 4, 7)
                amx.dot_bfloat16(2, 5, 6)
                amx.dot_bfloat16(3, 5, 7)
        else:
            for _ in range(steps):
                amx.dot_int8(0, 4, 6)
                amx.dot_int8(1, 4, 7)
                amx.dot_int8(2, 5, 6)
                amx.dot_int8(3, 5, 7)
        amx.release()
        out[item, 0] = 0


@cpu_kernel
def multiply_loaded_tiles(start, stop, steps, many, halves, shapes, weights, x, out):
    """Multiply tiles that lie in the L1 cache; no error check. Needs the path "amx".

    What a product of matrices does without unpacking, without storing, and with all that it reads
    at hand: two panels of weights by 16 or 32 rows of activations.

    Parameters
    ----------
    steps : int
        Each item goes ``steps`` times over ``TILE_BLOCKS`` pairs of tiles.
    many : bool
        32 rows of activations; if not, as many as tile 4 has in ``shapes``.
    halves : bool
        bfloat16, not bytes.
    shapes : uint8 array, shape (64,)
        Of :func:`numbatch.kernels.amx.tile_shapes`.
    weights, x : uint8 arrays, shape (2 * TILE_BLOCKS * TILE_BYTES,)
    out : int32 array, shape (items, 16 * 64)
        Modified in place: a tile of sums, so that none is left out.
    """
    for item in range(start, stop):
        amx.configure(shapes)
        for _ in range(steps):
            for block in range(TILE_BLOCKS):
                at = 2 * block * TILE_BYTES
                amx.load_tile(6, weights, at, 64)
                amx.load_tile(4, x, at, 64)
                amx.load_tile(7, weights, at + TILE_BYTES, 64)
                if many:
                    amx.load_tile(5, x, at + TILE_BYTES, 64)
                if halves:
                    amx.dot_bfloat16(0, 4, 6)
                    amx.dot_bfloat16(1, 4, 7)
                    if many:
                        amx.dot_bfloat16(2, 5, 6)
                        amx.dot_bfloat16(3, 5, 7)
                else:
                    amx.dot_signed_unsigned(0, 4, 6)
                    amx.dot_signed_unsigned(1, 4, 7)
                    if many:
                        amx.dot_signed_unsigned(2, 5, 6)
                        amx.dot_signed_unsigned(3, 5, 7)
        amx.store_tile(0, out, item * out.shape[1], 64)
        amx.release()
