"""The journal: what is finished is kept, whenever the run is killed, and never twice."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, write_huggingface

from numbatch import LLM, InputError, OutputError, Request, SamplingParams
from numbatch.batching.journal import Journal

IDENTITY = {"model": "a", "seed": "0"}


def written(path, records, **identity):
    with Journal(path, IDENTITY | identity) as journal:
        before = list(journal.records())
        for record in records:
            journal.append(record)
    return before


def test_records_come_back_in_order(tmp_path):
    path = tmp_path / "journal"
    assert written(path, [b"one", b"\0" * 1000]) == []
    assert written(path, [b"three"]) == [b"one", b"\0" * 1000]
    assert written(path, []) == [b"one", b"\0" * 1000, b"three"]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_journal_cut_anywhere_keeps_its_whole_records(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "journal"
    written(path, [])
    ends, records = [path.stat().st_size], [b"first", b"x" * 40, b"third record"]
    for record in records:
        written(path, [record])
        ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut] + b"\0" * data.draw(st.sampled_from([0, 0, 3, 50])))
    whole = max(0, sum(end <= cut for end in ends) - 1)
    with Journal(path, IDENTITY) as journal:
        kept = list(journal.records())
        journal.append(b"after")
    assert kept == records[:whole]
    assert written(path, []) == [*kept, b"after"]


def test_what_was_cut_off_is_said(tmp_path):
    path = tmp_path / "journal"
    written(path, [b"one", b"two"])
    path.write_bytes(path.read_bytes()[:-2])
    with Journal(path, IDENTITY) as journal:
        assert journal.dropped == 8 + 1
        assert list(journal.records()) == [b"one"]
    with Journal(path, IDENTITY) as journal:
        assert journal.dropped == 0


def test_groups_are_complete_after_a_while_or_many_records(tmp_path, monkeypatch):
    from numbatch.batching import journal as module

    path = tmp_path / "journal"
    with Journal(path, IDENTITY) as journal:
        size = path.stat().st_size
        assert not any(journal.append(b"x") for _ in range(module.GROUP_RECORDS - 1))
        assert path.stat().st_size == size
        assert journal.append(b"x")
        journal.flush()
        assert path.stat().st_size > size
        monkeypatch.setattr(module, "GROUP_SECONDS", -1.0)
        assert journal.append(b"x")


def test_a_journal_of_another_run_is_refused(tmp_path):
    path = tmp_path / "journal"
    written(path, [b"one"])
    with pytest.raises(InputError, match=r"begun with another model \(a, now b\)"):
        Journal(path, {"model": "b", "seed": "0"})
    with pytest.raises(InputError, match=r"begun with another input \(None, now c\)"):
        Journal(path, {**IDENTITY, "input": "c"})
    assert written(path, []) == [b"one"]


def test_files_that_are_no_sound_journal_are_refused(tmp_path):
    path = tmp_path / "journal"
    path.write_text("something else of mine")
    with pytest.raises(InputError, match="is no journal"):
        Journal(path, IDENTITY)
    assert path.read_text() == "something else of mine"
    for version in (12, 0):
        path.write_bytes(b"numbatch journal %d\nand what it holds" % version)
        with pytest.raises(InputError, match=f"has version {version}, this Numbatch reads 1"):
            Journal(path, IDENTITY)
    path.unlink()
    written(path, [b"one", b"two", b"three"])
    data = bytearray(path.read_bytes())
    data[data.index(b"two")] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged at byte \d+"):
        Journal(path, IDENTITY)
    with pytest.raises(InputError, match=r"cannot write the journal .*: No such file or directory"):
        Journal(tmp_path / "none" / "journal", IDENTITY)
    with pytest.raises(InputError, match=r"cannot write the journal .*: Is a directory"):
        Journal(tmp_path, IDENTITY)


def test_a_journal_has_one_user_at_a_time(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, IDENTITY), pytest.raises(InputError, match="is in use by another run"):
        Journal(path, IDENTITY)


def test_a_full_disk_is_said():
    with pytest.raises((InputError, OutputError), match=r"journal .*: No space left on device"):
        Journal("/dev/full", IDENTITY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return folder


def make_requests(count=12):
    rng = np.random.default_rng(1)
    params = SamplingParams(max_tokens=4, ignore_eos=True, logprobs=2)
    requests = [Request("bad", np.array([VOCABULARY]))]
    for i in range(count):
        tokens = rng.integers(0, VOCABULARY - 2, 6)
        requests.append(Request(f"r{i}" if i % 4 else i, tokens, params if i % 2 else None))
    return requests


def bits(batch):
    """Everything that responses hold, but for their durations."""

    def fields(result):
        names = ["token_ids", "logprobs", "greedy", "top_token_ids", "top_logprobs"]
        arrays = [getattr(result, name, np.empty(0)) for name in names]
        return [(a.dtype, a.shape, a.tobytes()) for a in arrays], getattr(result, "text", None)

    return [(r.id, r.index, r.error, *fields(r.result)) for r in batch]


def test_a_run_is_taken_up_from_its_journal(folder, tmp_path, caplog):
    llm = LLM(folder, threads=1)
    whole = bits(llm.run(make_requests()))
    path = tmp_path / "journal"
    assert bits(llm.run(make_requests(), journal=path)) == whole
    computed = []
    assert bits(llm.run(make_requests(), journal=path, on_result=computed.append)) == whole
    assert computed == []
    assert caplog.messages == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert bits(llm.run(make_requests(), journal=path, on_result=computed.append)) == whole
    assert 0 < len(computed) < len(whole)
    (message,) = caplog.messages
    assert re.fullmatch(r"the journal .*journal: a torn record of \d+ bytes was dropped", message)
    other = make_requests()
    other[4] = Request(other[4].id, other[4].tokens)
    with pytest.raises(InputError, match="another input: 'r3' was another request"):
        llm.run(other, journal=path)
    with pytest.raises(InputError, match=r"another input: .* is not among the requests"):
        llm.run(make_requests(2), journal=path)
    with pytest.raises(InputError, match="begun with another seed"):
        LLM(folder, threads=1, seed=1).run(make_requests(), journal=path)


def test_numbers_of_numpy_are_ids_of_journals_too(folder, tmp_path):
    llm = LLM(folder, threads=1)
    requests = [Request(i, np.array([1, 2, 3])) for i in np.arange(3)]
    for _ in range(2):
        batch = llm.run(requests, journal=tmp_path / "journal")
        assert [response.id for response in batch] == [0, 1, 2]


def test_a_journal_that_cannot_be_written_ends_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("numbatch.batching.journal.GROUP_RECORDS", 1)

    def full(self, data):
        raise OutputError("cannot write to the journal: No space left on device")

    llm = LLM(folder, threads=1)
    path = tmp_path / "journal"
    llm.run(make_requests(1), journal=path)
    path.unlink()
    write = Journal._write
    Journal(path, llm.identity).close()
    monkeypatch.setattr(Journal, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        llm.run(make_requests(), journal=path)
    monkeypatch.setattr(Journal, "_write", write)
    assert len(llm.run(make_requests(), journal=path)) == 13


def run_command(folder, kill_after=None):
    """Run the command line over a stand-in for a model; kill it at some instant."""
    program = Path(__file__).with_name("fake_llm.py")
    names = ["in.jsonl", "-o", "out.jsonl", "--journal", "journal", "-q"]
    process = subprocess.Popen(
        [sys.executable, str(program), "run", *names], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    if kill_after is not None:
        begin = time.monotonic()
        journal = folder / "journal"
        size = journal.stat().st_size if journal.exists() else 0
        while not journal.exists() or journal.stat().st_size == size:  # it is at work
            if process.poll() is not None or time.monotonic() > begin + 60:
                break
            time.sleep(0.001)
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    return process.returncode, errors


def write_input(folder, count):
    lines = [{"custom_id": f"r{i}", "prompt": f"nap {i}", "max_tokens": 2} for i in range(count)]
    lines[5] = {"custom_id": "r4", "prompt": "taken"}
    lines[7]["temperature"] = -1
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path, monkeypatch):
    """Each answer is there once, and the output is the same as that of a run left alone."""
    write_input(tmp_path, 1500)
    assert run_command(tmp_path)[0] == 1
    expected = sorted((tmp_path / "out.jsonl").read_text().splitlines())
    assert len(expected) == 1500
    for name in ("out.jsonl", "journal"):
        (tmp_path / name).unlink()
    chance = random.Random(0)
    killed = 0
    for _ in range(20):
        code, _ = run_command(tmp_path, kill_after=chance.random() * 0.3)
        killed += code == -signal.SIGKILL
        if killed == 3:  # the output may be ahead of, behind, or beside the journal
            (tmp_path / "out.jsonl").write_text("not a line of this run\n")
        if code == 1:
            break
    assert killed >= 3
    code, errors = run_command(tmp_path)
    assert code == 1  # two lines failed, though in an earlier run
    assert "results were there already" in errors
    assert sorted((tmp_path / "out.jsonl").read_text().splitlines()) == expected


def test_the_command_line_refuses_another_input(tmp_path):
    write_input(tmp_path, 20)
    assert run_command(tmp_path)[0] == 1
    before = (tmp_path / "out.jsonl").read_text()
    write_input(tmp_path, 21)
    code, errors = run_command(tmp_path)
    assert code == 2
    assert "was begun with another input" in errors
    assert (tmp_path / "out.jsonl").read_text() == before
