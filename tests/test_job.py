"""Jobs: results by id, what goes wrong, and what is cancelled."""

import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
from job_cases import GREEDY, LONG, bits, held, make_requests, tokens
from tiny_models import write_huggingface

from numbatch import LLM, InputError, Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return folder


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, threads=1, max_num_seqs=4)


def test_results_come_by_id_in_order_and_as_they_finish(llm):
    expected = {r.id: bits(r) for r in llm.engine.run(make_requests())}
    job = llm.submit(make_requests())
    assert bits(job["r3"].result) == expected["r3"]
    batch = job.result()
    assert [response.id for response in batch] == [f"r{i}" for i in range(10)]
    assert [response.index for response in batch] == list(range(10))
    assert {r.id: bits(r.result) for r in batch} == expected
    for _ in range(2):
        assert {r.id: bits(r.result) for r in job.as_completed()} == expected
    assert "r3" in job
    assert "x" not in job
    assert job.index_of(["r3", "x", 1]).tolist() == [3, -1, -1]
    assert batch.index_of(["r9", 9]).tolist() == [9, -1]
    assert job.get_by_id("r4") is batch["r4"] is batch.get_by_id("r4")
    assert batch.get_by_id("x") is None
    assert batch.raise_failed() is batch
    assert (len(batch), len(job), "r1" in batch, "x" in batch) == (10, 10, True, False)
    for read in (lambda: job["x"], lambda: job.get_by_id("x"), lambda: batch["x"]):
        with pytest.raises(InputError, match="there is no id 'x'"):
            read()


def test_texts_are_tokenized_and_one_that_cannot_be_fails_alone(llm):
    job = llm.submit(
        [
            Request("a", "tonight", GREEDY),
            Request("bad", "\ud800", GREEDY),
            Request("empty", [], GREEDY),
            Request(3, [5, 6, 7]),
            Request("long", np.zeros(500, np.int64)),
        ]
    )
    batch = job.result()
    assert batch["a"].result.prompt == "tonight"
    assert batch["a"].result.text == llm.generate("tonight", GREEDY)[0].text
    assert "surrogate" in batch["bad"].error
    assert "is empty" in batch["empty"].error
    assert batch[3].error is None
    assert "more than the context" in batch["long"].error
    with pytest.raises(InputError, match="request 'bad' failed"):
        batch.raise_failed()
    stats = job.stats()
    assert (stats.total_items, stats.failed_items) == (5, 3)


def test_statistics_are_in_the_units_that_their_names_say(llm):
    job = llm.submit(make_requests(6))
    job.wait()
    stats = job.stats()
    assert stats == job.result().stats
    assert stats.total_items == 6
    assert stats.tokens == 6 * 9 + 3 * 12
    assert stats.avg_item_time_ms == pytest.approx(stats.total_duration_ms / 6)
    assert stats.items_per_second == pytest.approx(6000 / stats.total_duration_ms)
    longest = max(response.duration_ms for response in job.result())
    assert 0 < longest <= stats.total_duration_ms
    empty = llm.submit([])
    assert len(empty.result()) == 0
    assert empty.stats().total_items == 0


def test_repeated_ids_are_refused(llm):
    with pytest.raises(InputError, match="'r1' stands at 1 and at 4, should be unique"):
        llm.submit([*make_requests(4), make_requests(2)[1]])
    job = llm.submit(iter([*make_requests(4), make_requests(2)[1], *make_requests(9)[5:]]))
    assert len(list(itertools.islice(job.as_completed(), 4))) == 4
    with pytest.raises(InputError, match="'r1' stands at 1 and at 4, should be unique"):
        job.result()
    assert job["r3"].error is None
    with pytest.raises(InputError, match="a request is 'x', should be a Request"):
        llm.submit(["x"])
    with pytest.raises(InputError, match="a request is 'x', should be a Request"):
        llm.submit(iter(["x"])).result()


def test_one_request_is_cancelled_and_the_others_go_on(llm):
    job = llm.submit([Request(i, tokens(i), LONG) for i in range(8)])
    assert job.cancel(7)
    assert job[7].error == "cancelled"
    assert job[0].error is None
    assert not job.cancel(0)
    with pytest.raises(InputError, match="there is no id 'x'"):
        job.cancel("x")
    job.wait()
    assert job.stats().failed_items == 1
    assert not job.cancel()
    assert not job.cancel(0)
    with pytest.raises(InputError, match="there is no id 'x'"):
        job.cancel("x")


def test_a_whole_job_is_cancelled(llm):
    with llm.submit([Request(i, tokens(i), LONG) for i in range(50)]) as job:
        job[0]
    batch = job.result()
    assert len(batch) == 50
    errors = [response.error for response in batch]
    assert errors[0] is None
    assert errors[-1] == "cancelled"
    pool = llm.engine.scheduler.pool
    assert pool.free_blocks == pool.blocks


def test_a_callback_gets_each_response_and_may_raise(llm):
    got = []
    job = llm.submit(make_requests(), on_result=got.append)
    assert sorted(r.id for r in job.result()) == sorted(r.id for r in got)

    def fails(response):
        got.append(response)
        raise RuntimeError("no more")

    got.clear()
    job = llm.submit(make_requests(), on_result=fails)
    job.wait()
    assert len(got) == 1
    assert job["r5"].error is None
    with pytest.raises(RuntimeError, match="no more"):
        job.result()
    responses = job.as_completed()
    assert len(list(itertools.islice(responses, 10))) == 10
    with pytest.raises(RuntimeError, match="no more"):
        next(responses)


def test_an_iterator_that_raises_ends_the_job_after_what_it_gave(llm):
    def requests():
        yield from make_requests(3)
        raise OSError("the file is gone")

    job = llm.submit(requests())
    job.wait()
    assert job["r2"].error is None
    with pytest.raises(OSError, match="the file is gone"):
        job.result()


def test_an_engine_that_fails_ends_its_jobs(folder):
    llm = LLM(folder, threads=1)

    def broken(batch):
        raise RuntimeError("broken")

    run, llm.engine.forward.run = llm.engine.forward.run, broken
    job = llm.submit(make_requests())
    with pytest.raises(RuntimeError, match="broken"):
        job.result()
    llm.engine.forward.run = run
    assert len(llm.submit(make_requests()).result()) == 10


def test_jobs_and_plain_calls_share_the_engine(llm):
    expected = llm.generate([list(tokens(0))], GREEDY)[0]
    job = llm.submit(Request(i, tokens(i), GREEDY) for i in range(30))
    assert bits(llm.generate([list(tokens(0))], GREEDY)[0]) == bits(expected)
    assert bits(job[0].result) == bits(expected)
    assert len(job.result()) == 30
    assert llm._service._thread is None or not llm._service.is_active


def test_urgent_requests_finish_first(llm):
    requests = [Request(i, tokens(i), GREEDY, priority=-i) for i in range(12)]
    gate = threading.Event()
    llm._service._calls.append(gate.wait)
    job = llm.submit(requests)
    held(job)
    gate.set()
    order = [response.id for response in job.as_completed()]
    assert {8, 9, 10, 11} <= set(order[:8])  # 4 run at a time, and one may come in by its age


def test_a_request_past_its_deadline_fails_alone(llm):
    requests = [
        Request("late", tokens(0), LONG, deadline=0.0),
        Request("in time", tokens(1), GREEDY, deadline=1000),
    ]
    batch = llm.submit(requests).result()
    assert batch["late"].error == "not finished within its deadline of 0.0 s"
    assert batch["in time"].error is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
def test_priorities_are_finite_numbers(value):
    with pytest.raises(InputError, match="priority is"):
        Request("a", "x", priority=value)


def test_other_bad_fields_are_refused(llm):
    with pytest.raises(InputError, match="tag is 3"):
        Request("a", "x", tag=3)
    with pytest.raises(InputError, match="deadline is -1"):
        Request("a", "x", deadline=-1)
    with pytest.raises(InputError, match="score_from is 0"):
        Request("a", "x", score_from=0)
    with pytest.raises(InputError, match="lookahead is 0"):
        llm.submit([], lookahead=0)
    for serve in (llm.submit, llm.run):
        for requests in (None, Request("a", "x")):
            with pytest.raises(InputError, match=r"requests are .*, should be a list or"):
                serve(requests)
        with pytest.raises(InputError, match="on_result is 3, should be a function"):
            serve([], on_result=3)
    with pytest.raises(InputError, match="a request is 'x', should be a Request"):
        llm.run(["x"], journal="none")


def test_a_program_may_end_while_a_job_runs(folder):
    program = """
import itertools, sys
from numbatch import LLM, Request, SamplingParams
llm = LLM(sys.argv[1], threads=2)
params = SamplingParams(max_tokens=50, ignore_eos=True)
job = llm.submit(Request(i, [1, 2, 3], params) for i in itertools.count())
print(next(job.as_completed()).id)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_options_under_one_context_are_scored_as_without_sharing(folder):
    context = "so it was that in the night the old sailor told them "
    options = [" on", " it", " no"]
    results = []
    for share in (True, False):
        llm = LLM(folder, threads=1, enable_prefix_caching=share)
        results.append(llm.choose(context, options))
    assert results[0].logprobs.tobytes() == results[1].logprobs.tobytes()
    assert results[0].index == results[1].index
