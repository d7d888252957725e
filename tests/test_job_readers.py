"""Readers of jobs: token events and results as they come, slow and endless ones."""

import asyncio
import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
from job_cases import GREEDY, LONG, held, make_requests, tokens
from tiny_models import write_huggingface

from numbatch import LLM, InputError, Request, SamplingParams


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    # Guesses would give a text several tokens in a step, as often as the machine makes them pay.
    return LLM(folder, threads=1, max_num_seqs=4, num_speculative_tokens=0)


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
