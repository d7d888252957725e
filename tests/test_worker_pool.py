"""A pool of worker processes: the results of one engine, whatever happens to the workers."""

import contextlib
import functools
import gc
import os
import signal
import threading
import time
from multiprocessing import Pipe

import numpy as np
import pytest
from tiny_models import VOCABULARY, write_huggingface

from numbatch.batching.engine import Engine
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import FailedResult
from numbatch.batching.worker import serve
from numbatch.batching.worker_pool import MOST_DEATHS, WorkerPool
from numbatch.errors import DeviceError, InputError
from numbatch.models.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


@pytest.fixture
def pool(model, folder):
    made = WorkerPool(
        model, functools.partial(load_model, folder), ["cpu", "cpu"], max_num_seqs=4,
        max_num_batched_tokens=64, threads=1,
    )  # fmt: skip
    yield made
    processes = [worker.process for worker in made.workers]
    del made
    gc.collect()
    for process in processes:
        process.kill()
        process.wait()


def make_requests(count):
    rng = np.random.default_rng(3)
    return [
        Request(
            f"r{i}", rng.integers(0, VOCABULARY - 2, rng.integers(2, 60)),
            SamplingParams(max_tokens=20, seed=i, ignore_eos=True) if i % 2 else None,
        )
        for i in range(count)
    ]  # fmt: skip


def fingerprint(results):
    return {r.id: (r.token_ids.tobytes(), r.logprobs.tobytes()) for r in results}


def test_the_same_results_when_workers_are_killed(pool, model):
    requests = make_requests(40)
    wanted = fingerprint(Engine(model, threads=1).run(requests))
    assert fingerprint(pool.run(requests)) == wanted
    both = [worker.process.pid for worker in pool.workers]
    assert len(set(both)) == 2
    found = []
    for result in pool.run(requests):
        found.append(result)
        if len(found) in (3, 15):
            worker = pool.workers[len(found) // 15]
            os.kill(worker.process.pid, signal.SIGKILL)
    assert len(found) == len(requests)
    assert fingerprint(found) == wanted
    assert pool.replaced == 2


def test_work_goes_to_the_worker_with_the_fewest_tokens(pool):
    for length in (100, 10, 10, 10, 10, 10, 10):
        pool.submit(Request(length, np.zeros(length, np.int64)))
    pool._hand_out()
    assert sorted(worker.tokens for worker in pool.workers) == [60, 100]
    assert sorted(len(worker.tasks) for worker in pool.workers) == [1, 6]


def test_a_request_is_cancelled_wherever_it_is(pool):
    params = SamplingParams(max_tokens=60, ignore_eos=True)
    results = []
    sequences = [
        pool.submit(Request(i, np.arange(9), params), lambda _, result: results.append(result))
        for i in range(30)
    ]
    pool._hand_out()
    for sequence in (sequences[0], sequences[29]):
        assert pool.cancel(sequence).error == "cancelled"
        assert pool.cancel(sequence) is None
    while pool.scheduler.running or pool.scheduler.waiting:
        pool.step()
    assert sorted(result.id for result in results) == list(range(30))
    assert sum(isinstance(result, FailedResult) for result in results) == 2
    assert [worker.tokens for worker in pool.workers] == [0, 0]


def test_a_request_that_kills_its_workers_fails_alone(pool):
    results = []
    params = SamplingParams(max_tokens=100, ignore_eos=True)
    pool.submit(Request("bad", np.arange(9), params), lambda _, result: results.append(result))
    for _ in range(MOST_DEATHS):
        pool._hand_out()
        while not pool.scheduler.running:  # until a worker is ready; it gets no time to finish
            pool.step()
            pool._hand_out()
        (worker,) = [each for each in pool.workers if each.tasks]
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        while worker in pool.workers:
            pool.step()
    assert [result.id for result in results] == ["bad"]
    assert f"{MOST_DEATHS} workers died" in results[0].error
    assert len(list(pool.run(make_requests(4)))) == 4


def test_bad_requests_and_devices_are_refused(pool, model, folder):
    with pytest.raises(InputError, match="is empty"):
        pool.submit(Request("empty", np.zeros(0, np.int64)))
    load = functools.partial(load_model, folder)
    with pytest.raises(InputError, match="no devices"):
        WorkerPool(model, load, [])
    with pytest.raises(DeviceError, match="the worker of tpu cannot start: device is 'tpu'"):
        WorkerPool(model, load, ["tpu"])


def test_a_worker_reads_while_nobody_reads_its_results(folder):
    """Requests and results of more bytes than a pipe holds: neither side waits for ever."""
    ours, theirs = Pipe()
    threading.Thread(target=serve_until_gone, args=(theirs,), daemon=True).start()
    options = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "threads": 1}
    ours.send((functools.partial(load_model, folder), "cpu", options))
    assert ours.recv()[0] == "ready"
    requests = [Request("x" * 4000 + str(i), np.arange(2, 6)) for i in range(600)]

    def send():
        for number, request in enumerate(requests):
            ours.send(("request", number, request))
            if number == 100:
                time.sleep(2)  # the worker sends the results of these, until nothing more fits

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(60)
    assert not sender.is_alive()
    results = {number: result for _, number, result in (ours.recv() for _ in requests)}
    assert [results[i].id for i in range(600)] == [request.id for request in requests]
    ours.close()


def serve_until_gone(connection):
    with contextlib.suppress(EOFError, OSError):
        serve(connection)
