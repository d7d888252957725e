"""Scoring of texts of 512 to 2,048 tokens against transformers with torch (SDPA, bfloat16)."""

from __future__ import annotations

import gc
import time
from typing import Any

import cupy
import numpy as np
import torch

from asv_bench.cuda.common import (
    VOCABULARY,
    limits,
    matrix_rate,
    model,
    row,
    torch_model,
    weights_of,
)
from numbatch.batching.backend import make_engine
from numbatch.batching.request import Request

TEXTS, SHORTEST, LONGEST = 64, 512, 2048
STEP = 16384
CHECKED = 4
"""Texts whose log-probabilities are compared with float32."""

PEER_TOKENS = 16384
"""Tokens of a padded batch of the peer."""


def texts(count: int = TEXTS) -> list[np.ndarray]:
    """Return random token ids of random lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(SHORTEST, LONGEST + 1, count)
    return [rng.integers(0, VOCABULARY, length) for length in lengths]


def peer_scores(peer: Any, given: list[np.ndarray]) -> list[np.ndarray]:
    """Score with transformers: sorted by length, padded, log-softmax a text at a time."""
    order = sorted(range(len(given)), key=lambda i: -len(given[i]))
    out: list[np.ndarray] = [np.empty(0)] * len(given)
    pending: list[tuple[int, torch.Tensor]] = []
    while order:
        count = max(1, PEER_TOKENS // len(given[order[0]]))
        batch, order = order[:count], order[count:]
        longest = len(given[batch[0]])
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        for line, i in enumerate(batch):
            ids[line, : len(given[i])] = torch.from_numpy(given[i])
        ids = ids.cuda()
        # Padding comes last and attention is causal, so no mask is needed: the fast path.
        hidden = peer.model(input_ids=ids, use_cache=False).last_hidden_state
        for line, i in enumerate(batch):
            n = len(given[i])
            logits = peer.lm_head(hidden[line, : n - 1]).float()
            chosen = logits.gather(1, ids[line, 1:n, None])[:, 0]
            pending.append((i, chosen - torch.logsumexp(logits, 1)))
    for i, values in pending:
        out[i] = values.cpu().numpy()
    return out


def free() -> None:
    """Give memory back to the other library."""
    gc.collect()
    torch.cuda.empty_cache()
    cupy.get_default_memory_pool().free_all_blocks()


def best_of(action: Any, repeats: int = 3) -> float:
    """Return the median seconds of an action, of the clock."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


@torch.inference_mode()
def measure(name: str, *options: str) -> None:
    """Check, then time a shape; ``compile`` compiles the peer, ``invariant`` times that as well."""
    given = texts()
    tokens = sum(map(len, given))
    loaded = model(name)
    operations = 2 * weights_of(loaded) * tokens
    settings = {"max_num_batched_tokens": STEP, "max_num_seqs": 64, "kv_tokens": 2**17 + 2**15,
                "max_model_len": LONGEST, "enable_prefix_caching": False}  # fmt: skip
    results = {}
    for kind in ("plain", "invariant") if "invariant" in options else ("plain",):
        engine = make_engine(loaded, "cuda", invariant=kind == "invariant", **settings)
        requests = [Request(i, ids) for i, ids in enumerate(given)]
        ours = {r.id: r.logprobs for r in engine.run(requests)}
        repeats = 1 if kind == "invariant" else 3
        seconds = best_of(lambda e=engine, r=requests: list(e.run(r)), repeats)
        results[kind] = (ours, seconds)
        del engine
        free()
    peer = torch_model(name, loaded)
    if "compile" in options:
        peer.model = torch.compile(peer.model, dynamic=True)
    theirs = peer_scores(peer, given)
    peer_seconds = best_of(lambda: peer_scores(peer, given))
    for kind, (_, seconds) in results.items():
        row(
            f"scoring {name}, {kind}, {TEXTS} texts, {tokens:,} tokens",
            f"{tokens / seconds:,.0f} tok/s", f"peer {tokens / peer_seconds:,.0f}",
            f"x {peer_seconds / seconds:.2f}",
            f"{operations / seconds / 1e12:.0f} TFLOP/s",
            f"{operations / seconds / matrix_rate():.0%} of product",
        )  # fmt: skip
    exact = peer_scores(getattr(peer, "_orig_mod", peer).float(), given[:CHECKED])
    errors = [
        float(np.mean([np.abs(found[i] - exact[i]).mean() for i in range(CHECKED)]))
        for found in ({i: v[1:] for i, v in results["plain"][0].items()}, theirs)
    ]
    print(f"mean error of a log-probability: {errors[0]:.4f}, the peer's {errors[1]:.4f}")
    if not errors[0] < 1.1 * errors[1]:
        raise RuntimeError("log-probabilities are further from float32 than the peer's")
    free()


def main(*options: str) -> None:
    """Print the table for the shapes named, or for both."""
    print(limits())
    for name in [each for each in options if each in ("1B", "8B")] or ["1B", "8B"]:
        measure(name, *options)
