"""All GPUs against one on 2,000 requests: texts to score and prompts to continue."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from asv_bench.cuda.common import VOCABULARY, model, row
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.worker_pool import WorkerPool
from numbatch.kernels.cuda import count_gpus

REQUESTS = 2000
ROUNDS = 2
OPTIONS: dict[str, Any] = {
    "max_num_seqs": 128, "max_num_batched_tokens": 8192, "kv_tokens": 2**18, "max_model_len": 2304,
}  # fmt: skip


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


def warm_pool(name: str, devices: Sequence[str]) -> WorkerPool:
    """Return a pool whose workers have loaded the model and run all requests once.

    They compile kernels then, and cuBLAS loads its own for each size of a step, which takes seconds
    in a new process.
    """
    pool = WorkerPool(model(name), functools.partial(model, name), devices, **OPTIONS)
    list(pool.run(requests(REQUESTS)))
    return pool


def timed(pool: WorkerPool, given: list[Request]) -> tuple[float, list[float], float]:
    """Run requests; return the seconds, how long each worker was idle, and this process's CPU.

    Raises
    ------
    RuntimeError
        If a request failed, or was not answered just once.
    """
    cpu, begin = time.process_time(), time.perf_counter()
    busy = [begin] * len(pool.workers)
    results = []
    for result in pool.run(given):
        results.append(result)
        now = time.perf_counter()
        busy = [
            now if worker.tasks else last for worker, last in zip(pool.workers, busy, strict=True)
        ]
    end = time.perf_counter()
    failed = [r for r in results if getattr(r, "error", None)]
    if sorted(r.id for r in results) != list(range(len(given))) or failed:
        raise RuntimeError(f"{len(results)} results, {len(failed)} failed")
    return end - begin, [end - last for last in busy], time.process_time() - cpu


def main(name: str = "1B") -> None:
    """Print the rates of one GPU and of all, and that each request was answered once."""
    model(name)  # its noise is made once, before the threads ask for it
    given = requests(REQUESTS)
    tokens = sum(r.tokens.size + (r.params.max_tokens if r.params else 0) for r in given)
    counts = sorted({1, count_gpus()})
    begin = time.perf_counter()
    # An idle worker takes nothing from the others, so all pools load and compile at once.
    with ThreadPoolExecutor() as threads:
        pools = list(
            threads.map(lambda n: warm_pool(name, [f"cuda:{i}" for i in range(n)]), counts)
        )
    print(f"{sum(counts)} workers ready after {time.perf_counter() - begin:.0f} s", flush=True)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count, pool in zip(counts, pools, strict=True):
            seconds, idle, cpu = timed(pool, given)
            rates[count].append(tokens / seconds)
            row(
                f"{name}, {REQUESTS:,} requests, {count} GPUs", f"{tokens / seconds:,.0f} tok/s",
                f"{seconds:.1f} s", "idle " + ", ".join(f"{each:.1f}" for each in idle) + " s",
                f"host's CPU {cpu:.1f} s",
            )  # fmt: skip
    for count in counts[1:]:
        ratio = np.median(rates[count]) / np.median(rates[1])
        row(f"{name}: {count} GPUs over one", f"x {ratio:.2f}")
