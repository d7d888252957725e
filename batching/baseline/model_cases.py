"""Scoring, generation, and both from texts to results, on random tokens of a fixed seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from numbatch.batching.baseline.case import Case
from numbatch.batching.baseline.model_work import ModelWork, arithmetic_of
from numbatch.batching.baseline.texts import documents
from numbatch.batching.llm import LLM
from numbatch.batching.request import Request, SamplingParams

__all__ = ["end_to_end_cases", "generation_cases", "scoring_cases"]

SCORED = ((1, 128), (1, 512), (8, 256))
SEQUENCES = (1, 4, 8, 16, 32)
TEMPERATURES = (0.1, 0.5, 1.0, 1.5)
OUTPUTS = (10, 50, 100, 200)
PROMPT = 16
OUTPUT = 32
BATCH = 8
QUICK = 2
"""Tokens of output, and sequences, where it has to be quick."""


def _prompts(llm: LLM, sequences: int, length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, llm.engine.model.decoder.config.vocabulary, (sequences, length)))


def scoring_cases(llm: LLM, quick: bool = False) -> Iterator[Case]:
    """Yield log-probabilities of all tokens of one sequence and of several."""
    work = ModelWork.of(llm.engine.model.decoder)
    for sequences, length in ((QUICK, 16),) if quick else SCORED:
        operations, traffic = work.scoring(sequences, length, llm.engine.scheduler.token_budget)
        yield Case(
            "scoring",
            f"{sequences} x {length} tokens",
            partial(llm.score, _prompts(llm, sequences, length)),
            sequences * length,
            "tokens",
            operations,
            traffic,
            arithmetic_of(llm.engine.forward),
        )


def generation_cases(llm: LLM, quick: bool = False) -> Iterator[Case]:
    """Yield numbers of sequences, temperatures and lengths; the others at their middle."""
    sizes: list[tuple[str, int, float, int]] = []
    for sequences in (1, QUICK) if quick else SEQUENCES:
        name = f"{sequences} sequences" if sequences > 1 else "1 sequence"
        sizes.append((name, sequences, 0.0, QUICK if quick else OUTPUT))
    for temperature in TEMPERATURES:
        output, batch = (QUICK, QUICK) if quick else (OUTPUT, BATCH)
        sizes.append((f"temperature {temperature}", batch, temperature, output))
    for output in (QUICK,) if quick else OUTPUTS:
        batch = QUICK if quick else BATCH
        sizes.append((f"{output} tokens of output", batch, 0.0, output))
    work = ModelWork.of(llm.engine.model.decoder)
    for name, sequences, temperature, output in sizes:
        params = SamplingParams(temperature=temperature, max_tokens=output, seed=0, ignore_eos=True)
        operations, traffic = work.generation(
            sequences, PROMPT, output, llm.engine.scheduler.max_sequences
        )
        yield Case(
            "generation",
            name,
            partial(llm.generate, _prompts(llm, sequences, PROMPT), params),
            sequences * output,
            "tokens",
            operations,
            traffic,
            arithmetic_of(llm.engine.forward),
        )


def end_to_end_cases(llm: LLM, quick: bool = False) -> Iterator[Case]:
    """Yield a job of texts to score and texts to continue, from strings to results."""
    count, characters, output = (1, 40, QUICK) if quick else (8, 800, OUTPUT)
    texts = documents(count, characters)
    params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)

    def requests() -> Iterator[Request]:
        for i, text in enumerate(texts):
            yield Request(f"score-{i}", llm.encode(text))
            yield Request(f"continue-{i}", llm.encode(text)[:PROMPT], params)

    tokens = sum(len(llm.encode(text)) for text in texts) + count * (PROMPT + output)
    work = ModelWork.of(llm.engine.model.decoder)
    scored = work.scoring(1, tokens - count * (PROMPT + output), 1 << 30)
    made = work.generation(count, PROMPT, output, llm.engine.scheduler.max_sequences)
    yield Case(
        "end to end",
        f"job of {2 * count} texts, half scored, half continued",
        lambda: llm.run(requests()),
        tokens,
        "tokens",
        scored[0] + made[0],
        max(scored[1], made[1]),
        arithmetic_of(llm.engine.forward),
    )
