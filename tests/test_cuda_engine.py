"""The engine on a GPU or in the simulator, against the engine on the CPU."""

import numpy as np
import pytest
from cuda_cases import SIMULATED, needs_device
from tiny_models import VOCABULARY, write_gguf, write_huggingface

from numbatch import LLM
from numbatch.batching.backend import make_engine
from numbatch.batching.cuda.weights import DeviceWeights, weight_bytes
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.results import FailedResult
from numbatch.errors import DeviceError, InputError
from numbatch.kernels.cuda import Gpu, check_on_device
from numbatch.models.load import load_model

pytestmark = needs_device
on_gpu = pytest.mark.skipif(SIMULATED, reason="too slow in the simulator, or needs tensor cores")
SIZES = {"max_model_len": 64, "max_num_seqs": 4, "max_num_batched_tokens": 16, "kv_tokens": 256}
FAMILIES = (
    ["llama"] if SIMULATED else ["llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "mistral"]
)


def make(family, folder, **overrides):
    layers = {"num_hidden_layers": 1} if SIMULATED else {}
    write_huggingface(family, folder, **layers, **overrides)
    return load_model(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make("llama", tmp_path_factory.mktemp("llama"))


def make_requests(count=6):
    """Texts to score and to continue, greedily and not, longer and shorter than a step."""
    rng = np.random.default_rng(1)
    longest = 20 if SIMULATED else 40
    requests = []
    for i in range(count):
        params = None
        if i % 3 == 1:
            params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=2)
        elif i % 3 == 2:
            params = SamplingParams(
                temperature=0.5, top_p=0.9, top_k=40, repetition_penalty=1.2, frequency_penalty=0.2,
                seed=i, max_tokens=4, ignore_eos=True,
            )  # fmt: skip
        tokens = rng.integers(0, VOCABULARY - 2, rng.integers(2, longest))
        requests.append(Request(f"r{i}", tokens, params))
    return requests


def compare(model, requests, device="cuda", **more):
    """Compare with the CPU, log-probabilities within bfloat16's rounding."""
    wanted = {r.id: r for r in make_engine(model, **SIZES).run(requests)}
    found = {r.id: r for r in make_engine(model, device, **SIZES, **more).run(requests)}
    assert found.keys() == wanted.keys()
    greedy = {r.id for r in requests if r.params is not None and r.params.temperature == 0}
    for name, result in found.items():
        assert getattr(result, "error", None) is None
        ours, theirs = result.token_ids, wanted[name].token_ids
        # A token may fall the other way where two are about as likely, or where the coin lies near
        # the boundary of two; what follows then differs.
        differs = np.flatnonzero(ours != theirs)
        same = differs[0] if len(differs) else len(ours)
        is_greedy = name in greedy
        end = same + 1 if is_greedy and same < len(ours) else same
        assert np.allclose(
            result.logprobs[:end], wanted[name].logprobs[:end], atol=0.15, equal_nan=True
        )
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cpus_results_within_rounding(family, tmp_path):
    compare(make(family, tmp_path), make_requests(3 if SIMULATED else 12))


@on_gpu
@pytest.mark.parametrize("format", ["Q4_0", "Q4_1", "Q8_0", "Q6_K"])
def test_packed_weights(format, tmp_path):
    import gguf

    path = tmp_path / "model.gguf"
    write_gguf("llama", path, format=gguf.GGMLQuantizationType[format])
    compare(load_model(path), make_requests(12))


def fingerprint(results):
    return {r.id: (r.token_ids.tobytes(), r.logprobs.tobytes()) for r in results}


@on_gpu
def test_invariant_results_are_bitwise_those_of_each_request_alone(model):
    requests = make_requests(12)
    alone = {}
    engine = make_engine(model, "cuda", invariant=True, **SIZES)
    for request in requests:
        alone |= fingerprint(engine.run([request]))
    for seed, sizes in enumerate(({}, {"max_num_batched_tokens": 7}, {"max_num_seqs": 2})):
        shuffled = list(requests)
        np.random.default_rng(seed).shuffle(shuffled)
        engine = make_engine(model, "cuda", invariant=True, **{**SIZES, **sizes})
        assert fingerprint(engine.run(shuffled)) == alone


def test_a_step_that_runs_out_of_memory_is_split(model, monkeypatch):
    engine = make_engine(model, "cuda", **SIZES)
    tried = []
    allocate = engine.forward.new_workspace

    def tight(tokens):
        tried.append(tokens)
        if tokens > 4:
            raise MemoryError
        return allocate(tokens)

    monkeypatch.setattr(engine.forward, "new_workspace", tight)
    monkeypatch.setattr(engine.forward, "smallest", 1)
    request = make_requests(1)[0]
    (found,) = engine.run([request])
    (wanted,) = make_engine(model, **SIZES).run([request])
    assert max(tried) > 4
    assert engine.sizer.most_tokens <= 8
    assert np.allclose(found.logprobs, wanted.logprobs, atol=0.15, equal_nan=True)


def test_a_model_that_does_not_fit_says_what_would(model, monkeypatch):
    gpu = Gpu()
    free = weight_bytes(model.decoder) * 6 // 10
    monkeypatch.setattr(gpu, "memory", lambda: (free, 2**31))
    with pytest.raises(DeviceError, match=r"weights need 0.0 GiB .* what would fit: 8-bit"):
        DeviceWeights(gpu, model.decoder)
    monkeypatch.setattr(gpu, "memory", lambda: (100, 2**31))
    with pytest.raises(DeviceError, match="what would fit: a GPU with more than"):
        DeviceWeights(gpu, model.decoder)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A model whose hidden states are not numbers where it has seen token 7."""
    import torch
    from tiny_models import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("broken")
    made = make_model("llama", num_hidden_layers=1)
    with torch.no_grad():
        made.model.embed_tokens.weight[7] = float("nan")
    made.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return load_model(folder)


def test_nan_fails_the_request_alone(broken):
    params = SamplingParams(max_tokens=3, ignore_eos=True, temperature=0)
    good, bad = Request("good", np.array([1, 2]), params), Request("bad", np.array([7]), params)
    engine = make_engine(broken, "cuda", **SIZES)
    results = {result.id: result for result in engine.run([bad, good])}
    assert results["bad"].error == "the model's logits are not numbers (NaN)"
    assert len(results["good"].token_ids) == 3
    assert not isinstance(results["good"], FailedResult)
    assert engine.scheduler.pool.free_blocks == engine.scheduler.pool.blocks


def test_nan_fails_a_text_alone_whose_next_chunk_is_under_way(broken):
    tokens = np.arange(20, 56)  # three steps
    bad, worse = tokens.copy(), tokens.copy()
    bad[2], worse[30] = 7, 7
    engine = make_engine(broken, "cuda", **SIZES)
    texts = {"good": tokens, "bad": bad, "short": tokens[:4], "worse": worse}
    results = list(engine.run([Request(name, each) for name, each in texts.items()]))
    assert sorted(result.id for result in results) == sorted(texts)
    for result in results:
        if result.id in ("bad", "worse"):
            assert "are NaN or infinite" in result.error
        else:
            assert np.isfinite(result.logprobs[1:]).all()
    assert engine.scheduler.pool.free_blocks == engine.scheduler.pool.blocks
    assert not engine.has_work


def test_scores_come_a_step_later(model):
    engine = make_engine(model, "cuda", **SIZES)
    (wanted,) = engine.run([Request("wanted", np.arange(2, 30))])
    came = []
    for name in ("kept", "cancelled"):
        engine.submit(Request(name, np.arange(2, 30)), lambda _, result: came.append(result))
    while engine.has_work:
        engine.step()
        for sequence in list(engine.scheduler.running):
            if sequence.request.id == "cancelled" and sequence.computed:
                engine.cancel(sequence)
    kept, cancelled = sorted(came, key=lambda result: result.id, reverse=True)
    assert np.allclose(kept.logprobs, wanted.logprobs, atol=1e-2, equal_nan=True)
    assert cancelled.error == "cancelled"
    assert engine.step() == []
    assert engine.scheduler.pool.free_blocks == engine.scheduler.pool.blocks


def test_devices_that_there_are_not(model):
    for device in ("tpu", "cuda:x", "cuda:-1", "gpu"):
        with pytest.raises(InputError, match="device is"):
            make_engine(model, device)
    with pytest.raises(InputError, match="on the CPU results are invariant"):
        make_engine(model, invariant=True)
    with pytest.raises(InputError, match="logits_processor needs one GPU"):
        make_engine(model, "cuda:*", logits_processor=len)


def test_an_array_on_the_wrong_device_is_named():
    with pytest.raises(DeviceError, match="tokens is a ndarray in the host's memory"):
        check_on_device("tokens", np.zeros(3))
    check_on_device("tokens", Gpu().upload(np.zeros(3)))


def test_the_interface_takes_a_device(tmp_path):
    make("llama", tmp_path)
    llm = LLM(tmp_path, device="cuda", **SIZES)
    scores = llm.score(["a tale"])
    assert np.isfinite(scores[0][1:]).all()
