"""The batching layer: ids, bookkeeping, shared contexts, continuous batches, sizes, journal.

``python -m benchmarks.batching`` (in ``asv_bench``) prints the figures that need more than a time:
ratios in one run, percentiles, fairness.
"""

import itertools
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from numbatch import LLM, IdMap, Request, SamplingParams
from numbatch.batching.kv_pool import KVPool
from numbatch.batching.scheduler import Scheduler
from numbatch.batching.sequence import Sequence


def random_tokens(rng, count):
    return rng.integers(1000, 40000, count)


class Ids:
    """Ids of about 13 bytes, asked for in random order."""

    params = (1_000, 1_000_000)
    param_names = ("ids",)
    timeout = 300

    def setup(self, count):
        rng = np.random.default_rng(0)
        self.names = [f"request-{i}" for i in rng.permutation(count)]
        self.shuffled = [self.names[i] for i in rng.permutation(count)]
        self.some = list(itertools.islice(itertools.cycle(self.shuffled), 1000))
        self.ids = IdMap(self.names)

    def time_build(self, count):
        IdMap(self.names)

    def time_1000_look_ups_one_by_one(self, count):
        for name in self.some:
            self.ids.get(name)

    def time_look_up_all(self, count):
        self.ids.index_of(self.shuffled)

    def track_bytes_above_the_ids_own(self, count):
        return (self.ids.nbytes - sum(map(len, self.names))) / count


class Scheduling:
    """Steps of 256 running and 100,000 waiting requests, without a model."""

    params = (1, 50)
    param_names = ("tags",)
    timeout = 300
    number = 1
    warmup_time = 0

    def setup(self, tags):
        rng = np.random.default_rng(0)
        params = SamplingParams(max_tokens=64, ignore_eos=True)
        pool = KVPool(SimpleNamespace(head_size=1, kv_heads=1), 1, 256 * 500)
        self.scheduler = Scheduler(pool, 256, 2048)
        for i in range(100_256):
            request = Request(
                i, random_tokens(rng, 100), params, priority=i * 7 % 3, tag=str(i % tags)
            )
            self.scheduler.add(Sequence(request, 400))
        while len(self.scheduler.running) < 256:
            self.step()

    def step(self):
        """Run a step; return the seconds of the bookkeeping alone."""
        begin = time.perf_counter()
        chunks = self.scheduler.schedule()
        self.scheduler.advance(chunks)
        seconds = time.perf_counter() - begin
        finished = []
        for sequence, _, _ in chunks:
            if sequence.behind == 0:
                sequence.append(1, -1.0)
                if sequence.length == sequence.capacity:
                    finished.append(sequence)
        begin = time.perf_counter()
        for sequence in finished:
            self.scheduler.finish(sequence)
        return seconds + time.perf_counter() - begin

    def track_median_ms_a_step(self, tags):
        return 1000 * float(np.median([self.step() for _ in range(300)]))


class SharedContext:
    """Multiple choice: options of 10 tokens under contexts of 400."""

    params = (True, False)
    param_names = ("shared",)
    timeout = 600
    number = 1
    contexts, options = 4, 8

    def setup(self, shared):
        self.llm = LLM("smollm2", enable_prefix_caching=shared)
        self.llm.score([random_tokens(np.random.default_rng(1), 20)])  # compile
        self.seed = 0

    def requests(self):
        self.seed += 1  # contexts that no earlier run has left behind
        rng = np.random.default_rng(self.seed)
        for i in range(self.contexts):
            context = random_tokens(rng, 400)
            for j in range(self.options):
                tokens = np.concatenate([context, random_tokens(rng, 10)])
                yield Request(f"{i}-{j}", tokens, score_from=400)

    def time_choose(self, shared):
        self.results = list(self.llm.engine.run(list(self.requests())))


class Continuous:
    """Outputs of 8 to 256 tokens: joining and leaving at any step, or in batches that wait.

    Both have the same KV memory: room for 8 sequences of the longest kind.
    """

    params = (True, False)
    param_names = ("continuous",)
    timeout = 900
    number = 1
    count, at_once = 64, 8

    def setup(self, continuous):
        most = 4 * self.at_once if continuous else self.at_once
        self.llm = LLM(
            "smollm2", max_num_seqs=most, kv_tokens=self.at_once * 272, max_model_len=272
        )
        self.llm.score([random_tokens(np.random.default_rng(1), 20)])

    def requests(self):
        rng = np.random.default_rng(0)
        for i in range(self.count):
            params = SamplingParams(
                temperature=0, max_tokens=int(rng.integers(8, 257)), ignore_eos=True
            )
            yield Request(i, random_tokens(rng, 16), params)

    def time_generate(self, continuous):
        requests = list(self.requests())
        size = self.count if continuous else self.at_once
        for begin in range(0, self.count, size):
            list(self.llm.engine.run(requests[begin : begin + size]))


class Journal:
    """A run with and without a journal."""

    params = (True, False)
    param_names = ("journal",)
    timeout = 600
    number = 1

    def setup(self, journal):
        self.llm = LLM("smollm2")
        rng = np.random.default_rng(0)
        self.requests = [Request(i, random_tokens(rng, 32)) for i in range(200)]
        self.llm.score([random_tokens(rng, 20)])

    def time_run(self, journal):
        with tempfile.TemporaryDirectory() as folder:
            self.llm.run(self.requests, journal=Path(folder) / "journal" if journal else None)


def ratio(benchmark, method, rounds=3):
    """Return how much longer a benchmark takes with its second parameter, interleaved."""
    first, second = (benchmark() for _ in range(2))
    first.setup(benchmark.params[0])
    second.setup(benchmark.params[1])
    ratios = []
    for _ in range(rounds):
        seconds = []
        for each, parameter in ((first, benchmark.params[0]), (second, benchmark.params[1])):
            begin = time.perf_counter()
            getattr(each, method)(parameter)
            seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[1] / seconds[0])
    return float(np.median(ratios))


def step_times(steps, **sizes):
    """Return the seconds of steps while prompts and decoding are mixed, and the tokens a second."""
    llm = LLM("smollm2", **sizes)
    rng = np.random.default_rng(0)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    for i in itertools.count():
        llm.engine.submit(Request(i, random_tokens(rng, int(rng.integers(20, 200))), params))
        if i > steps:
            break
    seconds, tokens = [], 0
    for number in range(steps):
        begin = time.perf_counter()
        llm.engine.step()
        if number >= steps // 5:  # what comes before is learning
            seconds.append(time.perf_counter() - begin)
            tokens += sum(chunk.length for chunk in llm.engine.scheduler._chunks.values())
    return np.array(seconds), tokens / sum(seconds)


def main():
    print(f"shared contexts: {ratio(SharedContext, 'time_choose'):.2f} times as fast")
    print(f"continuous batching: {ratio(Continuous, 'time_generate', 1):.2f} times as fast")
    print(f"journal: {100 * (1 / ratio(Journal, 'time_run', 5) - 1):.1f} % slower")
    seconds, _ = step_times(1000, target_latency_ms=400)
    print(f"latency 400 ms: 95th percentile {1000 * np.percentile(seconds, 95):.0f} ms")
    rates = {size: step_times(60, max_num_batched_tokens=size)[1] for size in (64, 256, 512)}
    rates["preset"] = step_times(60, preset="throughput")[1]
    print("tokens a second by step size:", {size: round(rate) for size, rate in rates.items()})


if __name__ == "__main__":
    main()
