"""What is asked: sampling parameters and requests, checked where they enter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from numbatch.batching.ids import check_id
from numbatch.errors import InputError
from numbatch.kernels.scoring.processors import check_processor, check_scorer

__all__ = ["Request", "SamplingParams"]

LARGEST = 1e6
"""Bound on temperature and penalties: far beyond any use, and still exact in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next tokens of one request are chosen; names and defaults are vLLM's.

    Parameters
    ----------
    temperature : float
        0 takes the likeliest token each time.
    top_k : int
        Only the ``top_k`` likeliest tokens; 0 or -1: all.
    top_p : float
        Only the likeliest tokens whose probabilities add up to ``top_p``; in (0, 1].
    min_p : float
        Only tokens at least ``min_p`` times as probable as the likeliest; in [0, 1].
    repetition_penalty : float
        Divides the positive logits of tokens seen in prompt or output, multiplies the negative.
    presence_penalty, frequency_penalty : float
        Taken off the logits of tokens in the output, once or for each time.
    seed : int, optional
        The same seed and prompt give the same tokens, in whatever batch. None: a seed is made
        from the engine's seed and the request's id.
    max_tokens : int
        The most tokens to generate.
    stop : str or sequence of str
        Generation ends where one of them appears; the text ends before it.
    stop_token_ids : sequence of int
        Generation ends after one of them.
    ignore_eos : bool
        Go on past the model's own end tokens.
    logprobs : int, optional
        Also report the log-probabilities of so many likeliest tokens at each place.
    logits_processor : function, optional
        A function of yours, decorated with ``numba.njit``, that is compiled into the sampler. It is
        called as ``logits_processor(logits, argument, position)`` before penalties and temperature
        and changes ``logits`` (a row of float32, one for each token of the vocabulary) in place;
        minus infinity bans a token. ``position`` is how many tokens were drawn before.
    logits_processor_arg : int
        What ``argument`` is: an index into an array that the function knows, for example.
    prompt_logprobs : int, optional
        Also report the log-probability of each token of the prompt after those before it, and of so
        many likeliest tokens at its place. The prompt is then computed anew, whatever is cached.

    Raises
    ------
    InputError
        If a value is out of its range or of a wrong type.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    logits_processor: Callable[..., Any] | None = field(default=None, repr=False)
    logits_processor_arg: int = 0
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0, LARGEST, f"from 0 to {LARGEST:g}")
        _number("top_p", self.top_p, 0, 1, "in (0, 1]", above=True)
        _number("min_p", self.min_p, 0, 1, "in [0, 1]")
        _number(
            "repetition_penalty",
            self.repetition_penalty,
            0,
            LARGEST,
            f"in (0, {LARGEST:g}]",
            above=True,
        )
        for name in ("presence_penalty", "frequency_penalty"):
            _number(
                name, getattr(self, name), -LARGEST, LARGEST, f"from -{LARGEST:g} to {LARGEST:g}"
            )
        _integer("top_k", self.top_k, -1, 2**63 - 1)
        _integer("max_tokens", self.max_tokens, 1, 2**63 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, 100)
        if self.prompt_logprobs is not None:
            _integer("prompt_logprobs", self.prompt_logprobs, 0, 100)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        _integer("logits_processor_arg", self.logits_processor_arg, -(2**63), 2**63 - 1)
        if self.logits_processor is not None:
            try:
                check_processor(self.logits_processor)
            except ValueError as error:
                raise InputError(f"logits_processor {error}") from error
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", _strings("stop", stop))
        object.__setattr__(self, "stop_token_ids", _token_ids(self.stop_token_ids))
        if not isinstance(self.ignore_eos, bool):
            raise InputError(f"ignore_eos is {self.ignore_eos!r}, should be true or false")

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty is other than neutral."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)


def _number(
    name: str, value: Any, low: float, high: float, wanted: str, *, above: bool = False
) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not low <= value <= high or (above and value <= low):  # NaN compares false
        raise InputError(f"{name} is {value!r}, should be a number {wanted}")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise InputError(f"{name} is {value!r}, should be a whole number from {low} to {high}")


def _strings(name: str, values: Any) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, Sequence) or not all(isinstance(v, str) and v for v in values):
        raise InputError(f"{name} is {values!r}, should be a text or a list of texts, none empty")
    return tuple(values)


def _token_ids(values: Any) -> tuple[int, ...]:
    if values is None:
        return ()
    ids = tuple(values) if isinstance(values, Sequence | np.ndarray) else (None,)
    for value in ids:
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise InputError(f"stop_token_ids is {values!r}, should be a list of token ids")
    return tuple(int(value) for value in ids)


@dataclass(frozen=True, slots=True)
class Request:
    """One text to continue or to score.

    Parameters
    ----------
    id : str or int
        Unique among the requests of a run; results carry it.
    tokens : int64 array, shape (n,), or str
        The prompt, or the text to score. A text is for :meth:`LLM.submit` and :meth:`LLM.run`,
        which turn it into tokens.
    params : SamplingParams, optional
        None: the text is scored.
    score_from : int
        The first token whose log-probability is wanted, at least 1; those before it are context.
    text : str
        What the tokens were made from.
    priority : float
        Lower runs earlier.
    tag : str
        Whose it is: what runs is shared fairly among tags.
    deadline : float, optional
        Seconds after it is submitted; a request that is not finished by then fails.
    prompt_logprobs : int
        Of a scored text: also report the log-probabilities of so many likeliest tokens at the place
        of each.
    scorer : function, optional
        Of a scored text: a function of yours, decorated with ``numba.njit``, that is compiled and
        called as ``scorer(logits, target, position)`` for each token that is scored; the numbers
        that it returns are the result's ``scores``. ``logits`` is a row of float32, one for each
        token of the vocabulary; ``target`` the token that follows, at ``position`` in the text.

    Raises
    ------
    InputError
        If the id is no text or empty and no whole number, the priority or the deadline no finite
        number, ``score_from`` less than 1, or the tag no text; if the scorer is not compiled by
        Numba or takes other arguments.
    """

    id: str | int
    tokens: Any
    params: SamplingParams | None = None
    score_from: int = 1
    text: str = field(default="", repr=False)
    priority: float = 0
    tag: str = ""
    deadline: float | None = None
    prompt_logprobs: int = 0
    scorer: Callable[..., Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", check_id(self.id))
        _number("priority", self.priority, -LARGEST, LARGEST, f"from {-LARGEST:g} to {LARGEST:g}")
        if not isinstance(self.tag, str):
            raise InputError(f"tag is {self.tag!r}, should be a text")
        _integer("score_from", self.score_from, 1, 2**63 - 1)
        if self.deadline is not None:
            _number("deadline", self.deadline, 0, 1e9, "of seconds from 0 to 1e9")
        _integer("prompt_logprobs", self.prompt_logprobs, 0, 100)
        if self.scorer is not None:
            try:
                check_scorer(self.scorer)
            except ValueError as error:
                raise InputError(f"scorer {error}") from error

    @property
    def wanted_prompt_logprobs(self) -> int | None:
        """How many likeliest tokens are wanted at each place of the prompt or text; None: nothing.

        0: the log-probability of the token that stands there.
        """
        return self.prompt_logprobs if self.params is None else self.params.prompt_logprobs
