"""The compiled merging of pieces against plain merging of the lowest rank, leftmost first."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.byte_pairs import BYTES, pack_merges
from numbatch.kernels.tokenization.merge import MergeTables, encode_pieces
from numbatch.kernels.tokenization.split_rules import PREFIXED
from numbatch.kernels.tokenization.tables import build_pair_table, build_string_table, read_only
from numbatch.models.tokenizers.byte_encoder import build_byte_encoder
from numbatch.models.tokenizers.stretches import equal_shares
from numbatch.models.tokenizers.vocabulary import byte_strings, ranked_merges


def tables_of(tokens, whole_pieces=False):
    """Tables of all single bytes and these tokens, earlier ones merging first."""
    pieces = [bytes([b]) for b in range(256)] + tokens
    strings, duplicate = build_string_table(byte_strings(pieces), np.arange(len(pieces)))
    assert duplicate < 0
    ranks = np.where(np.arange(len(pieces)) < 256, -1, np.arange(len(pieces)))
    merges = ranked_merges(ranks, strings)
    pairs = build_pair_table(merges.lefts, merges.rights, merges.ranks, merges.merged)
    byte_ids = read_only(np.arange(256, dtype=np.int32))
    return MergeTables(pairs, strings, byte_ids, False, whole_pieces, -1, False)


def merged(text, tokens):
    """What merging makes of a text, by the definition."""
    ids = {token: 256 + i for i, token in enumerate(tokens)}
    parts = [bytes([byte]) for byte in text]
    while True:
        ranks = [ids.get(a + b, 1 << 30) for a, b in itertools.pairwise(parts)]
        if not ranks or min(ranks) == 1 << 30:
            return [ids.get(part, part[0]) for part in parts]
        at = ranks.index(min(ranks))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def random_tokens(rng, letters, count, most=6):
    """Tokens of which not each is reached: some are no two tokens' concatenation."""
    found = {}
    while len(found) < count:
        token = "".join(rng.choices(letters, k=rng.randint(2, most))).encode()
        found[token] = None
    return [*found]


@pytest.mark.parametrize("seed", range(12))
def test_pieces_of_every_length(seed):
    rng = random.Random(seed)
    letters = rng.choice(["ab", "abc", "abcdefgh", "aé中"])
    tokens = random_tokens(rng, letters, rng.choice([3, 6, 12]), rng.choice([3, 6, 40]))
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED))
    for length in [*range(1, 70), 96, 97, 130, 500, 3000]:
        text = "".join(rng.choices(letters, k=length))
        assert encoder.encode_string(text).tolist() == merged(text.encode(), tokens), text


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_vocabulary(data):
    tokens = data.draw(
        st.lists(st.binary(min_size=2, max_size=5).filter(bytes.isalpha), unique=True, max_size=9)
        | st.lists(st.text("ab", min_size=2, max_size=9).map(str.encode), unique=True, max_size=9)
    )
    text = data.draw(st.text("abAB", max_size=150))
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED))
    assert encoder.encode_string(text).tolist() == merged(text.encode(), tokens)


def test_windows_that_would_go_far_back_are_left_to_the_heap():
    """Powers of two up to 8,192 letters: the last token of a window is always too early."""
    tokens = [b"a" * (1 << k) for k in range(1, 14)]
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED))
    for length in (4095, 4096, 8191, 8192, 20_001):
        expected = encode_pieces(
            Ragged(np.full(length, 0x61, np.uint8), np.array([0, length])),
            np.array([-1]),
            tables_of(tokens),
        )
        assert np.array_equal(encoder.encode_string("a" * length), expected.values)


def test_tokens_that_their_bytes_do_not_come_to_are_left_out():
    """``abcd`` would be ``ab`` and ``cd``, but ``bc`` merges before them."""
    tables = tables_of([b"bc", b"ab", b"cd", b"abcd", b"abc"])
    packed = pack_merges(tables.pairs, tables.strings, tables.byte_ids, -1)
    assert packed.ids[BYTES:-1].tolist() == [256, 257, 258, 259, 260]
    tables = tables_of([b"bc", b"ab", b"cd", b"abcd"])
    packed = pack_merges(tables.pairs, tables.strings, tables.byte_ids, -1)
    assert packed.ids[BYTES:-1].tolist() == [256, 257, 258]


def test_a_token_for_a_whole_piece_that_merging_does_not_reach():
    tokens = [b"bc", b"xabcd"]
    for whole, expected in ((True, [257]), (False, [120, 97, 256, 100])):
        encoder = build_byte_encoder(tables_of(tokens, whole), int(PREFIXED))
        assert encoder.encode_string("xabcd").tolist() == expected
    long = b"q" * 40
    for whole, expected in ((True, [256]), (False, [113] * 40)):
        encoder = build_byte_encoder(tables_of([long], whole), int(PREFIXED))
        assert encoder.encode_string(long.decode()).tolist() == expected


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_huge_piece_is_the_same_from_the_cache(size):
    rng = random.Random(size)
    tokens = random_tokens(rng, "abc", 8)
    encoder = build_byte_encoder(tables_of(tokens), int(PREFIXED), 1 << 18)
    text = "".join(rng.choices("abc", k=size))
    first = encoder.encode_string(text)
    assert np.array_equal(encoder.encode_string(text), first)
    assert b"".join(([bytes([b]) for b in range(256)] + tokens)[i] for i in first) == text.encode()


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_equal_shares(parts):
    sizes = np.array([5, 1, 1, 100, 1, 1, 1])
    shares = equal_shares(np.cumsum(sizes), parts)
    assert shares[0] == 0
    assert shares[-1] == sizes.size
    assert (np.diff(shares) > 0).all()
    assert len(shares) <= parts + 1
