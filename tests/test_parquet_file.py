"""Results as files: Parquet and lines of JSON hold the same, whole or not at all."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fake_llm import FakeLLM

from numbatch import InputError, OutputError
from numbatch.batching import parquet_file
from numbatch.batching.batch_result import BatchResponse, BatchResult, BatchStats
from numbatch.batching.commands import cli
from numbatch.batching.ids import IdMap
from numbatch.batching.results import FailedResult, GenerationResult, ScoreResult

PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_llm.py"))]


def batch():
    """Return a result of each kind, with what is awkward in each."""
    results = [
        GenerationResult(
            id="a", prompt="p", prompt_token_ids=np.arange(3), text="é\u2028x",
            token_ids=np.array([5, 2**31]), logprobs=np.array([-0.1, np.nan], np.float32),
            finish_reason="stop", stop_reason=7, top_token_ids=np.array([[5, 6], [7, 8]]),
            top_logprobs=np.array([[-0.1, -2], [-3, -np.inf]], np.float32),
        ),
        FailedResult(2**70, "it broke"),
        ScoreResult(
            "c", "t", np.array([1, 2, 3]), np.array([np.nan, np.nan, -1.25], np.float32),
            np.array([False, False, True]), np.array([[-1], [-1], [3]]),
            np.array([[np.nan], [np.nan], [-0.5]], np.float32), np.array([np.nan, np.nan, 2.5]),
        ),
        ScoreResult(
            "\ud800", "t", np.array([1]), np.array([np.nan], np.float32), np.array([False]),
        ),
    ]  # fmt: skip
    responses = [BatchResponse(r.id, i, r, 1.0) for i, r in enumerate(results)]
    return BatchResult(responses, IdMap([r.id for r in results]), BatchStats.of(4, 1, 1.0, 9))


def test_every_kind_of_result_is_a_row(tmp_path):
    batch().to_parquet(tmp_path / "out.parquet")
    assert os.listdir(tmp_path) == ["out.parquet"]
    table = pq.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("logprobs").type) == "list<element: float>"
    a, b, c, d = table.to_pylist()
    assert (a["custom_id"], a["text"], a["stop_reason"]) == ("a", "é\u2028x", "7")
    assert a["token_ids"] == [5, 2**31]
    assert a["logprobs"] == [float(np.float32(-0.1)), None]
    assert a["top_logprobs"][1] == [
        {"token_id": 7, "logprob": -3.0},
        {"token_id": 8, "logprob": None},
    ]
    assert (a["prompt_tokens"], a["completion_tokens"], a["error"]) == (3, 2, None)
    assert (b["custom_id"], b["error"], b["text"]) == (str(2**70), "it broke", None)
    assert (c["sum_logprob"], c["tokens_scored"], c["is_greedy"]) == (-1.25, 1, True)
    assert c["top_logprobs"] == [None, None, [{"token_id": 3, "logprob": -0.5}]]
    assert c["scores"] == [None, None, 2.5]
    assert c["perplexity"] == pytest.approx(math.exp(1.25))
    assert (d["custom_id"], d["tokens_scored"], d["is_greedy"]) == ("?", 0, None)


def test_lines_of_json_hold_the_same(tmp_path):
    batch().to_jsonl(tmp_path / "out.jsonl")
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["custom_id"] for record in records] == ["a", 2**70, "c", "?"]
    assert records[0]["top_logprobs"][0][1] == {"token_id": 6, "logprob": -2.0}
    assert records[1] == {"custom_id": 2**70, "error": "it broke"}
    with pytest.raises(OutputError, match=r"cannot write .*: No such file or directory"):
        batch().to_jsonl(tmp_path / "none" / "out.jsonl")


def test_row_groups_bound_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "GROUP_ROWS", 3)
    with parquet_file.ParquetFile(tmp_path / "x.parquet") as file:
        for i in range(8):
            file.add({"custom_id": i})
    read = pq.ParquetFile(tmp_path / "x.parquet")
    assert read.num_row_groups == 3
    assert read.read(["custom_id"]).to_pydict() == {"custom_id": list("01234567")}


def write_one(path, meanwhile):
    with parquet_file.ParquetFile(path) as file:
        meanwhile(file)
        file.add({"custom_id": "a"})


def test_half_a_file_is_never_there(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    path.write_text("older")
    with pytest.raises(ZeroDivisionError):
        write_one(path, lambda file: 1 / 0)
    with pytest.raises(InputError, match=r"cannot write .*x\.parquet: No such file or directory$"):
        write_one(tmp_path / "none" / "x.parquet", id)
    monkeypatch.setattr(parquet_file, "GROUP_ROWS", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    def fill(file):
        file._writer.write_table = full

    with pytest.raises(OutputError, match="No space left on device"):
        write_one(path, fill)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["x.parquet"]


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: .*numbatch\[arrow\]"):
        batch().to_parquet(tmp_path / "x.parquet")


LINES = [
    {"custom_id": "a", "prompt": "hello", "max_tokens": 2},
    {"custom_id": 2, "text": "some text"},
    {"custom_id": "bad", "prompt": "x", "temperature": -1},
    {"custom_id": "o", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hi"}},
    {"custom_id": "o2", "method": "POST", "url": "/v1/completions", "body": {"prompt": 5}},
]


def run_lines(folder, lines, output="out.parquet", *more):
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    names = [str(folder / "in.jsonl"), "-o", str(folder / output), *more]
    return CliRunner().invoke(cli.main, ["run", "-q", *names])


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(cli, "load_llm", lambda model, **options: FakeLLM())


@pytest.mark.usefixtures("fake")
def test_the_command_line_writes_parquet(tmp_path):
    assert run_lines(tmp_path, LINES).exit_code == 1
    rows = {row["custom_id"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert rows.keys() == {"a", "2", "bad", "o", "o2"}
    assert rows["a"]["text"] == "oo"
    assert rows["2"]["tokens_scored"] == 8
    assert "temperature" in rows["bad"]["error"]
    assert rows["bad"]["line"] == 3
    body = json.loads(rows["o"]["response"])["body"]
    assert body["object"] == "text_completion"
    assert "line 5" in rows["o2"]["error"]
    again = run_lines(tmp_path, LINES)
    assert again.exit_code == 2
    assert "give --overwrite to replace it" in again.output
    assert run_lines(tmp_path, LINES[:2], "out.parquet", "--overwrite").exit_code == 0
    assert len(pq.read_table(tmp_path / "out.parquet")) == 2
    for name in ("none/out.parquet", "folder.parquet"):
        (tmp_path / "folder.parquet").mkdir(exist_ok=True)
        assert run_lines(tmp_path, LINES, name).exit_code == 2


def test_a_model_that_cannot_be_loaded_leaves_the_older_file(tmp_path, monkeypatch):
    def load(model, **options):
        raise InputError("no such model")

    monkeypatch.setattr(cli, "load_llm", load)
    (tmp_path / "out.parquet").write_text("older")
    assert run_lines(tmp_path, LINES, "out.parquet", "--overwrite").exit_code == 2
    assert (tmp_path / "out.parquet").read_text() == "older"


def test_after_a_kill_the_journal_fills_the_whole_file(tmp_path):
    lines = [{"custom_id": f"r{i}", "prompt": f"nap {i}", "max_tokens": 2} for i in range(1500)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    names = ["in.jsonl", "-o", "out.parquet", "--journal", "journal", "-q"]
    process = subprocess.Popen([*PROGRAM, "run", *names], cwd=tmp_path)
    journal, end = tmp_path / "journal", time.monotonic() + 60
    while not journal.exists() or journal.stat().st_size < 5000:  # results are being written
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.parquet").exists()
    done = subprocess.run([*PROGRAM, "run", *names], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert "results were there already" in done.stderr
    ids = pq.read_table(tmp_path / "out.parquet", columns=["custom_id"]).to_pydict()["custom_id"]
    assert sorted(ids) == sorted(f"r{i}" for i in range(1500))
    assert set(os.listdir(tmp_path)) == {"in.jsonl", "journal", "out.parquet"}
