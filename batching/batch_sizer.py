"""How many tokens a step should have: by memory, by latency, and by what throughput gains."""

from __future__ import annotations

from dataclasses import dataclass

from numbatch.batching.step_time import StepTime
from numbatch.errors import InputError

__all__ = ["PRESETS", "BatchSizer", "Preset", "StepSize"]

MARGIN = 0.95
"""A step is large enough when it reaches so much of the throughput of an endless one."""
WARM_UP = 12
"""Steps that are only watched: of different sizes, so that a line can be fitted."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What a user wants of steps.

    Parameters
    ----------
    target_latency_ms : float, optional
        How long a step may take; None: as long as it gains throughput.
    """

    target_latency_ms: float | None


PRESETS = {
    "latency": Preset(100.0),
    "streaming": Preset(250.0),
    "throughput": Preset(None),
}
"""Interactive use, text that is read while it is made, and bulk work."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """A number of tokens, and what bound it.

    Parameters
    ----------
    tokens : int
    limit : str
        ``memory`` (the most that the engine has room for, or that ever fitted), ``latency``,
        ``throughput`` (more would gain little) or ``unknown`` (still being learnt).
    """

    tokens: int
    limit: str


class BatchSizer:
    """Chooses the size of each step, and learns from how long steps take.

    Parameters
    ----------
    most_tokens : int
        What the engine's working memory holds.
    target_latency_ms : float, optional
        How long a step may take; its 95th percentile is held there.

    Attributes
    ----------
    last : StepSize
        What was chosen last.

    Raises
    ------
    InputError
        If ``most_tokens`` is less than 1, or the target is not above 0.
    """

    def __init__(self, most_tokens: int, target_latency_ms: float | None = None) -> None:
        if most_tokens < 1:
            raise InputError(f"most_tokens is {most_tokens}, should be at least 1")
        if target_latency_ms is not None and not 0 < target_latency_ms < float("inf"):
            raise InputError(f"target_latency_ms is {target_latency_ms}, should be above 0")
        self.time = StepTime()
        self.most_tokens = most_tokens
        self.target = None if target_latency_ms is None else target_latency_ms / 1000
        self.last = StepSize(most_tokens, "unknown")
        self._kv_by_token = 0.0

    def choose(self, decoding: int, decoding_kv: int) -> StepSize:
        """Choose a step's tokens.

        Parameters
        ----------
        decoding : int
            Sequences that get one token each, whatever is chosen.
        decoding_kv : int
            KV positions that they read.
        """
        if self.time.observations < WARM_UP:
            size = self.most_tokens if self.target is None else min(self.most_tokens, 64)
            tokens = max(size >> (self.time.observations % 3), 1)
            self.last = StepSize(max(tokens, min(decoding, self.most_tokens)), "unknown")
            return self.last
        fixed, token, sequence, kv = self.time.coefficients
        more = token + kv * self._kv_by_token  # seconds for one token more of a prompt
        start = fixed + decoding * (token + sequence) + kv * decoding_kv
        limits = {"memory": float(self.most_tokens)}
        if more > 0:
            limits["throughput"] = decoding + MARGIN / (1 - MARGIN) * start / more
            if self.target is not None:
                limits["latency"] = decoding + (self.target / self.time.spread - start) / more
        limit = min(limits, key=lambda name: limits[name])
        tokens = int(min(max(limits[limit], decoding, 1), self.most_tokens))
        self.last = StepSize(tokens, limit)
        return self.last

    def observe(self, tokens: int, decoding: int, sequences: int, kv_read: int, kv_decoding: int,
                seconds: float) -> None:  # fmt: skip
        """Learn from a step.

        Parameters
        ----------
        tokens, sequences, kv_read : int
            Of the whole step; ``kv_read`` are positions of keys and values, over all its tokens.
        decoding, kv_decoding : int
            Of them, sequences that got one token, and what they read.
        seconds : float
        """
        self.time.observe(tokens, sequences, kv_read, seconds)
        if tokens > decoding:
            new = (kv_read - kv_decoding) / (tokens - decoding)
            self._kv_by_token += 0.2 * (new - self._kv_by_token)

    def shrink(self, tokens: int) -> None:
        """Note that a step of so many tokens ran out of memory."""
        self.most_tokens = max(1, min(self.most_tokens, tokens // 2))
