"""What the tests of jobs share: requests, and waiting until they are queued."""

import numpy as np
from tiny_models import VOCABULARY

from numbatch import Request, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)


def tokens(seed, count=9):
    return np.random.default_rng(seed).integers(0, VOCABULARY - 2, count)


def make_requests(count=10):
    return [Request(f"r{i}", tokens(i), GREEDY if i % 2 else None) for i in range(count)]


def bits(result):
    return result.token_ids.tobytes(), result.logprobs.tobytes(), getattr(result, "text", None)


def held(job):
    """Wait until the job's requests are all queued."""
    with job.changed:
        while not job._is_read:  # nobody is told when reading ends: look again
            job.changed.wait(0.02)
