"""Pieces that no cache knows, merged side by side, and the table that their merges come from."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_merging import merged, random_tokens, tables_of

from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.tokenization.merge_slots import NOTHING, find_merge, merge_slots
from numbatch.kernels.tokenization.piece_state import FILLED
from numbatch.kernels.tokenization.split_rules import PREFIXED
from numbatch.models.tokenizers.byte_encoder import build_byte_encoder


@cpu_kernel
def look_up(lefts, rights, pairs, shift, out):
    for i in range(out.size):
        out[i] = find_merge(lefts[i], rights[i], pairs, shift)


def looked_up(lefts, rights, pairs):
    out = np.empty(lefts.size, np.int64)
    look_up(lefts, rights, pairs, 65 - pairs.size.bit_length(), out)
    return out


@pytest.mark.parametrize("count", [0, 1, 2, 50, 51, 1000, 200_000])
def test_each_pair_is_found_and_no_other(count):
    rng = np.random.default_rng(count)
    keys = rng.choice(1 << 40, 2 * count + 20, replace=False) if count < 1000 else None
    if keys is None:  # many pairs of few numbers, as vocabularies have them
        keys = np.unique(rng.integers(0, 3000, 3 * count) << 20 | rng.integers(0, 3000, 3 * count))
        keys = rng.permutation(keys)
    lefts, rights = keys >> 20, keys & 0xFFFFF
    pairs = merge_slots(lefts[:count], rights[:count], 256)
    assert np.array_equal(looked_up(lefts[:count], rights[:count], pairs), 256 + np.arange(count))
    assert (looked_up(lefts[count:], rights[count:], pairs) == NOTHING).all()
    assert not pairs.flags.writeable


def pieces_of(rng, letters, count):
    """Words that are pieces of their own, of each length that is merged in groups, and longer."""
    return [" " + "".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_new_pieces_among_known_ones(seed):
    """So many pieces in one string that most are met where others have been new before."""
    rng = random.Random(seed)
    letters = rng.choice(["ab", "abc", "abcdefgh", "aé中"])
    tokens = random_tokens(rng, letters, rng.choice([6, 12, 30]), rng.choice([5, 8, 20]))
    tables = tables_of(tokens, whole_pieces=seed % 2 == 0)
    encoder = build_byte_encoder(tables, int(PREFIXED))
    words = pieces_of(rng, letters, 1500)
    text = "".join(rng.choices(words, k=4000))
    whole = {t: [256 + i] for i, t in enumerate(tokens)} if tables.whole_pieces else {}
    known = {word: whole.get(word.encode()) or merged(word.encode(), tokens) for word in words}
    expected = [i for word in text.split(" ")[1:] for i in known[" " + word]]
    assert encoder.encode_string(text).tolist() == expected
    assert encoder.encode_string(text).tolist() == expected  # from the cache


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_any_vocabulary_and_many_pieces(data):
    tokens = data.draw(
        st.lists(st.text("ab ", min_size=2, max_size=9).map(str.encode), unique=True, max_size=9)
    )
    words = data.draw(st.lists(st.text("abA", min_size=1, max_size=34), min_size=1, max_size=8))
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED))
    text = "".join(" " + word for word in words) * 70
    expected = [i for word in words for i in merged((" " + word).encode(), tokens)] * 70
    assert encoder.encode_string(text).tolist() == expected


def test_a_cache_never_holds_more_than_it_may():
    rng = random.Random(1)
    tokens = random_tokens(rng, "abcdef", 30)
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED), 1 << 10)
    sizes, most = set(), 0
    for _ in range(20):
        words = pieces_of(rng, "abcdef", 3000)
        expected = [i for word in words for i in merged(word.encode(), tokens)]
        assert encoder.encode_string("".join(words)).tolist() == expected
        (state,) = encoder._states._free
        sizes.add(state.nbytes)
        most = max(most, int(state[FILLED]))
    assert len(sizes) == 1
    assert 2048 < most <= 4096  # 20 times 3,000 would not have fitted
