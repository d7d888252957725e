"""Two GPUs against one on 2,000 requests: texts to score and prompts to continue."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from asv_bench.cuda.common import VOCABULARY, model, row
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.worker_pool import WorkerPool
from numbatch.kernels.cuda import count_gpus

REQUESTS = 2000


def requests(count: int) -> list[Request]:
    """Return requests of very different lengths, a third of which are generated for."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(32, 2048, count)
    return [
        Request(
            i, rng.integers(0, VOCABULARY, length),
            SamplingParams(max_tokens=int(rng.integers(16, 128)), seed=i, ignore_eos=True)
            if i % 3 == 0 else None,
        )
        for i, length in enumerate(lengths)
    ]  # fmt: skip


def main(name: str = "1B") -> None:
    """Print the rates of one GPU and of all, and that each request was answered once."""
    loaded = model(name)
    load = functools.partial(model, name)
    given = requests(REQUESTS)
    tokens = sum(r.tokens.size + (r.params.max_tokens if r.params else 0) for r in given)
    rates: dict[int, float] = {}
    options: dict[str, Any] = {
        "max_num_seqs": 128, "max_num_batched_tokens": 8192, "kv_tokens": 2**18,
        "max_model_len": 2304,
    }  # fmt: skip
    for count in sorted({1, count_gpus()}):
        pool = WorkerPool(loaded, load, [f"cuda:{i}" for i in range(count)], **options)
        list(pool.run(requests(64 * count)))  # compiles, in every worker
        begin = time.perf_counter()
        results = list(pool.run(given))
        seconds = time.perf_counter() - begin
        failed = [r for r in results if getattr(r, "error", None)]
        if sorted(r.id for r in results) != list(range(REQUESTS)) or failed:
            raise RuntimeError(f"{len(results)} results, {len(failed)} failed")
        rates[count] = tokens / seconds
        row(
            f"{name}, {REQUESTS:,} requests, {count} GPUs", f"{tokens / seconds:,.0f} tok/s",
            f"{seconds:.1f} s", f"x {rates[count] / rates[1]:.2f}",
        )  # fmt: skip
        del pool
