"""Jobs: results by id and as they come, token events, and what goes wrong."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tiny_models import VOCABULARY, write_huggingface

from numbatch import LLM, InputError, Request, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return folder


@pytest.fixture(scope="module")
def llm(folder):
    return LLM(folder, threads=1, max_num_seqs=4)


def tokens(seed, count=9):
    return np.random.default_rng(seed).integers(0, VOCABULARY - 2, count)


def make_requests(count=10):
    return [Request(f"r{i}", tokens(i), GREEDY if i % 2 else None) for i in range(count)]


def bits(result):
    return result.token_ids.tobytes(), result.logprobs.tobytes(), getattr(result, "text", None)


@contextlib.contextmanager
def one_step_at_a_time(llm):
    """Yield a function that lets the engine run one more step, and returns when it has.

    At the end the engine runs freely again.
    """
    step, turns, done = llm.engine.step, threading.Semaphore(0), threading.Semaphore(0)
    is_free = False

    def held_back():
        if not is_free:
            turns.acquire()
        results = step()
        done.release()
        return results

    def one_more():
        turns.release()
        done.acquire()

    llm.engine.step = held_back
    try:
        yield one_more
    finally:
        is_free = True
        turns.release()
        llm.engine.step = step


def held(job):
    """Wait until the job's requests are all queued."""
    with job.changed:
        while not job._is_read:  # nobody is told when reading ends: look again
            job.changed.wait(0.02)


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


def test_events_put_together_are_the_results(llm):
    stop = llm.generate([list(tokens(1))], LONG)[0].text[20:23]
    requests = [
        Request(1, tokens(1), SamplingParams(temperature=0, max_tokens=100, stop=[stop])),
        *(Request(i, tokens(i), LONG) for i in (2, 3)),
        Request("scored", tokens(4)),
    ]
    job = llm.submit(requests)
    seen = {request.id: [] for request in requests}
    for event in job.stream():
        seen[event.id].append(event)
        if event.id == 2:
            time.sleep(0.01)
    check_events(job, seen)
    again = list(job.stream())
    assert sum(len(event.text) for event in again if event.id == 3) == len(job[3].result.text)


def check_events(job, seen):
    """Check that events put together are the results, and that the last has the response."""
    for name, events in seen.items():
        result = job[name].result
        assert events[-1].response is job[name]
        assert all(event.response is None for event in events[:-1])
        if name != "scored":
            assert "".join(event.text for event in events) == result.text
            joined = np.concatenate([event.token_ids for event in events])
            assert np.array_equal(joined, result.token_ids)
            joined = np.concatenate([event.logprobs for event in events])
            assert joined.tobytes() == result.logprobs.tobytes()


def test_a_reader_that_keeps_up_gets_each_token_at_once(llm):
    requests = [Request(i, tokens(i), GREEDY) for i in range(3)]
    seen, kept = {request.id: [] for request in requests}, []
    with one_step_at_a_time(llm) as step:
        job = llm.submit(requests)
        held(job)
        events = job.stream()
        for _ in range(GREEDY.max_tokens):
            step()
            news = [next(events) for _ in requests]
            assert sorted(event.id for event in news) == [0, 1, 2]
            kept += news
    for event in kept:
        seen[event.id].append(event)
    assert [len(event.token_ids) for event in kept] == [1] * (3 * GREEDY.max_tokens)
    check_events(job, seen)


def test_a_reader_that_sleeps_gets_one_long_event_and_holds_nobody_up(llm):
    with one_step_at_a_time(llm) as step:
        job = llm.submit([Request(0, tokens(0), LONG), Request(1, tokens(1), LONG)])
        held(job)
        events = job.stream()
        step()
        first = [next(events), next(events)]
        for _ in range(50):
            step()
        news = [next(events), next(events)]
        assert [len(event.token_ids) for event in (*first, *news)] == [1, 1, 50, 50]
        assert len(events._events) == 0
    seen = {i: [e for e in (*first, *news) if e.id == i] for i in range(2)}
    for event in events:
        seen[event.id].append(event)
    check_events(job, seen)


def test_async_readers(llm):
    async def read():
        job = llm.submit(make_requests())
        events = [event async for event in job.stream() if event.response]
        responses = [response async for response in job.as_completed()]
        return events, responses

    events, responses = asyncio.run(read())
    assert sorted(event.id for event in events) == sorted(r.id for r in responses)
    assert len(responses) == 10


def test_async_readers_do_not_block_the_loop_and_may_be_cancelled(llm):
    async def read():
        job = llm.submit(Request(i, tokens(i), LONG) for i in itertools.count())
        reading = asyncio.create_task(job.as_completed().__anext__())
        await asyncio.sleep(0)
        assert not reading.done()
        await reading
        other = asyncio.create_task(job.as_completed().__anext__())
        other.cancel()
        job.cancel()

    asyncio.run(read())


def test_an_endless_iterator_is_read_only_as_fast_as_it_is_served(llm):
    read = 0

    def endless():
        nonlocal read
        for read in itertools.count(1):
            yield Request(read, tokens(read), GREEDY)

    job = llm.submit(endless(), keep_results=False, lookahead=6)
    taken = [response.id for response in itertools.islice(job.as_completed(), 20)]
    assert len(set(taken)) == 20
    time.sleep(0.5)  # nobody reads: what was begun is finished, and then nothing more is read
    assert read <= 26
    other = llm.submit(make_requests())
    assert len(other.result()) == 10
    assert read <= 26
    with pytest.raises(InputError, match="results are not kept"):
        job["x"]
    with pytest.raises(InputError, match="results are not kept"):
        job.result()
    job.cancel()
    rest = list(job.as_completed())
    assert len(rest) <= 6
    assert job.wait(5)


def test_an_endless_job_forgets_what_is_finished(llm):
    def endless():
        for i in itertools.count():
            yield Request(i % 40, tokens(i), None)

    job = llm.submit(endless(), keep_results=False, lookahead=4)
    taken = [response.id for response in itertools.islice(job.as_completed(), 130)]
    assert sorted(taken[:40]) == list(range(40))
    with job.changed:
        assert len(job._book._current) <= 4
        assert len(job._book.ids) == 0
        assert job.index_of([taken[0], -5]).tolist()[1] == -1
        assert -5 not in job
    with pytest.raises(InputError, match="there is no id -5 that is not finished"):
        job.cancel(-5)
    job.cancel()
    assert job.wait(20)
    twice = llm.submit(iter([Request("a", tokens(0), LONG)] * 2), keep_results=False)
    with pytest.raises(InputError, match=r"'a' stands at 0 and at 1, .* among what is not finish"):
        list(twice.as_completed())


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
    with pytest.raises(InputError, match="lookahead is 0"):
        llm.submit([], lookahead=0)


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
