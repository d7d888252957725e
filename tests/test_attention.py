"""Attention against its slow reference in naive.py, for every type of cache and every path."""

import os

import naive
import numpy as np
import pytest
from test_vector_paths import COMPILED_FOR, run_tests

from numbatch.errors import InputError
from numbatch.kernels.scoring import attention
from numbatch.kernels.simd_path import PATHS, simd_path
from numbatch.kernels.threads import Call, ThreadTeam

# What rounding keys, values (and, with tile registers, queries and weights) may do to a result, as
# a part of the largest value: half a unit of 8 bits for each of two factors; 1/254 for int8.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2.0**-7, "int8": 2.0**-6}

LAYERS, LAYER = 3, 1

NO_BREAKS = np.empty(0, np.int64)


class Paged:
    """Sequences of random tokens whose keys and values lie in shuffled blocks."""

    def __init__(self, rng, lengths, heads, kv_heads, size, dtype="float32"):
        self.size, self.group, self.kv_heads = size, heads // kv_heads, kv_heads
        self.lengths, self.dtype = lengths, attention.kv_dtype(dtype)
        self.q = [rng.standard_normal((n, heads, size)).astype(np.float32) for n in lengths]
        self.k, self.v = (
            [rng.standard_normal((n, kv_heads, size)).astype(np.float32) for n in lengths]
            for _ in range(2)
        )
        counts = [-(-n // attention.BLOCK) for n in lengths]
        order = rng.permutation(sum(counts) + 2)
        self.cache = attention.new_cache(len(order), LAYERS, kv_heads, size, self.dtype)
        self.tables = np.zeros((len(lengths), max(counts)), np.int64)
        for row, count in enumerate(counts):
            self.tables[row, :count], order = order[:count], order[count:]

    def step(self, chunks, window=0, cap=0.0, threads=2):
        """Attend for chunks (sequence, start, stop); return a list of results."""
        rows = np.concatenate([np.full(stop - start, row) for row, start, stop in chunks])
        positions = np.concatenate([np.arange(start, stop) for _, start, stop in chunks])
        q, k, v = (
            np.concatenate([x[row][start:stop] for row, start, stop in chunks]).reshape(
                len(rows), -1
            )
            for x in (self.q, self.k, self.v)
        )
        block, place = np.divmod(positions, attention.BLOCK)
        slots = self.tables[rows, block] * attention.BLOCK + place
        team, out = ThreadTeam(threads), np.full(q.shape, np.nan, np.float32)
        args = (k, v, slots, LAYER, self.size, self.cache)
        team.run(Call(attention.store_kv, len(rows), args))
        plan = attention.new_plan(len(rows))
        items = attention.plan_attention(
            rows, positions, self.kv_heads, self.group, window, NO_BREAKS, plan
        )
        scratch = attention.attention_scratch(threads, self.group, self.size)
        scratch[:] = np.nan
        args = (q, self.cache, self.tables, rows, positions, plan, LAYER, self.group, self.size)
        numbers = (window, np.float32(self.size**-0.5), np.float32(cap))
        team.run(Call(attention.attend, items, (*args, *numbers, out), scratch))
        ends = np.cumsum([stop - start for _, start, stop in chunks])
        return np.split(out.reshape(len(rows), -1, self.size), ends[:-1])

    def whole(self, **options):
        """Attend for all sequences in one step."""
        return self.step([(row, 0, n) for row, n in enumerate(self.lengths)], **options)

    def exact(self, row, window=0, cap=0.0):
        return naive.attention(self.q[row], self.k[row], self.v[row], self.size**-0.5, window, cap)


def assert_close(found, exact, values, dtype):
    assert np.abs(found - exact).max() <= TOLERANCE[dtype] * max(1, np.abs(values).max())


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("dtype", attention.KV_DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (9, 3), (8, 1)])
@pytest.mark.parametrize("size", [4, 20, 64, 80])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (1, 0.0), (70, 0.0), (0, 2.0), (9, 2.0)])
def test_attention(rng, dtype, heads, kv_heads, size, window, cap):
    paged = Paged(rng, [1, 150, 64], heads, kv_heads, size, dtype)
    for row, found in enumerate(paged.whole(window=window, cap=cap)):
        assert_close(found, paged.exact(row, window, cap), paged.v[row], dtype)
    assert not paged.cache[:, [0, 2]].any()


@pytest.mark.parametrize("dtype", attention.KV_DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(9, 3, 64), (3, 3, 20), (70, 1, 33)])
@pytest.mark.parametrize(("window", "cap"), [(0, 0.0), (100, 3.0)])
def test_the_same_bits_in_any_batch(rng, dtype, heads, kv_heads, size, window, cap):
    paged = Paged(rng, [200, 17, 130], heads, kv_heads, size, dtype)
    options = {"window": window, "cap": cap}
    whole = paged.whole(**options)
    for threads, row in ((1, 0), (3, 1), (2, 2)):
        n = paged.lengths[row]
        (alone,) = paged.step([(row, 0, n)], threads=threads, **options)
        assert np.array_equal(alone, whole[row])
    for chunk in (1, 16, 63):
        for start in range(0, 200, chunk):
            rows = [row for row in (2, 0, 1) if start < paged.lengths[row]]
            chunks = [(row, start, min(start + chunk, paged.lengths[row])) for row in rows]
            for (row, begin, end), found in zip(chunks, paged.step(chunks, **options), strict=True):
                assert np.array_equal(found, whole[row][begin:end])


@pytest.mark.parametrize("dtype", attention.KV_DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
@pytest.mark.parametrize("size", [20, 64])
def test_what_is_not_finite_stays_with_those_who_see_it(rng, dtype, bad, where, size):
    paged = Paged(rng, [40, 100], 6, 3, size, dtype)
    right = paged.whole()
    x = getattr(paged, where)[1]
    x[70, 1, 3] = bad
    found = paged.whole()
    hit = np.zeros(found[1].shape, bool)
    if where == "q":
        hit[70, 1] = True
    else:
        hit[70:, 2:4] = True
    assert np.array_equal(found[0], right[0])
    assert np.array_equal(found[1][~hit], right[1][~hit])
    tokens, heads = np.nonzero(hit.any(axis=2))
    if where != "k" or np.isnan(bad):  # a score of -inf is a weight of zero
        assert np.isnan(found[1][tokens, heads]).all()
    # The blocks are lent to others, who write over a part of them.
    paged.k[1], paged.v[1], paged.q[1] = (x[1][:50] for x in (paged.k, paged.v, paged.q))
    paged.lengths[1] = 50
    paged.tables[[0, 1], :3] = paged.tables[[1, 0], :3]
    again = paged.whole()
    assert np.array_equal(again[0], right[0])
    assert np.array_equal(again[1], right[1][:50])


@pytest.mark.parametrize("dtype", attention.KV_DTYPES)
def test_large_scores_do_not_overflow(rng, dtype):
    paged = Paged(rng, [90], 2, 1, 64, dtype)
    paged.q[0] *= 1e4
    paged.k[0][:, 0, :] = rng.permutation(90)[:, None] - 100
    found, exact = paged.whole()[0], paged.exact(0)
    assert_close(found, exact, paged.v[0], dtype)


@pytest.mark.parametrize("dtype", attention.KV_DTYPES)
@pytest.mark.parametrize("step", [10, 40])
def test_maxima_that_rise_from_tile_to_tile(rng, dtype, step):
    """By more than weights have room for, of some rows only, and the same for a token alone."""
    paged = Paged(rng, [330], 6, 2, 64, dtype)
    paged.q[0][:], paged.k[0][:] = 0, 0
    paged.q[0][:, :, 0] = np.where(np.arange(330) % 3, 8, 0.08)[:, None]
    paged.k[0][:, :, 0] = np.arange(330)[:, None] // 64 * step
    found = paged.whole()[0]
    assert_close(found, paged.exact(0), paged.v[0], dtype)
    for start, stop in ((329, 330), (250, 257), (64, 200)):
        paged.step([(0, 0, start)])
        (part,) = paged.step([(0, start, stop)])
        assert np.array_equal(part, found[start:stop])


def test_equal_ranges_of_items_are_about_equal_work(rng):
    rows = np.repeat(np.arange(3), [500, 1, 300])
    positions = np.concatenate([np.arange(500), [4000], np.arange(1000, 1300)])
    plan = attention.new_plan(801)
    items = attention.plan_attention(rows, positions, 2, 3, 0, NO_BREAKS, plan)
    tiles = plan[1 : plan[0, 0] + 1]
    assert tiles[:, 2].sum() == 801
    assert np.array_equal(tiles[1:, 1], np.cumsum(tiles[:, 2])[:-1])
    sizes = np.diff(np.append(tiles[:, 0], plan[0, 1]))
    assert items == 2 * plan[0, 1]
    assert sizes.max() < items / 20
    for _, first, count, _ in tiles:
        assert len(set(rows[first : first + count])) == 1
        assert count * 3 <= 48


def test_no_tokens_are_no_items():
    nothing, plan = np.zeros(0, np.int64), attention.new_plan(0)
    assert attention.plan_attention(nothing, nothing, 3, 3, 0, nothing, plan) == 0


def test_an_unknown_type_is_refused():
    with pytest.raises(InputError, match="kv_dtype is 'float16', should be one of float32, bfl"):
        attention.kv_dtype("float16")


@pytest.mark.parametrize("path", PATHS[1:])
def test_the_other_paths(path):
    """The tests above once more in a process of its own, where the CPU has what they need."""
    if "NUMBATCH_SIMD" in os.environ or PATHS.index(path) <= PATHS.index(simd_path()):
        pytest.skip(f"{path} is the path in use, or the CPU has less")
    run_tests(path, *COMPILED_FOR[path], ["test_attention.py"])
