"""Sizes: memory from the model, steps from how long they take; out of memory, nothing is lost."""

import numpy as np
import pytest
from tiny_models import VOCABULARY, write_huggingface

from numbatch import LLM, BatchSizer, InputError, Request, SamplingParams, estimate_memory
from numbatch.batching.engine import Engine
from numbatch.batching.sizes import kv_token_bytes, largest_batch
from numbatch.batching.step_time import StepTime
from numbatch.models.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_huggingface("llama", folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def machine(tokens, sequences, kv, rng, *, fixed=0.02, token=1e-3, noise=0.0):
    """Seconds that a step takes on a machine that is known."""
    return (fixed + token * tokens + 1e-4 * sequences + 1e-7 * kv) * (1 + noise * rng.random())


def test_the_time_of_a_step_is_learnt():
    rng, time = np.random.default_rng(0), StepTime()
    for _ in range(300):
        x = (rng.integers(1, 500), rng.integers(1, 32), rng.integers(0, 50_000))
        time.observe(*x, machine(*x, rng))
    for x in ((1, 1, 10), (512, 4, 9_000), (32, 32, 30_000)):
        assert time.expected(*x) == pytest.approx(machine(*x, rng), rel=0.02)
    for _ in range(600):
        x = (rng.integers(1, 500), rng.integers(1, 32), rng.integers(0, 50_000))
        time.observe(*x, 3 * machine(*x, rng))
    assert time.expected(300, 4, 9_000) == pytest.approx(3 * machine(300, 4, 9_000, rng), rel=0.05)


def test_steps_that_are_all_alike_do_no_harm():
    rng, time = np.random.default_rng(0), StepTime()
    for _ in range(5000):
        time.observe(64, 4, 1000, machine(64, 4, 1000, rng, noise=0.1))
    assert np.isfinite(time.coefficients).all()
    assert time.expected(64, 4, 1000) == pytest.approx(machine(64, 4, 1000, rng), rel=0.1)


def simulate(sizer, steps, rng, **speed):
    """Run steps of prompts and of 8 sequences that decode; return each step's tokens and time."""
    taken = []
    for _ in range(steps):
        kv_decoding = int(rng.integers(4_000, 6_000))
        tokens = sizer.choose(8, kv_decoding).tokens
        kv = kv_decoding + 200 * (tokens - 8)
        sequences = 8 + (tokens > 8)
        seconds = machine(tokens, sequences, kv, rng, **speed)
        sizer.observe(tokens, 8, sequences, kv, kv_decoding, seconds)
        taken.append((tokens, seconds))
    return np.array(taken).T


def test_the_95th_percentile_of_step_times_is_held_at_the_target():
    sizer = BatchSizer(4096, target_latency_ms=150)
    _, seconds = simulate(sizer, 1000, np.random.default_rng(0), noise=0.4)
    assert np.percentile(seconds, 95) == pytest.approx(0.150, rel=0.1)
    assert sizer.last.limit == "latency"


def test_without_a_target_steps_are_as_large_as_throughput_gains():
    rng = np.random.default_rng(0)
    sizer = BatchSizer(4096)
    tokens, seconds = simulate(sizer, 400, rng)
    assert sizer.last.limit == "throughput"
    chosen = tokens[200:].sum() / seconds[200:].sum()
    best = max(n / machine(n, 9, 5_000 + 200 * (n - 8), rng) for n in range(16, 4097, 16))
    assert chosen > 0.94 * best
    assert tokens[-1] < 1000


def test_the_limit_is_said():
    sizer = BatchSizer(64)
    assert sizer.choose(0, 0).limit == "unknown"
    simulate(sizer, 50, np.random.default_rng(0))
    assert (sizer.last.tokens, sizer.last.limit) == (64, "memory")
    sizer.shrink(40)
    assert sizer.choose(8, 100).tokens == 20
    fast = BatchSizer(64, target_latency_ms=1)
    simulate(fast, 50, np.random.default_rng(0))
    assert (fast.last.tokens, fast.last.limit) == (8, "latency")  # those that decode all go on


def requests():
    rng = np.random.default_rng(9)
    params = SamplingParams(max_tokens=9, ignore_eos=True)
    return [
        Request(i, rng.integers(0, VOCABULARY - 2, 4 + 5 * i), params if i % 2 else None)
        for i in range(10)
    ]


def bits(results):
    return {r.id: (r.token_ids.tobytes(), r.logprobs.tobytes()) for r in results}


@pytest.mark.parametrize("where", ["run", "logits_to_draw", "logprobs"])
def test_a_step_that_runs_out_of_memory_is_split_and_nothing_is_lost(model, where):
    expected = bits(Engine(model, threads=1).run(requests()))
    engine = Engine(model, threads=1)
    whole = getattr(engine.forward, where)
    refused = []

    def limited(first, *rest):
        count = len(first.tokens) if where == "run" else len(first)
        if count > 3:
            refused.append(count)
            raise MemoryError
        return whole(first, *rest)

    setattr(engine.forward, where, limited)
    assert bits(engine.run(requests())) == expected
    assert refused
    assert engine.sizer.most_tokens < 512
    engine.scheduler.pool.check([])


def test_a_request_for_which_there_is_no_memory_at_all_fails_alone(model):
    engine = Engine(model, threads=1)
    run = engine.forward.run

    def limited(batch):
        if 7 in batch.tokens:
            raise MemoryError
        return run(batch)

    engine.forward.run = limited
    given = [Request("a", np.array([1, 2, 3])), Request("b", np.array([3, 7, 9]))]
    results = {r.id: r for r in engine.run(given)}
    assert results["b"].error == "out of memory"
    assert np.isfinite(results["a"].logprobs[1:]).all()
    engine.scheduler.pool.check([])


@pytest.mark.parametrize("preset", ["latency", "throughput", "streaming"])
def test_presets_change_no_bits(model, preset):
    expected = bits(Engine(model, threads=1).run(requests()))
    engine = Engine(model, threads=1, preset=preset)
    for _ in range(3):
        assert bits(engine.run(requests())) == expected
    assert engine.sizer.last.limit in ("memory", "latency", "throughput")


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
def test_memory_is_that_of_the_arrays(model, compute, kv_dtype):
    sizes = {"threads": 2, "max_num_seqs": 8, "max_num_batched_tokens": 64, "kv_tokens": 320}
    sizes |= {"compute": compute, "kv_dtype": kv_dtype}
    engine, estimate = Engine(model, **sizes), estimate_memory(model, **sizes)
    assert estimate.kv_pool == engine.scheduler.pool.cache.nbytes
    held = [*vars(engine.forward).values(), engine.sampler._scratch]
    held += [each for arrays in engine.forward._inputs for each in arrays]
    unique = {id(each): each for each in held if isinstance(each, np.ndarray)}
    arrays = sum(each.nbytes for each in unique.values())
    arrays += 4 * 16 * VOCABULARY  # logits, with those of guesses
    assert estimate.workspace == pytest.approx(arrays, rel=0.01)
    arena = engine.forward.tables._arena
    assert estimate.packed == arena._memory.nbytes
    assert engine.forward.tables.nbytes <= arena._used <= estimate.packed  # none is outside it
    assert (estimate.packed > 0) == (compute != "float32")
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96
    weights = 4 * (3 * layer + 2 * VOCABULARY * 64)
    assert estimate.weights == pytest.approx(weights, rel=0.01)
    parts = (estimate.weights, estimate.packed, estimate.kv_pool, estimate.workspace)
    assert estimate.total == sum((*parts, estimate.results, estimate.ids))
    more = estimate_memory(model, kv_tokens=320, requests=1000, tokens_per_request=50)
    assert more.results > 1000 * 50 * 13
    assert more.ids == 38_000


def test_a_tied_matrix_is_counted_once(tmp_path):
    write_huggingface("gpt2", tmp_path)
    estimate = estimate_memory(load_model(tmp_path), kv_tokens=16)
    assert estimate.weights < 4 * (3 * 12 * 64 * 64 * 1.05 + (VOCABULARY + 128) * 64 * 1.05)


def steps(token=1e-3, fixed=0.02):
    rng, time = np.random.default_rng(0), StepTime()
    for _ in range(300):
        x = (rng.integers(1, 500), rng.integers(1, 32), rng.integers(0, 50_000))
        time.observe(*x, machine(*x, rng, fixed=fixed, token=token))
    return time


def test_the_largest_batch_and_what_bounds_it(model):
    def largest(memory, latency, **speed):
        return largest_batch(model, memory, latency, steps(**speed), tokens_per_sequence=128)

    mb = kv_token_bytes(model.decoder) * 128 / 2**20
    few, more = largest(4, None, fixed=10.0), largest(4 + 8 * mb, None, fixed=10.0)
    assert few.limit == more.limit == "memory"
    # Sizes are tried in steps of a sixteenth, here of two or three, and each takes some working
    # memory too, by the CPU's arithmetic.
    assert 5 <= more.tokens - few.tokens <= 8
    assert largest(1000, 60).limit == "latency"
    assert largest(1000, 60).tokens == pytest.approx((0.06 - 0.02) / 1.1e-3, rel=0.1)
    assert largest(10_000, None).limit == "throughput"


def test_targets_that_one_sequence_misses_say_how_much_is_needed(model):
    with pytest.raises(InputError, match=r"one sequence of 128 tokens needs \d+\.\d MB"):
        largest_batch(model, 0.01, None, steps(), tokens_per_sequence=128)
    with pytest.raises(InputError, match=r"a step of one sequence takes 21\.\d ms"):
        largest_batch(model, 1000, 5, steps(), tokens_per_sequence=128)
    for memory in (float("nan"), 0, -1, "1"):
        with pytest.raises(InputError, match=r"available_memory_mb is .*, should be a number"):
            largest_batch(model, memory, None, steps(), tokens_per_sequence=128)
    for name in ("target_latency_ms", "tokens_per_sequence"):
        wanted = {"target_latency_ms": 50, "tokens_per_sequence": 128, name: 0}
        with pytest.raises(InputError, match=f"{name} is 0, should be a number above 0"):
            largest_batch(model, 1000, time=steps(), **wanted)
    with pytest.raises(InputError, match="most_tokens is 0, should be at least 1"):
        BatchSizer(0)


def test_a_model_that_was_not_run_yet_is_tried_first(folder):
    llm = LLM(folder, threads=1)
    size = llm.calculate_optimal_batch_size(100, 10_000)
    assert size.tokens >= 1
    assert size.limit in ("memory", "throughput", "latency")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"preset": "fast"}, "preset is 'fast', should be one of latency, streaming, throughput"),
        ({"target_latency_ms": 0}, "target_latency_ms is 0, should be above 0"),
        ({"target_latency_ms": float("nan")}, "target_latency_ms is nan"),
    ],
)
def test_bad_targets_are_refused(model, sizes, message):
    with pytest.raises(InputError, match=message):
        Engine(model, **sizes)


def test_bad_sizes_are_refused(model):
    with pytest.raises(InputError, match="a size is -1, should be at least 0"):
        estimate_memory(model, kv_tokens=-1)
    with pytest.raises(InputError, match="compute is 'int4', should be one of float32"):
        estimate_memory(model, kv_tokens=16, compute="int4")
