"""How much a process grows when an engine uses all it may: ``python -m asv_bench.resident``."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from typing import Any

import numpy as np

from numbatch import LLM, Request, SamplingParams, estimate_memory

__all__ = ["resident_growth"]

LENGTH = 256
REQUESTS = 64


def resident() -> int:
    """Return the bytes of memory that this process has, mapped files included."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        (kib,) = [line.split()[1] for line in status if line.startswith("VmRSS")]
    return 1024 * int(kib)


def use(sizes: dict[str, Any]) -> tuple[int, int]:
    """Run an engine until its pool is full; return the estimate and what the process has."""
    kv_tokens = sizes["max_num_seqs"] * LENGTH
    llm = LLM("smollm2", kv_tokens=kv_tokens, max_model_len=LENGTH, **sizes)
    rng = np.random.default_rng(0)
    params = SamplingParams(max_tokens=16, ignore_eos=True, temperature=0.7)
    requests = [
        Request(
            i, rng.integers(1000, 40000, LENGTH - (16 if i % 2 else 0)), params if i % 2 else None
        )
        for i in range(REQUESTS)
    ]
    batch = llm.run(requests)
    now = resident()
    estimate = estimate_memory(
        llm.model,
        kv_tokens=kv_tokens,
        threads=llm.engine.forward.team.threads,
        requests=len(batch),
        tokens_per_request=LENGTH,
        **sizes,
    )
    return estimate.total, now


def resident_growth(**sizes: Any) -> tuple[int, int]:
    """Return the estimated bytes of an engine and those by which a fresh process grows.

    What the compiled kernels themselves take is there before: a first engine, which is closed
    again, has loaded them.
    """
    done = subprocess.run(
        [sys.executable, "-m", "asv_bench.resident", json.dumps(sizes)],
        check=True,
        capture_output=True,
        text=True,
    )
    estimated, measured = done.stdout.split()
    return int(estimated), int(measured)


def main() -> None:
    """Print the estimate and the growth."""
    sizes = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {"max_num_seqs": 8}
    use({"max_num_seqs": 2})
    before = resident()
    estimated, now = use(sizes)
    print(estimated, now - before)


if __name__ == "__main__":
    main()
