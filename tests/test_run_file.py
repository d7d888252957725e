"""The run of a file: every line answered once, errors where they belong, nothing lost."""

import io
import json
import math

import pytest
from fake_llm import FakeLLM

from numbatch.batching.commands.line_writer import LineWriter
from numbatch.batching.commands.run_file import FileRun, Summary, count_lines
from numbatch.errors import InputError, OutputError


class Lines(io.BytesIO):
    """Counts the lines that were read."""

    taken = 0

    def __next__(self):
        line = super().__next__()
        self.taken += 1
        return line


def serve(*records, llm=None):
    """Serve lines; return the results by line order of the output, and the summary."""
    lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]
    output = io.BytesIO()
    source = Lines(b"\n".join(lines))
    summary = FileRun(llm or FakeLLM(), source, LineWriter(output, "test"), "tiny").run()
    return [json.loads(line) for line in output.getvalue().splitlines()], summary


def test_results_come_as_they_finish_and_by_id():
    results, summary = serve(
        {"custom_id": "a", "prompt": "hello", "max_tokens": 2},
        {"custom_id": 2, "text": "some text"},
        {"messages": [{"role": "user", "content": "x"}]},
        {"custom_id": "d", "context": "abc", "continuation": "de"},
    )
    assert [result["custom_id"] for result in results] == [2, "a", "d", "line-3"]
    by_id = {result["custom_id"]: result for result in results}
    assert by_id["a"]["text"] == "oo"
    assert by_id[2]["tokens_scored"] == 8
    assert "is_greedy" not in by_id[2]
    assert by_id["d"]["logprobs"] == [None, None, None, -0.5, -0.5]
    assert by_id["d"]["is_greedy"] is True
    assert by_id["line-3"]["usage"]["prompt_tokens"] == len("<user>x")
    assert (summary.succeeded, summary.failed) == (4, 0)
    assert (summary.prompt_tokens, summary.generated_tokens) == (12, 5)
    assert (summary.scored_tokens, summary.text_tokens) == (10, 8)
    assert summary.perplexity == pytest.approx(math.exp(0.5))


def test_a_bad_line_is_answered_with_its_number_and_disturbs_no_other():
    results, summary = serve(
        {"custom_id": "a", "prompt": "x"},
        b"{not json",
        b"",
        {"custom_id": "long", "prompt": "x" * 60},
        {"custom_id": "b", "prompt": "x", "temperature": -1},
        b'{"custom_id": "c", "prompt": "\xff"}',
        {"custom_id": "d", "prompt": "y"},
    )
    failed = {result["line"]: result for result in results if "error" in result}
    assert {line: result["custom_id"] for line, result in failed.items()} == {
        2: "line-2",
        4: "long",
        5: "b",
        6: "line-6",
    }
    for line, result in failed.items():
        assert set(result) == {"custom_id", "error", "line"}
        assert result["error"].startswith(f"line {line}: ")
    assert "not valid JSON" in failed[2]["error"]
    assert "temperature is -1" in failed[5]["error"]
    assert {r["custom_id"] for r in results if "error" not in r} == {"a", "d"}
    assert (summary.succeeded, summary.failed) == (2, 4)


def test_the_first_of_equal_ids_keeps_it():
    results, summary = serve(
        {"custom_id": "a", "prompt": "x", "bad": 1},
        {"custom_id": "b", "prompt": "x"},
        {"custom_id": "a", "prompt": "y"},
        {"custom_id": "b", "text": "y"},
        {"custom_id": "line-6", "prompt": "z"},
        {"prompt": "z"},
        {"custom_id": "line-8", "prompt": "z"},
        b"no json",
    )
    assert [r["custom_id"] for r in results].count("a") == 1
    nameless = {r["line"]: r["error"] for r in results if r["custom_id"] is None}
    assert nameless[3] == "line 3: custom_id 'a' is taken by line 1, should be given once only"
    assert "'b' is taken by line 2" in nameless[4]
    assert "'line-6' is taken by line 5" in nameless[6]
    assert "not valid JSON" in nameless[8]
    assert sorted(r["custom_id"] for r in results if "error" not in r) == ["b", "line-6", "line-8"]
    assert (summary.succeeded, summary.failed) == (3, 5)


def test_lines_of_openais_format_are_answered_in_it():
    call = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hi"}}
    results, _ = serve(
        call,
        call | {"custom_id": "b", "body": {"prompt": "x" * 60}},
        call | {"custom_id": "c", "body": {"prompt": "x", "n": 2}},
        call,
        {"custom_id": "own", "prompt": "x"},
    )
    answers = {(r["custom_id"], r["id"]): r for r in results if "id" in r}
    body = answers["a", "batch_req_1"]["response"]["body"]
    assert (body["model"], body["choices"][0]["text"]) == ("tiny", "iii")
    assert "60 tokens" in answers["b", "batch_req_2"]["error"]["message"]
    assert answers["c", "batch_req_3"]["error"]["line"] == 3
    assert answers["c", "batch_req_3"]["response"] is None
    assert "taken by line 1" in answers[None, "batch_req_4"]["error"]["message"]
    assert len(results) == 5


def test_lines_are_read_only_as_they_are_served():
    llm = FakeLLM(at_once=2)
    source = Lines(b"\n".join([b'{"prompt": "x"}'] * 100))

    class Counting(LineWriter):
        def write(self, line):
            super().write(line)
            assert source.taken <= self.lines + 3

    assert FileRun(llm, source, Counting(io.BytesIO(), "test"), "tiny").run().succeeded == 100


def test_what_was_finished_is_counted_when_the_disk_is_full():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 500:
                raise OSError(28, "No space left on device")
            return super().write(data)

    output = Full()
    writer = LineWriter(output, "disk")
    run = FileRun(FakeLLM(), io.BytesIO(b'{"prompt": "x"}\n' * 50), writer, "tiny")
    with pytest.raises(OutputError, match="No space left on device; 3 results are whole"):
        run.run()
    assert run.summary.succeeded == writer.lines == len(output.getvalue().splitlines()) == 3


def test_an_input_that_fails_while_it_is_read_is_told():
    class Broken(io.BytesIO):
        def __next__(self):
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match="cannot read the input: Input/output error"):
        FileRun(FakeLLM(), Broken(), LineWriter(io.BytesIO(), "test"), "tiny").run()


def test_no_lines_give_no_results():
    results, summary = serve(b"\n  \n")
    assert results == []
    assert (summary.succeeded, summary.failed) == (0, 0)
    assert math.isnan(summary.perplexity)


def test_lines_of_a_regular_file_are_counted_from_where_it_stands(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"a\n\n \nb\nc")
    with path.open("rb") as source:
        assert count_lines(source) == 3
        assert source.read() == b"a\n\n \nb\nc"
    assert count_lines(io.BytesIO(b"a\n")) is None


def test_the_summary_says_what_was_done_and_where_it_is():
    summary = Summary(2, 1, 10, 20, 30, 30, -60.0, 2.0)
    assert summary.report(LineWriter(io.BytesIO(), "out.jsonl")).splitlines() == [
        "Requests    2 succeeded, 1 failed",
        "Tokens      10 of prompts, 20 generated, 30 scored",
        "Time        2.0 s, 30 tokens/s",
        "Perplexity  7.3891 over 30 tokens of text",
        "Results     0 in out.jsonl",
    ]
    assert "Perplexity" not in Summary().report(LineWriter(io.BytesIO(), "-"))
