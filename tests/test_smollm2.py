"""The real default model against transformers, in float32 on the dequantized weights."""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from numbatch import LLM, SamplingParams

ROOT = Path(__file__).parents[1]

TEXTS = [
    *[part for part in (ROOT / "LICENSE").read_text().split("\n\n") if len(part) > 300][:4],
    (ROOT / "kernels" / "scoring" / "norm.py").read_text()[:1500],
    "Der schnelle braune Fuchs springt über den faulen Hund. Ça va très bien, merci ! こんにちは。",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233",
    "Yes.",
]


@pytest.fixture(scope="module")
def llm(smollm2):
    return LLM(smollm2, compute="float32", kv_dtype="float32")


@pytest.fixture(scope="module")
def reference(smollm2):
    """transformers' own reading of the file: its GGUF loader, its Llama."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers warns of is not ours to mend
        model = transformers.AutoModelForCausalLM.from_pretrained(
            smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32
        )
    return model.eval()


def reference_logprobs(model, tokens):
    tokens = torch.tensor(np.asarray(tokens))
    with torch.no_grad():
        logprobs = torch.log_softmax(model(tokens[None]).logits[0], -1)
    return logprobs[torch.arange(len(tokens) - 1), tokens[1:]].numpy(), logprobs.argmax(-1)


def test_log_probabilities_match_transformers(llm, reference):
    ours, theirs = [], []
    for text, logprobs in zip(TEXTS, llm.score(TEXTS), strict=True):
        expected, _ = reference_logprobs(reference, llm.encode(text))
        assert np.isnan(logprobs[0])
        np.testing.assert_allclose(logprobs[1:], expected, atol=1e-3)
        ours.append(logprobs[1:])
        theirs.append(expected)
    found = llm.perplexity(TEXTS)
    corpus = math.exp(-np.concatenate(theirs).mean(dtype=np.float64))
    assert found.corpus == pytest.approx(corpus, rel=1e-4)
    assert found.tokens == sum(map(len, ours))
    scored = [len(llm.tokenizer.decode_bytes(llm.encode(text)[1:])) for text in TEXTS]
    bits = -np.concatenate(theirs).sum(dtype=np.float64) / math.log(2) / sum(scored)
    assert found.bits_per_byte == pytest.approx(bits, rel=1e-4)


def reference_continuation(model, tokens, count):
    """Greedy continuation by transformers, as tokens and their log-probabilities."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([list(tokens)]),
            max_new_tokens=count,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logprobs = [float(torch.log_softmax(logits[0], -1).max()) for logits in out.logits]
    return out.sequences[0, len(tokens) :].tolist(), logprobs


def test_greedy_tokens_match_transformers(llm, reference):
    prompts = ["The capital of France is", TEXTS[0][:400]]
    results = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=20))
    for prompt, result in zip(prompts, results, strict=True):
        tokens, logprobs = reference_continuation(reference, llm.encode(prompt), 20)
        assert result.token_ids.tolist() == tokens
        np.testing.assert_allclose(result.logprobs, logprobs, atol=1e-3)
    assert " Paris" in results[0].text


def test_log_likelihoods_match_transformers(llm, reference):
    pairs = [
        ("The capital of France is", " Paris"),
        ("The capital of France is ", "Rome, of course"),
        ("Question: 2 + 2?\nAnswer:", " 4"),
        ("", "It was a dark night."),
    ]
    for (context, continuation), found in zip(pairs, llm.loglikelihood(pairs), strict=True):
        whole = llm.encode(context + continuation).tolist()
        begin = len(llm.encode(context.rstrip()))
        if not context:
            whole, begin = [llm.tokenizer.bos_id, *whole], 1
        expected, best = reference_logprobs(reference, whole)
        assert found.logprob == pytest.approx(expected[begin - 1 :].sum(), abs=1e-3)
        assert found.is_greedy == (best[begin - 1 : -1].tolist() == whole[begin:])


def test_chat_matches_transformers(llm, reference, smollm2):
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            smollm2.parent, gguf_file=smollm2.name
        )
    messages = [{"role": "user", "content": "What is the capital of Italy?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    params = SamplingParams(temperature=0, max_tokens=30)
    (result,) = llm.chat(messages, params)
    assert result.prompt == prompt
    # Each begins with <|im_start|>, which is also this model's BOS: it is not added again.
    assert result.prompt_token_ids.tolist() == tokenizer(prompt)["input_ids"]
    tokens, _ = reference_continuation(reference, result.prompt_token_ids, 30)
    assert result.token_ids.tolist() == tokens
    assert result.finish_reason == "stop"
    assert [each.text for each in llm.chat([messages, messages], params)] == [result.text] * 2


@pytest.mark.parametrize(
    ("compute", "kv_dtype"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8")]
)
def test_real_text_gives_the_same_bits_in_any_batch(smollm2, compute, kv_dtype):
    params = SamplingParams(max_tokens=12, seed=5)
    alone_in = LLM(smollm2, compute=compute, kv_dtype=kv_dtype)
    alone = [alone_in.score(text)[0].tobytes() for text in TEXTS]
    drawn = [alone_in.generate(text[:60], params)[0].token_ids.tobytes() for text in TEXTS]
    rng = np.random.default_rng(0)
    for threads, budget, sequences in ((1, 16, 3), (2, 64, 5), (2, 512, 32)):
        other = LLM(
            smollm2,
            compute=compute,
            kv_dtype=kv_dtype,
            threads=threads,
            max_num_batched_tokens=budget,
            max_num_seqs=sequences,
        )
        order = rng.permutation(len(TEXTS))
        shuffled = [TEXTS[i] for i in order]
        assert [row.tobytes() for row in other.score(shuffled)] == [alone[i] for i in order]
        results = other.generate([text[:60] for text in shuffled], params)
        assert [each.token_ids.tobytes() for each in results] == [drawn[i] for i in order]


MEMORY = """
import numpy, sys
from numbatch import LLM
rng = numpy.random.default_rng(0)
LLM(sys.argv[1]).score(list(rng.integers(1000, 40000, (8, 512))))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) * 1024)  # not ru_maxrss, which begins with the parent's
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded(smollm2, llm):
    """8 sequences of 512 tokens in a process of its own, its kernels compiled before (by llm)."""
    llm.score(TEXTS[0])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(smollm2)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 600e6
