"""Who is served next: small objects that the scheduler asks, and that a user can replace."""

from __future__ import annotations

import heapq
import numbers
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError

__all__ = ["FairPriority", "FirstCome", "Policy", "check_policy"]

MOST = 3
"""So often a sequence makes room for another tag: else it might never come to its end."""
TAGS = 1000
"""So many tags without work keep what they were given."""


class Policy(Protocol):
    """Holds the sequences that wait, and ranks those that run."""

    def enter(self, sequence: Sequence) -> None:
        """Note that a sequence is new; ``add`` follows."""

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait: it is new, or was pre-empted; set its ``is_waiting``."""

    def remove(self, sequence: Sequence) -> None:
        """Let a waiting sequence go: it begins to run, or was cancelled; unset ``is_waiting``."""

    def next(self) -> Sequence | None:
        """Return the waiting sequence that should run next, and keep it; None if none waits."""

    def rank(self, sequence: Sequence) -> Any:
        """Return what sequences are ordered by: the smallest is served first."""

    def yields(self, running: Sequence, waiting: Sequence) -> bool:
        """Tell whether a running sequence is pre-empted where a waiting one finds no room."""

    def defers(self, running: Sequence, waiting: Sequence) -> bool:
        """Tell whether a running sequence pauses while a waiting one finds no room."""

    def begin_step(self, tokens: int) -> None:
        """Note that a step of at most so many tokens is being filled."""

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Note that a sequence is given tokens of a step; fewer than 0 are taken back."""

    def leave(self, sequence: Sequence) -> None:
        """Note that a sequence is finished."""


def check_policy(policy: Any) -> Policy:
    """Return a policy.

    Raises
    ------
    InputError
        If it is none: the message says which methods it lacks.
    """
    methods = [name for name in vars(Policy) if not name.startswith("_")]
    lacks = [name for name in methods if not callable(getattr(policy, name, None))]
    if isinstance(policy, type) or lacks:
        which = f", it lacks {', '.join(lacks)}" if lacks else ""
        raise InputError(
            f"policy is {policy!r}, should be an object with the methods of Policy, as "
            f"FairPriority(){which}"
        )
    checked: Policy = policy
    return checked


class FirstCome:
    """First come, first served."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, Sequence]] = []

    def enter(self, sequence: Sequence) -> None:
        """Count nothing."""

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait."""
        sequence.is_waiting = True
        heapq.heappush(self._queue, (sequence.arrival, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go."""
        sequence.is_waiting = False

    def next(self) -> Sequence | None:
        """Return the one that came first."""
        while self._queue and not self._queue[0][1].is_waiting:
            heapq.heappop(self._queue)
        return self._queue[0][1] if self._queue else None

    def rank(self, sequence: Sequence) -> int:
        """Order by arrival."""
        return sequence.arrival

    def yields(self, running: Sequence, waiting: Sequence) -> bool:
        """Pre-empt nobody."""
        return False

    def defers(self, running: Sequence, waiting: Sequence) -> bool:
        """Pause nobody."""
        return False

    def begin_step(self, tokens: int) -> None:
        """Count nothing."""

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Count nothing."""

    def leave(self, sequence: Sequence) -> None:
        """Count nothing."""


def _is_positive(value: Any) -> bool:
    return isinstance(value, numbers.Real) and 0 < float(value) < float("inf")


class _Tag:
    """The sequences of one tag: a queue by urgency, one by age, and what the tag was given."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served = 0.0
        self.present = 0
        self.urgent: list[tuple[float, float, int, Sequence]] = []
        self.oldest: deque[Sequence] = deque()

    def first(self, *, by_age: bool) -> Sequence | None:
        """Return the waiting sequence that is most urgent, or has waited longest."""
        while self.oldest and not self.oldest[0].is_waiting:
            self.oldest.popleft()
        while self.urgent and not self.urgent[0][-1].is_waiting:
            heapq.heappop(self.urgent)
        if not self.urgent:
            return None
        return self.oldest[0] if by_age else self.urgent[0][-1]


class FairPriority:
    """Lower priority first; among equals, the tag that was given least; then the nearest deadline.

    Fairness among tags is that of the virtual token counter (Sheng et al., "Fairness in Serving
    Large Language Models", https://arxiv.org/abs/2401.00588): a tag is charged each token that is
    run for it, divided by its weight, and the tag with the smallest counter is served next. A tag
    that comes back starts no lower than the lowest of those present, so it saves nothing up.

    Counters of tags that both have work stay within two steps' tokens of each other (divided by the
    smaller weight): where a tag is more than one step ahead of another that finds no room,
    sequences of it are pre-empted as long as it is given more in the step (each three times at
    most), and then those of it that are left pause, as long as others run.

    So that low priority still finishes, one admission in ``age_every`` goes, whatever its priority,
    to the request that has waited longest, in the tag that was given least.

    Parameters
    ----------
    weights : mapping of str to float, optional
        Shares of tags that compete; 1 for a tag that is not named.
    age_every : int

    Raises
    ------
    InputError
        If a weight is not a positive number, or ``age_every`` is less than 2.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, age_every: int = 16) -> None:
        self.weights = dict(weights or {})
        for tag, weight in self.weights.items():
            if not _is_positive(weight):
                raise InputError(
                    f"the weight of tag {tag!r} is {weight!r}, should be a number above 0"
                )
        if not isinstance(age_every, int) or age_every < 2:
            raise InputError(f"age_every is {age_every!r}, should be a whole number of at least 2")
        self.age_every = age_every
        self._admitted = 0
        self._most_tags = TAGS
        self._idle_level = 0.0
        self._level = 0.0  # the most urgent priority that waits
        self._step = float("inf")
        self._given: dict[str, float] = {}
        self._tags: dict[str, _Tag] = {}
        self._waiting: dict[str, _Tag] = {}

    def enter(self, sequence: Sequence) -> None:
        """Count a sequence to its tag; lift a tag that was away to the level of the others."""
        name = sequence.request.tag
        tag = self._tags.setdefault(name, _Tag(self.weights.get(name, 1)))
        if not tag.present:
            level = min((t.served for t in self._tags.values() if t.present), default=None)
            tag.served = max(tag.served, self._idle_level if level is None else level)
        tag.present += 1

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait."""
        request = sequence.request
        tag = self._tags[request.tag]
        sequence.is_waiting = True
        entry = (sequence.priority, sequence.expires, sequence.arrival, sequence)
        heapq.heappush(tag.urgent, entry)
        if tag.oldest and tag.oldest[0].arrival > sequence.arrival:
            tag.oldest.appendleft(sequence)
        else:
            tag.oldest.append(sequence)
        self._waiting[request.tag] = tag

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go; what is left of it in the queues is skipped later."""
        if self._is_turn_of_age and sequence is self._tags[sequence.request.tag].oldest[0]:
            sequence.priority = min(sequence.priority, self._level)  # lest it is pre-empted
        sequence.is_waiting = False
        self._admitted += 1

    @property
    def _is_turn_of_age(self) -> bool:
        return self._admitted % self.age_every == self.age_every - 1

    def next(self) -> Sequence | None:
        """Return the most urgent sequence of the tag that was given least."""
        by_age = self._is_turn_of_age
        best, best_key, self._level = None, None, float("inf")
        for name, tag in list(self._waiting.items()):
            head = tag.first(by_age=by_age)
            if head is None:
                del self._waiting[name]
                continue
            self._level = min(self._level, tag.urgent[0][0])
            priority = 0 if by_age else head.priority
            key = (priority, tag.served, head.expires, head.arrival)
            if best_key is None or key < best_key:
                best, best_key = head, key
        return best

    def rank(self, sequence: Sequence) -> tuple[float, float, float, int]:
        """Order by priority, what the tag was given, deadline and arrival."""
        served = self._tags[sequence.request.tag].served
        return sequence.priority, served, sequence.expires, sequence.arrival

    def yields(self, running: Sequence, waiting: Sequence) -> bool:
        """Pre-empt what has a lower priority, and what a tag far ahead runs beyond its share."""
        if running.priority != waiting.priority:
            return running.priority > waiting.priority
        given = self._given.get
        if given(running.request.tag, 0) <= given(waiting.request.tag, 0):
            return False
        return running.preemptions < MOST and self._is_ahead(running, waiting)

    def defers(self, running: Sequence, waiting: Sequence) -> bool:
        """Pause what a tag runs that is far ahead of another, at the same priority."""
        return running.priority == waiting.priority and self._is_ahead(running, waiting)

    def _is_ahead(self, running: Sequence, waiting: Sequence) -> bool:
        tag, other = self._tags[running.request.tag], self._tags[waiting.request.tag]
        return tag.served - other.served > self._step / min(tag.weight, other.weight)

    def begin_step(self, tokens: int) -> None:
        """Count anew what tags are given in the step; remember how far ahead one may be."""
        self._step, self._given = tokens, {}

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """Add tokens to the counter of a sequence's tag."""
        name = sequence.request.tag
        tag = self._tags[name]
        share = tokens / tag.weight
        tag.served += share
        self._given[name] = self._given.get(name, 0.0) + share

    def leave(self, sequence: Sequence) -> None:
        """Note that a tag has one sequence less."""
        tag = self._tags[sequence.request.tag]
        tag.present -= 1
        if not tag.present:
            self._idle_level = max(self._idle_level, tag.served)
            self._forget_absent()

    def _forget_absent(self) -> None:
        """Drop tags that have no work, where they are many: there may be one for each user."""
        if len(self._tags) > self._most_tags:
            self._tags = {name: tag for name, tag in self._tags.items() if tag.present}
            self._most_tags = TAGS + 2 * len(self._tags)
