"""A stand-in for the model, so that what is around it can be tested without a forward pass.

Run as a program, it is the command line with this model: ``python fake_llm.py run in.jsonl``.
"""

from __future__ import annotations

import signal
import time

import numpy as np

from numbatch.batching.results import FailedResult, GenerationResult, ScoreResult
from numbatch.errors import InputError


class FakeTokenizer:
    """Tokens are the bytes of a text."""

    def __init__(self, chat=True):
        self.chat = chat

    def token_bytes(self, token_id):
        return bytes([token_id])

    def decode_bytes(self, ids, *, continues=False):
        return bytes(np.asarray(ids).tolist())

    def decode(self, ids):
        return self.decode_bytes(ids).decode(errors="replace")

    def apply_chat_template(self, messages):
        if not self.chat:
            raise InputError("tokenizer 'fake' has no chat template")
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def encode_chat(self, messages):
        return np.frombuffer(self.apply_chat_template(messages).encode(), np.uint8).astype(
            np.uint32
        )


class FakeEngine:
    """Continues a prompt by its last character; the latest of a few requests finishes first."""

    context = 50

    def __init__(self, at_once=2):
        self.at_once = at_once
        self.started = []

    def run(self, requests):
        source = iter(requests)
        while group := [r for _, r in zip(range(self.at_once), source, strict=False)]:
            self.started += [request.id for request in group]
            for request in reversed(group):
                yield self._serve(request)

    def _serve(self, request):
        if len(request.tokens) > self.context:
            return FailedResult(request.id, f"{len(request.tokens)} tokens are too many")
        logprobs = np.full(len(request.tokens), -0.5, np.float32)
        if request.params is None:
            logprobs[: request.score_from] = np.nan
            greedy = ~np.isnan(logprobs)
            return ScoreResult(request.id, request.text, request.tokens, logprobs, greedy)
        if request.text == "sleep":
            time.sleep(60)
        if request.text.startswith("nap"):
            time.sleep(0.002)
        count = min(request.params.max_tokens, 3)
        token_ids = np.repeat(request.tokens[-1:], count)
        top = request.params.logprobs or 0
        return GenerationResult(
            id=request.id,
            prompt=request.text,
            prompt_token_ids=request.tokens,
            text=bytes(token_ids.tolist()).decode(errors="replace"),
            token_ids=token_ids,
            logprobs=np.full(count, -0.1, np.float32),
            finish_reason="length",
            stop_reason=None,
            top_token_ids=np.tile(np.arange(65, 65 + top), (count, 1)),
            top_logprobs=np.tile(np.float32(-1.5) - np.arange(top, dtype=np.float32), (count, 1)),
        )


class FakeLLM:
    """What the command line uses of :class:`numbatch.batching.llm.LLM`."""

    def __init__(self, chat=True, at_once=2):
        self.identity = {"model": "fake"}
        self.tokenizer = FakeTokenizer(chat)
        self.engine = FakeEngine(at_once)

    def encode(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def encode_pair(self, context, continuation):
        return self.encode(context + continuation), len(self.encode(context)) or 1


if __name__ == "__main__":
    from numbatch.batching.commands import cli

    # A shell starts what it runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.load_llm = lambda model, **options: FakeLLM()
    cli.main()
