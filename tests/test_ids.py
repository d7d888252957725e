"""The map of ids: the same answers as a dict, for any text and any number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.batching import ids as module
from numbatch.batching.ids import IdMap, check_id
from numbatch.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=20)
IDS = st.one_of(TEXTS, st.integers(), st.integers(-3, 300).map(str), st.integers(-3, 300))


@settings(max_examples=200, deadline=None)
@given(st.lists(IDS, unique=True, max_size=60), st.lists(IDS, max_size=20), st.booleans())
def test_it_answers_as_a_dict(names, others, one_by_one):
    if one_by_one:
        ids = IdMap()
        for i, name in enumerate(names):
            assert ids.add(name) == i
    else:
        ids = IdMap(names)
    places = {name: i for i, name in enumerate(names)}
    queries = names + others
    expected = [places.get(name, -1) for name in queries]
    assert ids.index_of(queries).tolist() == expected
    assert [ids.get(name) for name in queries] == expected
    assert [name in ids for name in queries] == [place >= 0 for place in expected]
    assert list(ids) == names
    assert len(ids) == len(names)


@settings(max_examples=60, deadline=None)
@given(st.lists(IDS, unique=True, min_size=1, max_size=40), st.lists(IDS, max_size=9), st.data())
def test_a_repeated_id_is_refused_with_both_places_and_nothing_is_added(names, before, data):
    before = [name for name in dict.fromkeys(before) if name not in names]
    ids = IdMap(before)
    known = before + names
    again = data.draw(st.sampled_from(known))
    with pytest.raises(InputError, match="should be unique") as error:
        ids.extend([*names, again])
    assert f"{again!r} stands at {known.index(again)} and at {len(known)}," in str(error.value)
    assert list(ids) == before
    ids.extend(names)
    assert ids.index_of(known).tolist() == list(range(len(known)))


def test_a_million_ids_and_a_million_times_the_same():
    names = [f"request-{i}" for i in range(1_000_000)]
    ids = IdMap(names)
    order = np.random.default_rng(0).permutation(len(names))
    assert np.array_equal(ids.index_of([names[i] for i in order]), order)
    own = sum(map(len, names))
    assert (ids.nbytes - own) / len(names) <= 24
    with pytest.raises(InputError, match="'same' stands at 0 and at 1, should be unique"):
        IdMap(["same"] * 1_000_000)


def test_ids_that_were_added_singly_take_little_memory_too():
    ids = IdMap()
    for size in range(1, 3000):
        ids.add(size)
        if size > 200:
            assert (ids.nbytes - 8 * size) / size <= 24


def test_numbers_come_from_arrays_too():
    values = np.array([5, -1, 2**62, 0], np.int64)
    ids = IdMap(values)
    assert list(ids) == [5, -1, 2**62, 0]
    assert ids.index_of(values[::-1]).tolist() == [3, 2, 1, 0]
    assert ids.index_of(np.array([5, 7], np.uint8)).tolist() == [0, -1]
    assert ids.index_of(np.array([5, 2**62], np.uint64)).tolist() == [0, 2]
    assert ids[np.int32(5)] == 0
    assert "5" not in ids
    assert True not in IdMap([1])
    assert ids.index_of([]).tolist() == []


def test_numbers_of_any_size_differ_from_each_other():
    names = [2**63, -(2**63), -(2**63) - 1, 2**64, 2**200, -(2**200), 255, -1, 2**64 - 1]
    ids = IdMap(names)
    assert list(ids) == names
    assert [ids[name] for name in names] == list(range(len(names)))


@pytest.mark.parametrize("name", ["", None, 1.5, True, b"x", ("a",), [1], float("nan")])
def test_what_is_no_id_is_refused(name):
    with pytest.raises(InputError, match="should be a non-empty text or a whole number"):
        check_id(name)
    with pytest.raises(InputError, match="id 1 is "):
        IdMap(["a", name])
    ids = IdMap(["a"])
    with pytest.raises(InputError, match="id 1 is "):
        ids.add(name)
    assert name not in ids


def test_errors_say_what_is_wrong():
    ids = IdMap(["a"])
    with pytest.raises(InputError, match="there is no id 'b'"):
        ids["b"]
    with pytest.raises(InputError, match="there is no place 1 among 1 ids"):
        ids.id_at(1)
    with pytest.raises(InputError, match="ids are 'abc', should be a list of ids"):
        IdMap("abc")
    with pytest.raises(InputError, match="id 2 is ''"):
        IdMap(["a", "b", ""])


def test_texts_with_zero_bytes_and_lists_longer_than_a_chunk():
    names = [f"{i}\0" if i % 3 else f"\0{i}é" for i in range(5000)]
    ids = IdMap(names)
    assert list(ids) == names
    assert ids.index_of(names[::-1]).tolist() == list(range(4999, -1, -1))
    assert ids.index_of([*names, "x"])[-1] == -1
    with pytest.raises(InputError, match="id 5000 is ''"):
        ids.index_of([*names, ""])
    with pytest.raises(InputError, match="id 5000 is None"):
        ids.index_of([*names, None])


class Name(str):
    """A text of a type of its own."""

    __slots__ = ()


@pytest.fixture(params=["in place", "by pages", "joined"])
def look_ups(request, monkeypatch):
    """Read strings where they lie, also by pages, or as a Python does that keeps them elsewhere."""
    strings, texts = module._look_ups()
    if request.param != "joined" and strings is None:
        pytest.skip("it is not known how this Python keeps its strings")
    if request.param == "by pages":
        monkeypatch.setattr(module, "MANY", 1)
        monkeypatch.setattr(module, "MOST", 2000)
    chosen = strings if request.param != "joined" else None
    monkeypatch.setattr(module, "_look_ups", lambda: (chosen, texts))


def test_lists_of_texts_of_all_lengths(look_ups):
    names = [c * size for c in "ab" for size in [*range(1, 200), 4095, 4096, 100_000, 1 << 20]]
    order = np.random.default_rng(0).permutation(len(names))
    ids = IdMap(names)
    shuffled = [names[i] for i in order]
    assert np.array_equal(ids.index_of(shuffled), order)
    assert np.array_equal(ids.index_of([*shuffled, "x", *names[:9]])[: len(names)], order)
    assert ids.index_of(["x", "a" * 201, "aaab"]).tolist() == [-1, -1, -1]


def test_lists_of_other_things_among_many_texts(look_ups):
    names = [f"{i}" for i in range(3000)]
    ids = IdMap([*names, 7, "é", "\ud800", "\0", 2**100])
    others = [7, "é", "\ud800", "\0", 2**100, Name("9"), np.int64(7), Name("x"), 8, "ü", "\0\0"]
    expected = [3000, 3001, 3002, 3003, 3004, 9, 3000, -1, -1, -1, -1]
    for place in (0, 511, 512, 1030, 3000):
        for other, at in zip(others, expected, strict=True):
            found = ids.index_of([*names[:place], other, *names[place:]]).tolist()
            assert found == [*range(place), at, *range(place, 3000)]
        for bad in ("", None, 1.5, b"1"):
            with pytest.raises(InputError, match=f"id {place} is "):
                ids.index_of([*names[:place], bad, *names[place:]])


def test_strewn_texts_with_others_among_them(look_ups):
    names = [f"{i}" for i in np.random.default_rng(0).permutation(9000)]
    ids = IdMap([*names, "é", 7])
    order = np.random.default_rng(1).permutation(len(names))
    strewn = [names[i] for i in order]
    assert np.array_equal(ids.index_of(strewn), order)
    for place in (0, 1, 1999, 2000, 8999):
        found = ids.index_of([*strewn[:place], "é", "absent", 7, *strewn[place:]])
        expected = [*order[:place], 9000, -1, 9001, *order[place:]]
        assert found.tolist() == expected
        with pytest.raises(InputError, match=f"id {place} is ''"):
            ids.index_of([*strewn[:place], "", *strewn[place:]])


def test_a_list_that_shrinks_meanwhile(look_ups):
    class Shrinks(list):
        def __len__(self):
            return super().__len__() + 3000

    with pytest.raises(InputError, match="the list of ids shrank to 3010 while it was looked up"):
        IdMap(["a"]).index_of(Shrinks(["a"] * 10))


def test_absent_ids_are_not_taken_for_those_that_share_their_tags():
    """Of so many, a few have the 24 bits of their hash that a slot of their group has."""
    ids = IdMap(np.arange(100_000))
    assert (ids.index_of(np.arange(100_000, 8_000_000)) == -1).all()


def test_look_ups_follow_the_arrays_where_they_go():
    ids = IdMap()
    for i in range(3000):
        assert ids.get(f"{i}") == -1
        ids.add(f"{i}")
        assert ids.get(f"{i}") == i
        assert ids.get("0") == 0
    with pytest.raises(InputError, match="'7' stands at 7 and at 3001"):
        ids.extend(["new", "7"])
    assert ids.get("7") == 7
    assert ids.get("new") == -1
