"""The map of ids: the same answers as a dict, for any text and any number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
