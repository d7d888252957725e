"""torch by transformers: dense weights, as its GGUF loader dequantizes them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np

from asv_bench.peers.llama import logprobs

__all__ = ["TorchModel"]

TEXTS = 8
"""Texts that are scored at a time: more take more memory for logits, and no less time."""


class TorchModel:
    """A model in torch, with the arithmetic of a dtype."""

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.name = torch, f"torch {dtype}"
        with contextlib.redirect_stderr(io.StringIO()):  # bars and advice
            self.model = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=getattr(torch, dtype)
            ).eval()

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Return log-probabilities of all tokens but each row's first."""
        found = []
        for low in range(0, len(tokens), TEXTS):
            part = tokens[low : low + TEXTS]
            with self.torch.inference_mode():
                logits = self.model(self.torch.from_numpy(part)).logits
                for row, own in zip(part, logits, strict=True):
                    found.append(logprobs(own[:-1], row[1:]))
        return found

    def generate(self, tokens: np.ndarray, count: int) -> np.ndarray:
        """Return the likeliest ``count`` tokens after each row."""
        with self.torch.inference_mode():
            return self.model.generate(
                self.torch.from_numpy(tokens), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, pad_token_id=0,
            )[:, tokens.shape[1] :].numpy()  # fmt: skip
