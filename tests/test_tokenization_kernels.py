import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.detokenize import bytes_of_tokens, pad_tokens
from numbatch.kernels.tokenization.literals import find_literals, longest_by_first_byte
from numbatch.kernels.tokenization.merge import MergeTables, encode_pieces
from numbatch.kernels.tokenization.pairs import pairs_of_tokens
from numbatch.kernels.tokenization.prefixed_strings import read_prefixed
from numbatch.kernels.tokenization.tables import build_pair_table, build_string_table, rows_of

ALPHABET = b"abc"


def ragged(strings):
    return Ragged.from_rows([np.frombuffer(s, np.uint8) for s in strings], np.uint8)


def tables_of(tokens, ranks=None, **changes):
    """Tables that merge whatever two neighbours make a token, by rank (default: by id)."""
    strings, duplicate = build_string_table(ragged(tokens), np.arange(len(tokens)))
    assert duplicate == -1
    lefts, rights, whole = pairs_of_tokens(np.arange(len(tokens)), strings)
    ranks = np.arange(len(tokens)) if ranks is None else np.asarray(ranks)
    byte_ids = np.full(256, -1, np.int32)
    for index, token in enumerate(tokens):
        if len(token) == 1:
            byte_ids[token[0]] = index
    byte_ids.flags.writeable = False
    options = {
        "by_character": False,
        "whole_pieces": False,
        "unknown_id": -1,
        "fuse_unknown": False,
    } | changes
    return MergeTables(
        build_pair_table(lefts, rights, ranks[whole], whole), strings, byte_ids, **options
    )


def encode(piece, tables):
    return encode_pieces(ragged([piece]), np.array([-1]), tables).values.tolist()


def naive_merges(piece, tokens, ranks):
    """Merge the best neighbours, leftmost among equals, until none is left."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    rank_of = dict(zip(tokens, ranks, strict=True))
    while True:
        best = min(
            (
                (rank_of[a + b], i)
                for i, (a, b) in enumerate(itertools.pairwise(parts))
                if a + b in rank_of
            ),
            default=None,
        )
        if best is None:
            return [tokens.index(part) for part in parts]
        parts[best[1] : best[1] + 2] = [parts[best[1]] + parts[best[1] + 1]]


@settings(deadline=None)
@given(
    st.lists(st.text("abc", min_size=2, max_size=5), max_size=12, unique=True),
    st.text("abc", max_size=40),
    st.booleans(),
    st.data(),
)
def test_merging_equals_the_definition(longer, text, equal_ranks, data):
    tokens = [bytes([c]) for c in ALPHABET] + [t.encode() for t in longer]
    choice = st.integers(0, 3) if equal_ranks else st.integers(0, 10**6)
    ranks = data.draw(st.lists(choice, min_size=len(tokens), max_size=len(tokens)))
    piece = text.encode()
    assert encode(piece, tables_of(tokens, ranks)) == naive_merges(piece, tokens, ranks)


def test_each_piece_stays_by_itself_and_fixed_ids_stand_between():
    tables = tables_of([b"a", b"b", b"ab"])
    pieces = ragged([b"a", b"b", b"", b"ab", b"abab"])
    out = encode_pieces(pieces, np.array([-1, -1, 7, -1, -1]), tables)
    assert [row.tolist() for row in out] == [[0], [1], [7], [2], [2, 2]]
    assert out.values.dtype == np.uint32


def test_no_pieces():
    out = encode_pieces(ragged([]), np.empty(0, np.int32), tables_of([b"a"]))
    assert len(out) == 0


def test_a_whole_piece_that_is_a_token_is_that_token():
    tokens = [b"a", b"b", b"c", b"ab", b"abc", b"bc"]
    pairs = build_pair_table([0], [1], [0], [3])  # abc cannot be reached by merges
    tables = tables_of(tokens)._replace(pairs=pairs)
    assert encode(b"abc", tables) == [3, 2]
    assert encode(b"abc", tables._replace(whole_pieces=True)) == [4]


def test_characters_then_bytes_then_the_unknown_token():
    tokens = ["é".encode(), b"a", b"\xe4", b"\xbd", b"\xa0", b"<unk>"]
    strings, _ = build_string_table(ragged(tokens), np.arange(len(tokens)))
    byte_ids = np.full(256, -1, np.int32)
    byte_ids[[0xE4, 0xBD, 0xA0]] = 2, 3, 4
    byte_ids.flags.writeable = False
    empty = build_pair_table([], [], [], [])
    tables = MergeTables(empty, strings, byte_ids, True, False, 5, False)
    assert encode("é你a".encode(), tables) == [0, 2, 3, 4, 1]
    assert encode("好好aß".encode(), tables) == [5, 5, 1, 5]
    assert encode("好好aß".encode(), tables._replace(fuse_unknown=True)) == [5, 1, 5]
    assert encode("好aß".encode(), tables._replace(unknown_id=-1)) == [1]


@pytest.mark.parametrize("by_character", [False, True])
def test_a_million_bytes_in_one_piece(by_character):
    # An algorithm that is quadratic in the piece would take hours.
    tokens = [b"a", b"b"] + [b"a" * 2**k for k in range(1, 8)]
    tables = tables_of(tokens, by_character=by_character)
    assert encode(b"a" * 2**20, tables) == [8] * 2**13
    assert encode(b"ab" * 2**19, tables) == [0, 1] * 2**19


def test_ids_past_16_bits():
    tokens = [b"%06d" % i for i in range(70_000)] + [b"x", b"y", b"xy"]
    assert encode(b"xyx", tables_of(tokens)) == [70_002, 70_000]


def test_pairs_of_tokens_are_all_splits():
    tokens = [b"a", b"b", b"ab", b"aba", b"ba", b"zz"]
    strings, _ = build_string_table(ragged(tokens), np.arange(len(tokens)))
    lefts, rights, whole = pairs_of_tokens(np.arange(len(tokens)), strings)
    found = {tuple(row) for row in np.stack([lefts, rights, whole], 1).tolist()}
    expected = {
        (tokens.index(t[:i]), tokens.index(t[i:]), tokens.index(t))
        for t in tokens
        for i in range(1, len(t))
        if t[:i] in tokens and t[i:] in tokens
    }
    assert found == expected == {(0, 1, 2), (0, 4, 3), (2, 0, 3), (1, 0, 4)}


def test_the_last_of_equal_pairs_counts():
    tables = tables_of([b"a", b"b", b"ab", b"zz"])
    tables = tables._replace(pairs=build_pair_table([0, 0], [1, 1], [0, 1], [2, 3]))
    assert encode(b"ab", tables) == [3]


def test_a_duplicate_string_is_named():
    strings = ragged([b"x", b"", b"yy", b"x"])
    assert build_string_table(strings, np.arange(4))[1] == 3
    assert build_string_table(strings, np.arange(3))[1] == -1


@settings(deadline=None)
@given(
    st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=6, unique=True),
    st.text("ab<x", max_size=30),
)
def test_literals_are_leftmost_and_longest(literals, text):
    table, _ = build_string_table(ragged([w.encode() for w in literals]), np.arange(len(literals)))
    starts, rows = find_literals(
        np.frombuffer(text.encode(), np.uint8), table, longest_by_first_byte(table)
    )
    expected, i = [], 0
    while i < len(text):
        here = [w for w in literals if text.startswith(w, i)]
        if here:
            best = max(here, key=len)
            expected.append((i, literals.index(best)))
        i += len(best) if here else 1
    assert list(zip(starts.tolist(), rows.tolist(), strict=True)) == expected


def test_more_literals_than_there_is_room_for_at_first():
    table, _ = build_string_table(ragged([b"a"]), np.arange(1))
    starts, rows = find_literals(
        np.full(1000, ord("a"), np.uint8), table, longest_by_first_byte(table)
    )
    assert starts.tolist() == list(range(1000))
    assert not rows.any()


def test_bytes_of_tokens():
    tokens = pad_tokens(ragged([b"a", b"", b"xyz", bytes(range(100))]))
    out = bytes_of_tokens(np.array([2, 0, 3, 1, 2]), tokens)
    assert out.tobytes() == b"xyza" + bytes(range(100)) + b"xyz"
    assert bytes_of_tokens(np.array([], np.uint32), tokens).size == 0


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="id 1 at 1 is not one of 1 tokens"):
        bytes_of_tokens(np.array([0, 1]), pad_tokens(ragged([b"a"])))
    with pytest.raises(ValueError, match="fixed is of shape"):
        encode_pieces(ragged([b"a"]), np.array([-1, -1]), tables_of([b"a"]))
    with pytest.raises(ValueError, match="rows run from 0 to 3"):
        build_string_table(ragged([b"a"]), np.array([0, 3]))
    with pytest.raises(ValueError, match="uint8"):
        build_string_table(Ragged.from_rows([[1]], np.int64), np.array([0]))
    with pytest.raises(ValueError, match="differ in length"):
        build_pair_table([0, 1], [0], [0], [0])
    with pytest.raises(ValueError, match="negative"):
        build_pair_table([0], [-1], [0], [0])
    strings, _ = build_string_table(ragged([b"a"]), np.arange(1))
    with pytest.raises(ValueError, match="past the table's rows"):
        pairs_of_tokens(np.array([1]), strings)


@given(st.lists(st.binary(max_size=5)), st.binary(max_size=3), st.binary(max_size=3))
def test_strings_behind_their_lengths(strings, before, after):
    prefixed = [len(string).to_bytes(8, "little") + string for string in strings]
    data = np.frombuffer(before + b"".join(prefixed) + after, np.uint8)
    found, stop = read_prefixed(data, len(before), len(strings))
    assert [row.tobytes() for row in found] == strings
    assert stop == data.size - len(after)
    for size in range(len(before), stop):
        with pytest.raises(IndexError) as error:
            read_prefixed(data[:size], len(before), len(strings))
        assert size < error.value.args[0] <= stop


@pytest.mark.parametrize("length", [7, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_string_longer_than_the_data(length):
    data = np.frombuffer(bytes(8) + length.to_bytes(8, "little") + b"abcdef", np.uint8)
    with pytest.raises(IndexError) as error:
        read_prefixed(data, 0, 2)
    assert error.value.args[0] == 16 + length


@given(st.sets(st.binary(max_size=3)), st.binary(max_size=12))
def test_rows_of_strings(strings, text):
    rows = sorted(strings)
    table, _ = build_string_table(ragged(rows), np.arange(len(rows)))
    starts, stops = np.array(
        [(a, b) for a in range(len(text) + 1) for b in range(a, len(text) + 1)], np.int64
    ).T
    found = rows_of(np.frombuffer(text, np.uint8), starts.copy(), stops.copy(), table)
    wanted = [
        rows.index(text[a:b]) if text[a:b] in strings else -1
        for a, b in zip(starts, stops, strict=True)
    ]
    assert found.tolist() == wanted
