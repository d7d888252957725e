"""Texts from files, their scores, and how they are shown."""

import io
import json
import math

import pytest
from fake_llm import FakeLLM

from numbatch.batching.commands.line_writer import LineWriter
from numbatch.batching.commands.score_report import (
    Score,
    read_texts,
    score_texts,
    write_json,
    write_table,
)
from numbatch.errors import InputError


def shown(write, names, texts, **options):
    stream = io.BytesIO()
    llm = FakeLLM()
    results = score_texts(llm, list(zip(names, texts, strict=True)))
    write(LineWriter(stream, "test"), names, results, llm.tokenizer, **options)
    return stream.getvalue().decode().splitlines()


def test_a_file_is_one_text_or_one_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\n\n  \ntwö\r\nthree".encode())
    assert read_texts([str(path)], lines=False) == [(str(path), "one\n\n  \ntwö\r\nthree")]
    assert read_texts([str(path)], lines=True) == [
        (f"{path}:1", "one"),
        (f"{path}:4", "twö"),
        (f"{path}:5", "three"),
    ]


@pytest.mark.parametrize(
    ("content", "lines", "said"),
    [
        (b"", False, "is empty"),
        (b" \n\n", True, "is empty"),
        (b"ab\xff", False, "is not valid UTF-8: byte 0xff at 2"),
        (None, False, "No such file"),
    ],
)
def test_a_file_without_a_text_is_refused_by_name(tmp_path, content, lines, said):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_texts([str(path)], lines=lines)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_scores_stand_in_input_order():
    texts = [(f"t{i}", "a" * (i + 2)) for i in range(5)]
    results = score_texts(FakeLLM(), texts)
    assert [result.tokens_scored for result in results] == [1, 2, 3, 4, 5]


def test_a_text_longer_than_the_context_is_refused_before_any_is_run():
    llm = FakeLLM()
    with pytest.raises(InputError, match="b has 51 tokens, more than the context of 50"):
        score_texts(llm, [("a", "x"), ("b", "x" * 51)])
    assert llm.engine.started == []


def test_perplexity_and_bits_per_byte():
    score = Score("a", tokens_scored=4, sum_logprob=-8.0, bytes_scored=16)
    assert score.perplexity == pytest.approx(math.e**2)
    assert score.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert math.isnan(Score("a", 0, 0.0, 0).perplexity)
    assert Score("a", 0, 0.0, 0).json()["bits_per_byte"] is None


def test_the_table_is_aligned_and_ends_with_all_texts():
    assert shown(write_table, ["a", "longer"], ["abc", "abcde"], tokens=False) == [
        "text       tokens scored  perplexity  log-probability  bits per byte",
        "a                      2      1.6487          -1.0000         0.7213",
        "longer                 4      1.6487          -2.0000         0.7213",
        "all texts              6      1.6487          -3.0000         0.7213",
    ]
    assert len(shown(write_table, ["a"], ["abc"], tokens=False)) == 2


def test_tokens_are_listed_before_the_table():
    assert shown(write_table, ["a"], ["x\n"], tokens=True)[:4] == [
        "==> a <==",
        "         -  'x'",
        "   -0.5000  '\\n'",
        "",
    ]


def test_json_lines():
    one, two, both = map(json.loads, shown(write_json, ["a", "b"], ["abc", "x"], tokens=False))
    assert one == {
        "text": "a",
        "tokens_scored": 2,
        "perplexity": 1.648721271,
        "sum_logprob": -1.0,
        "bits_per_byte": 0.7213475204,
    }
    assert (two["tokens_scored"], two["perplexity"]) == (0, None)
    assert both == one | {"text": "all texts"}
    (alone,) = map(json.loads, shown(write_json, ["a"], ["ab"], tokens=True))
    assert alone["tokens"] == [
        {"token_id": 97, "token": "a", "logprob": None},
        {"token_id": 98, "token": "b", "logprob": -0.5},
    ]
