"""Shared beginnings and pre-emption: the same bits as alone, and every block accounted for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import VOCABULARY, write_huggingface

from numbatch.batching.engine import Engine
from numbatch.batching.policy import FirstCome
from numbatch.batching.request import Request, SamplingParams
from numbatch.models.load import load_model


@pytest.fixture(scope="module", params=["llama", "mistral"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_huggingface(request.param, folder)
    return load_model(folder)


def make_requests():
    """Texts with beginnings in common: scored from various places, and continued."""
    rng = np.random.default_rng(4)
    beginnings = [rng.integers(0, VOCABULARY - 2, size) for size in (16, 33, 64)]
    requests = []
    for i in range(18):
        begin = beginnings[i % 3]
        tokens = np.concatenate([begin, rng.integers(0, VOCABULARY - 2, rng.integers(0, 12))])
        if i % 2:
            params = SamplingParams(
                temperature=i % 4 / 3, max_tokens=int(rng.integers(1, 40)), ignore_eos=True,
                repetition_penalty=1 + i % 3 / 10, logprobs=i % 3,
            )  # fmt: skip
            requests.append(Request(i, tokens, params, priority=i % 5))
        else:
            score_from = int(rng.integers(1, len(tokens)))
            requests.append(Request(i, tokens, score_from=score_from, priority=i % 5))
    return requests


def fingerprint(results):
    return {
        r.id: (r.token_ids.tobytes(), r.logprobs.tobytes(), getattr(r, "text", None))
        for r in results
    }


@pytest.fixture(scope="module")
def alone(model):
    results = []
    for request in make_requests():
        results += Engine(model, threads=1, enable_prefix_caching=False).run([request])
    return fingerprint(results)


def run_checked(engine, requests):
    """Serve requests, checking the pool after every step."""
    scheduler, results = engine.scheduler, []
    for request in requests:
        engine.submit(request, lambda sequence, result: results.append(result))
    while scheduler.running or scheduler.waiting:
        before = scheduler.waiting
        chunks = len(results)
        engine.step()
        scheduler.pool.check([sequence.blocks for sequence in scheduler.running])
        assert scheduler._chunks or len(results) > chunks or scheduler.waiting < before, "stuck"
    scheduler.pool.check([])
    assert not scheduler._begun
    assert not scheduler._followers
    return results


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    order=st.permutations(range(18)),
    sequences=st.integers(1, 18),
    budget=st.integers(1, 200),
    kv=st.integers(128, 500),
    policy=st.sampled_from([None, FirstCome]),
    share=st.booleans(),
)
def test_sharing_and_preemption_give_the_same_bits(
    model, alone, order, sequences, budget, kv, policy, share
):
    engine = Engine(
        model, max_num_seqs=sequences, max_num_batched_tokens=budget, kv_tokens=kv, threads=1,
        policy=policy and policy(), enable_prefix_caching=share,
    )  # fmt: skip
    requests = make_requests()
    assert fingerprint(run_checked(engine, [requests[i] for i in order])) == alone
    assert fingerprint(run_checked(engine, [requests[i] for i in order])) == alone


def test_a_pool_that_is_too_small_preempts(model, alone):
    engine = Engine(model, kv_tokens=192, threads=1)
    requests = [r for r in make_requests() if r.params is not None]
    assert fingerprint(run_checked(engine, requests)).items() <= alone.items()
    assert engine.scheduler.preemptions > 0


def computed(engine, requests):
    """Return how many tokens are run for requests."""
    total = 0
    run = engine.forward.run

    def counted(batch):
        nonlocal total
        total += len(batch.tokens)
        return run(batch)

    engine.forward.run = counted
    assert len(list(engine.run(requests))) == len(requests)
    engine.forward.run = run
    return total


def test_options_under_one_context_cost_the_context_once(model):
    rng = np.random.default_rng(0)
    context = rng.integers(0, VOCABULARY - 2, 97)
    requests = [
        Request(i, np.concatenate([context, rng.integers(0, VOCABULARY - 2, 5)]), score_from=97)
        for i in range(8)
    ]
    assert computed(Engine(model, enable_prefix_caching=False), requests) == 8 * 101
    engine = Engine(model)
    # 96 tokens fill 6 blocks; the hidden state of token 96 is needed by all
    assert computed(engine, requests) == 101 + 7 * 5
    assert computed(engine, requests) == 8 * 5


def test_a_context_that_fills_its_blocks_is_shared_to_its_last_token(model):
    rng = np.random.default_rng(0)
    context = rng.integers(0, VOCABULARY - 2, 64)
    requests = [
        Request(i, np.concatenate([context, rng.integers(0, VOCABULARY - 2, 5)]), score_from=64)
        for i in range(8)
    ]
    plain = fingerprint(Engine(model, enable_prefix_caching=False).run(requests))
    engine = Engine(model)
    assert computed(engine, requests) == 68 + 7 * 5
    assert fingerprint(engine.run(requests)) == plain


def test_a_prompt_that_was_run_before_is_not_run_again(model):
    params = SamplingParams(max_tokens=1, ignore_eos=True)
    engine = Engine(model)
    for size in (64, 65):
        request = Request("a", np.arange(size) + size, params)
        assert computed(engine, [request]) == size
        assert computed(engine, [request]) == 1


def test_the_content_of_free_blocks_is_given_up_for_new_work(model, alone):
    engine = Engine(model, kv_tokens=128, threads=1)
    for _ in range(3):
        assert fingerprint(run_checked(engine, make_requests())) == alone


def test_urgent_work_takes_the_place_of_other_work(model):
    engine = Engine(model, max_num_seqs=2, threads=1)
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    finished = []

    def sink(sequence, result):
        finished.append(result.id)

    for i in range(2):
        engine.submit(Request(i, np.arange(10), params, priority=1), sink)
    for _ in range(4):
        engine.step()
    short = SamplingParams(max_tokens=2, ignore_eos=True)
    engine.submit(Request("urgent", np.arange(20), short, priority=0), sink)
    while engine.scheduler.running:
        engine.step()
    assert finished[0] == "urgent"
    assert engine.scheduler.preemptions == 1


def test_a_waiting_sequence_follows_no_less_urgent_one(model):
    engine = Engine(model, max_num_batched_tokens=16, threads=1)
    finished = []

    def sink(sequence, result):
        finished.append(result.id)

    tokens = np.arange(100)
    engine.submit(Request("slow", tokens, score_from=1, priority=9), sink)
    engine.step()
    engine.submit(Request("urgent", tokens[:40], score_from=39, priority=0), sink)
    while engine.scheduler.running or engine.scheduler.waiting:
        engine.step()
    assert finished == ["urgent", "slow"]


def test_the_followers_of_a_cancelled_sequence_go_on(model, alone):
    engine = Engine(model, threads=1)
    results = []

    def sink(sequence, result):
        results.append(result)

    shared = [dataclasses.replace(r, priority=0) for r in make_requests() if r.id % 3 == 2]
    leader, *others = [engine.submit(request, sink) for request in shared]
    chunks = engine.scheduler.schedule()
    assert chunks[0].sequence is leader
    assert sum(map(len, engine.scheduler._followers.values())) >= 3
    engine.cancel(others[0])
    engine.cancel(leader, "no more")
    while engine.scheduler.running or engine.scheduler.waiting:
        engine.step()
        engine.scheduler.pool.check([s.blocks for s in engine.scheduler.running])
    assert {r.id: r.error for r in results[:2]} == {
        others[0].request.id: "cancelled",
        leader.request.id: "no more",
    }
    assert fingerprint(results[2:]).items() <= alone.items()
    assert len(results) == 6
