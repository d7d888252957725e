"""The engine: same bits in any batch, blocks that come back, requests that end as asked."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import END, VOCABULARY, write_huggingface

from numbatch.batching.engine import Engine
from numbatch.batching.kv_pool import KVPool
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import FailedResult
from numbatch.errors import InputError
from numbatch.models.load import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return load_model(folder)


def make_requests(count=12):
    rng = np.random.default_rng(9)
    requests = []
    for i in range(count):
        tokens = rng.integers(0, VOCABULARY - 2, rng.integers(2, 70))
        params = None
        if i % 3:
            params = SamplingParams(
                temperature=1.0 if i % 2 else 0.0, top_p=0.9, seed=i if i % 5 else None,
                max_tokens=int(rng.integers(1, 20)), repetition_penalty=1.0 + 0.1 * (i % 4),
                logprobs=i % 3, ignore_eos=True,
            )  # fmt: skip
        requests.append(Request(f"r{i}", tokens, params))
    return requests


def fingerprint(results):
    return {
        r.id: (r.token_ids.tobytes(), r.logprobs.tobytes(), getattr(r, "text", None))
        for r in results
    }


@pytest.fixture(scope="module")
def alone(model):
    """Every request run by itself, on one thread, and nothing guessed."""
    results = []
    for request in make_requests():
        results += Engine(model, threads=1, num_speculative_tokens=0).run([request])
    return fingerprint(results)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("sequences", "budget"), [(2, 16), (5, 64), (64, 512), (12, 7)])
def test_a_batch_gives_the_same_bits_as_each_request_alone(
    model, alone, threads, sequences, budget
):
    engine = Engine(model, threads=threads, max_num_seqs=sequences, max_num_batched_tokens=budget)
    for seed in range(2):
        requests = make_requests()
        np.random.default_rng(seed).shuffle(requests)
        assert fingerprint(engine.run(requests)) == alone


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(range(12)), st.integers(1, 12), st.integers(1, 90), st.integers(128, 400))
def test_any_order_and_any_sizes_give_the_same_bits(model, alone, order, sequences, budget, kv):
    engine = Engine(
        model, max_num_seqs=sequences, max_num_batched_tokens=budget, kv_tokens=kv, threads=2
    )
    requests = make_requests()
    assert fingerprint(engine.run(requests[i] for i in order)) == alone


def test_blocks_are_all_accounted_for_after_every_step(model):
    engine = Engine(model, max_num_seqs=4, max_num_batched_tokens=32, kv_tokens=300)
    pool, scheduler = engine.scheduler.pool, engine.scheduler
    for request in make_requests():
        engine.submit(request)
    finished = 0
    while scheduler.running or scheduler.waiting:
        finished += len(engine.step())
        pool.check([sequence.blocks for sequence in scheduler.running])
    assert finished == 12
    assert pool.free_blocks == pool.blocks


def test_the_pool_check_sees_a_lost_block(model):
    pool = KVPool(model.decoder.config, 1, 64)
    held = pool.lend(3)
    pool.check([held])
    with pytest.raises(RuntimeError, match="inconsistent"):
        pool.check([held[1:]])
    assert pool.lend(2) is None


def test_a_caller_who_stops_early_leaves_the_engine_sound(model, alone):
    engine = Engine(model, max_num_seqs=3)
    running = engine.run(make_requests())
    next(running)
    running.close()
    assert engine.scheduler.pool.free_blocks == engine.scheduler.pool.blocks
    assert fingerprint(engine.run(make_requests())) == alone


def test_requests_are_read_only_as_fast_as_they_are_served(model):
    engine = Engine(model, max_num_seqs=2)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield Request(read, np.arange(5), SamplingParams(max_tokens=2, ignore_eos=True))

    results = engine.run(endless())
    for _ in range(20):
        next(results)
    results.close()
    assert 20 <= read <= 26


def test_priority_holds_among_the_requests_that_are_read_ahead(model):
    engine = Engine(model, max_num_seqs=1, lookahead=9)
    params = SamplingParams(max_tokens=2, ignore_eos=True)
    requests = (Request(i, np.arange(9) + 9 * i, params, priority=-i) for i in range(18))
    order = [result.id for result in engine.run(requests)]
    assert order[0] == 8
    assert order.index(17) < 12


def test_a_request_that_cannot_be_served_fails_alone(model):
    requests = [
        Request("ok", np.arange(5)),
        Request("empty", np.arange(0)),
        Request("long", np.zeros(129, np.int64)),
        Request("full", np.zeros(128, np.int64), SamplingParams()),
        Request("high", np.array([1, VOCABULARY])),
        Request("negative", np.array([-1, 2])),
        Request("one", np.array([1])),
    ]
    results = {result.id: result for result in Engine(model).run(requests)}
    assert np.isfinite(results["ok"].logprobs[1:]).all()
    assert np.isnan(results["one"].logprobs).tolist() == [True]
    errors = {name: r.error for name, r in results.items() if isinstance(r, FailedResult)}
    assert errors.keys() == {"empty", "long", "full", "high", "negative"}
    assert "has 129 tokens, more than the context of 128" in errors["long"]
    assert "no room to generate" in errors["full"]
    assert "token id 300 at place 1, ids should be from 0 to 299" in errors["high"]
    assert "token id -1 at place 0" in errors["negative"]


def generate(model, **params):
    params = {"temperature": 0, "max_tokens": 12, "ignore_eos": True} | params
    request = Request(0, np.arange(40, 60), SamplingParams(**params))
    (result,) = Engine(model).run([request])
    return result


def test_generation_ends_at_max_tokens_and_at_the_context(model):
    assert generate(model).finish_reason == "length"
    assert len(generate(model).token_ids) == 12
    long = generate(model, max_tokens=1000)
    assert len(long.token_ids) == 128 - 20
    assert long.finish_reason == "length"


def test_generation_ends_after_a_stop_token(model):
    tokens = generate(model).token_ids.tolist()
    stop = tokens[5]
    result = generate(model, stop_token_ids=[stop])
    assert result.token_ids.tolist() == tokens[: tokens.index(stop) + 1]
    assert (result.finish_reason, result.stop_reason) == ("stop", stop)
    assert result.text == model.tokenizer.decode(result.token_ids[:-1])


def test_generation_ends_at_a_stop_string(model):
    whole = generate(model)
    stop = whole.text[4:7]
    result = generate(model, stop=[stop, "never there"])
    assert result.text == whole.text[: whole.text.index(stop)]
    assert (result.finish_reason, result.stop_reason) == ("stop", stop)
    assert len(result.token_ids) < len(whole.token_ids)


def test_generation_ends_at_the_models_end_token(model):
    tokens = generate(model).token_ids.tolist()
    ending = dataclasses.replace(model, eos_ids=frozenset([tokens[4], END]))
    result = generate(ending, ignore_eos=False)
    assert result.token_ids.tolist() == tokens[: tokens.index(tokens[4]) + 1]
    assert (result.finish_reason, result.stop_reason) == ("stop", None)
    assert result.text == model.tokenizer.decode(result.token_ids[:-1])
    assert generate(ending).token_ids.tolist() == tokens


def test_seeds_come_from_the_id_where_none_is_named(model):
    def draw(name, engine_seed=0, **params):
        params = SamplingParams(max_tokens=20, ignore_eos=True, **params)
        (result,) = Engine(model, seed=engine_seed).run([Request(name, np.arange(9), params)])
        return result.token_ids.tolist()

    assert draw("a") == draw("a")
    assert draw("a") != draw("b")
    assert draw("1") != draw(1)
    assert draw("a") != draw("a", engine_seed=1)
    assert draw("a", seed=3) == draw("b", engine_seed=1, seed=3)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0, should be at least 1"),
        ({"max_num_batched_tokens": -5}, "max_num_batched_tokens is -5"),
        ({"kv_tokens": 0}, "kv_tokens is 0"),
        ({"max_model_len": 129}, "max_model_len is 129, this model was made for up to 128"),
        ({"max_model_len": 100, "kv_tokens": 50}, "holds only 50 tokens"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_sizes_out_of_range_are_refused(model, sizes, message):
    with pytest.raises(InputError, match=message):
        Engine(model, **sizes)


def test_nan_weights_fail_the_request_not_the_run(model, tmp_path):
    import torch
    from tiny_models import make_model, make_tokenizer

    broken = make_model("llama")
    with torch.no_grad():
        broken.model.embed_tokens.weight[7] = float("nan")
    broken.save_pretrained(tmp_path)
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    engine = Engine(load_model(tmp_path))
    params = SamplingParams(max_tokens=3, ignore_eos=True, temperature=0, seed=1)
    good, bad = Request("good", np.array([1, 2]), params), Request("bad", np.array([7]), params)
    texts = [Request("fine", np.arange(1, 7)), Request("wrong", np.array([1, 2, 7, 3, 4]))]
    results = {result.id: result for result in engine.run([bad, *texts, good])}
    assert results["bad"].error == (
        "the model's logits are no numbers to draw from: that of token 0 is NaN (300 of 300 are)"
    )
    assert results["wrong"].error == "the model's logits for token 3 are NaN or infinite"
    assert np.isfinite(results["fine"].logprobs[1:]).all()
    assert len(results["good"].token_ids) == 3
    assert END not in results["good"].token_ids
