"""Lines of JSON: what is read, what is refused and why, and what is written."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbatch.batching.commands.jsonl import (
    LineIds,
    check_unicode,
    numbered_lines,
    parse_line,
    refuse_unknown,
    shown,
)
from numbatch.errors import InputError


def test_blank_lines_are_counted_and_left_out():
    lines = [b'{"a": 1}\n', b"\n", b"  \t\r\n", b'{"b": 2}\r\n', b'{"c": 3}']
    assert [number for number, _ in numbered_lines(lines)] == [1, 4, 5]
    assert list(numbered_lines([])) == []


def test_a_byte_order_mark_is_taken_off_the_first_line_only():
    mark = "\ufeff".encode()
    first, second = numbered_lines([mark + b'{"a": 1}\n', mark + b'{"b": 2}\n'])
    assert parse_line(first[1]) == {"a": 1}
    with pytest.raises(InputError, match="BOM"):
        parse_line(second[1])
    assert list(numbered_lines([mark + b"\n"])) == []


def test_null_means_left_out():
    assert parse_line(b'{"prompt": "a", "seed": null, "stop": [null]}') == {
        "prompt": "a",
        "stop": [None],
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"prompt": "\xff"}', "not valid UTF-8: byte 0xff at place 12"),
        (b'{"prompt": "a"', "not valid JSON: Expecting ',' delimiter"),
        (b"prompt: a", "not valid JSON"),
        (b'{"temperature": NaN}', "NaN is no JSON number"),
        (b'{"temperature": -Infinity}', "-Infinity is no JSON number"),
        (b'{"top_k": 9223372036854775808}', "9223372036854775808 has more than 64 bits"),
        (b'{"top_k": ' + b"9" * 5000 + b"}", "has more than 64 bits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'["prompt", "a"]', "is a JSON array, should be an object"),
        (b'"prompt"', "is a JSON string"),
        (b"3.5", "is a JSON number"),
        (b"true", "is a JSON boolean"),
        (b"null", "is a JSON null"),
    ],
)
def test_what_is_no_object_is_refused_by_its_fault(line, said):
    with pytest.raises(InputError) as error:
        parse_line(line)
    assert said in str(error.value)
    assert len(str(error.value)) < 200


@given(st.binary() | st.text('{}[]",:\\\\u0123ad. -e').map(str.encode))
def test_any_bytes_give_an_object_or_an_input_error(line):
    with contextlib.suppress(InputError):
        assert isinstance(parse_line(line), dict)


def test_whole_numbers_of_64_bits_are_kept_exactly():
    line = json.dumps({"a": -(2**63), "b": 2**63 - 1}).encode()
    assert parse_line(line) == {"a": -(2**63), "b": 2**63 - 1}


def test_ids_are_taken_once_and_made_where_absent():
    ids = LineIds()
    assert ids.claim({"custom_id": "a"}, 1) == "a"
    assert ids.claim({}, 2) == "line-2"
    assert ids.claim({"custom_id": 7}, 3) == 7
    assert ids.claim({"custom_id": "7"}, 4) == "7"
    with pytest.raises(InputError, match="'a' is taken by line 1"):
        ids.claim({"custom_id": "a"}, 5)
    with pytest.raises(InputError, match="'line-2' is taken by line 2"):
        ids.claim({"custom_id": "line-2"}, 6)
    assert ids.claim({"custom_id": "line-9"}, 7) == "line-9"
    assert ids.claim_default(8) == "line-8"
    assert ids.claim_default(9) is None


@pytest.mark.parametrize("name", ["", True, 1.5, [], {"a": 1}, "\ud800"])
def test_an_id_is_a_string_or_a_whole_number(name):
    with pytest.raises(InputError, match="custom_id"):
        LineIds().claim({"custom_id": name}, 1)


@pytest.mark.parametrize(
    "value", ["a\udc80", ["x", {"y": "\ud800"}], {"\udfff": 1}, [{"role": "\ud83d"}]]
)
def test_a_lone_surrogate_is_found_wherever_it_stands(value):
    with pytest.raises(InputError, match=r"'key' holds the lone surrogate \\ud"):
        check_unicode("key", value)


def test_a_pair_of_surrogates_is_a_character():
    record = parse_line(rb'{"prompt": "\ud83d\ude00"}')
    check_unicode("prompt", record["prompt"])
    assert record["prompt"] == "😀"


def test_an_unknown_key_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="'temprature'; the known ones are prompt, temperature"):
        refuse_unknown({"prompt": "a", "temprature": 1}, ("prompt", "temperature"))


def test_long_values_are_cut_in_messages():
    assert shown("ä") == '"ä"'
    assert len(shown("a" * 1000)) == 80
