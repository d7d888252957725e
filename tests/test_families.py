"""Every decoder family, with tiny random weights, against transformers."""

import numpy as np
import pytest
import torch
import transformers
from tiny_models import END, FAMILIES, GGUF_FAMILIES, VOCABULARY, write_gguf, write_huggingface

from numbatch import LLM, SamplingParams
from numbatch.batching.forward import Batch
from numbatch.kernels.scoring.activations import COMPUTE
from numbatch.kernels.scoring.row_states import reduce_rows

TOKENS = np.random.default_rng(4).integers(0, VOCABULARY - 2, 60)


def hidden_states(forward, tokens):
    """Hidden states at every place of one sequence, by one run of the forward pass."""
    n, block_size = len(tokens), forward.pool.block_size
    positions = np.arange(n)
    tables = np.arange(-(-n // block_size))[None]
    rows = np.zeros(n, np.int64)
    return forward.run(Batch(tokens, positions, rows, positions, tables))


def all_logits(llm, tokens):
    """Logits at every place of one sequence."""
    forward = llm.engine.forward
    return forward.logits(hidden_states(forward, tokens))


def reference_logits(model, tokens):
    with torch.no_grad():
        return model.float()(torch.tensor(np.asarray(tokens)[None])).logits[0].numpy()


def assert_same_model(llm, model):
    expected = reference_logits(model, TOKENS)
    found = all_logits(llm, TOKENS)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    # The windows and the original rope contexts are shorter than this.
    logprobs = llm.score(TOKENS)[0]
    exact = torch.log_softmax(torch.tensor(expected).double(), -1).numpy()
    assert np.isnan(logprobs[0])
    np.testing.assert_allclose(logprobs[1:], exact[np.arange(59), TOKENS[1:]], atol=2e-4)


def assert_same_greedy_tokens(llm, model):
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    found = llm.generate([TOKENS[:7], TOKENS[20:60]], params)
    for prompt, result in zip([TOKENS[:7], TOKENS[20:60]], found, strict=True):
        tokens = list(prompt)
        for _ in range(24):
            tokens.append(int(reference_logits(model, tokens)[-1].argmax()))
        assert result.token_ids.tolist() == tokens[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_huggingface_folder(family, tmp_path):
    model = write_huggingface(family, tmp_path)
    llm = LLM(tmp_path, threads=2, compute="float32", kv_dtype="float32")
    assert_same_model(llm, model)
    assert_same_greedy_tokens(llm, model)


@pytest.mark.parametrize("family", GGUF_FAMILIES)
def test_gguf_file(family, tmp_path):
    model = write_gguf(family, tmp_path / "tiny.gguf")
    llm = LLM(tmp_path / "tiny.gguf", threads=2, compute="float32", kv_dtype="float32")
    assert_same_model(llm, model)
    assert_same_greedy_tokens(llm, model)


def test_states_of_logits_are_those_of_whole_rows(tmp_path):
    write_huggingface("gemma2", tmp_path)  # soft-capped logits, in two tiles
    for threads in (1, 2, 3):
        forward = LLM(tmp_path, threads=threads).engine.forward
        logits, states = forward.logits_to_draw(hidden_states(forward, TOKENS))
        expected = np.full_like(states, np.nan)
        reduce_rows(0, len(logits), logits, expected)
        assert np.array_equal(states, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_half_precision_weights(family, dtype, tmp_path):
    write_huggingface(family, tmp_path, dtype=dtype)
    # Read again: a model cast to half has lost digits of its rotary frequencies too.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert_same_model(LLM(tmp_path, compute="float32", kv_dtype="float32"), model.eval())


def test_the_end_token_of_the_folder_ends_a_text(tmp_path):
    write_huggingface("llama", tmp_path)
    assert LLM(tmp_path).model.eos_ids == {END}


@pytest.mark.parametrize("compute", COMPUTE)
def test_heads_wider_than_hidden_states_on_two_threads(compute, tmp_path):
    """Each thread has rows of its own, which lie elsewhere in inputs of another width."""
    write_huggingface("llama", tmp_path, head_dim=64)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, VOCABULARY - 2, 120) for _ in range(8)]
    one, two = (
        LLM(tmp_path, threads=n, compute=compute, max_num_batched_tokens=1024) for n in (1, 2)
    )
    expected = [row.tobytes() for row in one.score(texts)]
    for _ in range(10):  # four in five went wrong where both threads wrote to the same place
        assert [row.tobytes() for row in two.score(texts)] == expected
