"""SmolLM2, a model of real weights, on real text: ``python -m asv_bench.cuda smollm2``.

Needs ``NUMBATCH_TEST_DATA`` for the text. ``smollm2:PATH`` names the model's file where it cannot
be fetched.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from asv_bench.cuda.common import limits, row
from asv_bench.cuda.generation import peer_rate, tokens_a_second
from asv_bench.cuda.scoring import best_of, free, peer_scores
from asv_bench.cuda.tokenization import read_texts
from numbatch.batching.backend import make_engine
from numbatch.batching.request import Request
from numbatch.models.load import load_model
from numbatch.models.locate import locate

TEXTS, LONGEST, CHECKED, PROMPT = 512, 1024, 16, 64
SETTINGS: dict[str, Any] = {
    "max_num_batched_tokens": 16384, "max_num_seqs": 256, "kv_tokens": 2**18,
    "max_model_len": 2048, "enable_prefix_caching": False,
}  # fmt: skip


def peer_of(path: Any) -> Any:
    """Return transformers' model of the file, in float32 on the GPU."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers warns of is not ours to mend
        found = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    return found.cuda().eval()


def error_of(found: Any, exact: list[np.ndarray]) -> float:
    """Return the mean distance of log-probabilities from the exact ones."""
    pairs = [np.abs(found[i][-len(each) :] - each) for i, each in enumerate(exact)]
    return float(np.concatenate(pairs).mean())


def scores(engine: Any, given: list[np.ndarray]) -> dict[Any, np.ndarray]:
    """Return the log-probabilities of texts by the engine."""
    requests = [Request(i, ids) for i, ids in enumerate(given)]
    return {result.id: result.logprobs for result in engine.run(requests)}


@torch.inference_mode()
def scoring(engine: Any, peer: Any, given: list[np.ndarray]) -> None:
    """Compare log-probabilities with float32, then time the engine and the peer in bfloat16."""
    ours, exact = scores(engine, given), peer_scores(peer, given[:CHECKED])
    peer.to(torch.bfloat16)
    theirs = peer_scores(peer, given)
    errors = error_of(ours, exact), error_of(theirs, exact)
    print(f"mean error of a log-probability: {errors[0]:.4f}, the peer's {errors[1]:.4f}")
    perplexities = [
        np.exp(-np.mean(np.concatenate(each)))
        for each in ([ours[i][1:] for i in range(CHECKED)], exact)
    ]
    print(f"perplexity of {CHECKED} texts {perplexities[0]:.4f}, float32 {perplexities[1]:.4f}")
    if not errors[0] < 1.1 * errors[1]:
        raise RuntimeError("log-probabilities are further from float32 than the peer's")
    tokens = sum(map(len, given))
    seconds = best_of(lambda: scores(engine, given))
    other = best_of(lambda: peer_scores(peer, given))
    row(
        f"scoring SmolLM2, {len(given)} texts, {tokens:,} tokens", f"{tokens / seconds:,.0f} tok/s",
        f"peer {tokens / other:,.0f}", f"x {other / seconds:.2f}",
    )  # fmt: skip


def generation(engine: Any, peer: Any, given: list[np.ndarray]) -> None:
    """Time continuations of the texts' beginnings."""
    for count, kind in ((1, "sdpa"), (16, None), (256, "paged|sdpa")):
        prompts = [ids[:PROMPT] for ids in given[:count]]
        rate = tokens_a_second(engine, prompts, 32, 160)
        cells = [f"{rate:,.0f} tok/s"]
        if kind is not None:
            peer.set_attn_implementation(kind)
            other = peer_rate(peer, prompts, 16, 64)
            cells += [f"peer {other:,.0f}", f"x {rate / other:.2f}"]
        row(f"generation SmolLM2, {count} sequences", *cells)


def main(name: str = "smollm2") -> None:
    """Check and time scoring and generation."""
    print(limits())
    path = locate(name)
    loaded = load_model(path)
    texts = read_texts("english", 4_000_000)
    rows = [np.asarray(loaded.tokenizer.encode(text))[:LONGEST] for text in texts[: 2 * TEXTS]]
    given = [ids for ids in rows if len(ids) > PROMPT][:TEXTS]
    engine, peer = make_engine(loaded, "cuda", **SETTINGS), peer_of(path)
    scoring(engine, peer, given)
    generation(engine, peer, given)
    free()
