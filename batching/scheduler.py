"""Which sequences run in a step, and how many tokens of each."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from numbatch.batching.kv_pool import KVPool
from numbatch.batching.policy import FairPriority, Policy
from numbatch.batching.sequence import Sequence

__all__ = ["Chunk", "Scheduler"]


class Chunk(NamedTuple):
    """Tokens ``start`` to ``start + length - 1`` of a sequence, to be run in one step."""

    sequence: Sequence
    start: int
    length: int

    @property
    def guesses(self) -> int:
        """How many of its tokens, the last ones, are only guessed; until some are drawn."""
        return max(0, self.start + self.length - self.sequence.wanted)

    @property
    def known(self) -> Chunk:
        """The chunk without guesses."""
        return self._replace(length=self.length - self.guesses)


class Scheduler:
    """Fills one budget of tokens a step, in the order of a policy.

    Sequences that are one token behind (they generate) come first, then prompts fill what is left
    in chunks: those that were begun and those that wait, as the policy ranks them. A sequence is
    admitted when the pool can hold all its known tokens, less the blocks that it shares. One whose
    beginning another is just computing waits for it. When blocks run out, or more urgent work finds
    no room, the sequence that ranks last is pre-empted: it gives its blocks back, and its tokens
    are computed again later, to the same bits.

    Parameters
    ----------
    pool : KVPool
    max_sequences : int
        The most sequences that run at a time.
    token_budget : int
        The most tokens in a step.
    policy : Policy, optional
    share : bool
        Whether sequences share the blocks of a common beginning.
    """

    def __init__(
        self,
        pool: KVPool,
        max_sequences: int,
        token_budget: int,
        policy: Policy | None = None,
        *,
        share: bool = True,
    ) -> None:
        self.pool, self.policy = pool, policy or FairPriority()
        self.max_sequences, self.token_budget, self.share = max_sequences, token_budget, share
        self.running: list[Sequence] = []
        self.waiting = 0
        self.preemptions = 0
        self._arrivals = self._left = 0
        self._chunks: dict[Sequence, Chunk] = {}
        self._begun: dict[bytes, Sequence] = {}  # keys of blocks that are being computed
        self._followers: defaultdict[bytes, list[Sequence]] = defaultdict(list)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._arrivals += 1
        sequence.arrival = self._arrivals
        self.waiting += 1
        self.policy.enter(sequence)
        self.policy.add(sequence)

    def schedule(self) -> list[Chunk]:
        """Choose the chunks of the next step, admitting from the queue what fits."""
        self._chunks, self._left = {}, self.token_budget
        self.policy.begin_step(self.token_budget)
        ranked, crowded = list(self.running), len(self.running) > self.token_budget
        if crowded or len(ranked) > self.pool.free_blocks:  # not all may get theirs
            ranked.sort(key=self.policy.rank)
        begun: list[Sequence] = []
        for sequence in ranked:
            behind = sequence.behind
            if sequence.blocks and (behind == 1 or (crowded and behind)):
                self._give(sequence)
            if behind > 1 and sequence not in self._chunks:
                begun.append(sequence)
        shut_out = None  # the head of the queue, when it finds no room
        rank = self.policy.rank
        while True:
            head = None if shut_out else self.policy.next()
            if not self._left and (head is None or not self._yielding(head)):
                break
            begun = [sequence for sequence in begun if sequence.blocks]
            first = min(begun, key=rank, default=None)
            if head is not None and (first is None or rank(head) < rank(first)):
                if self._follow(head):
                    continue
                if self._admit(head):
                    self._give(head)
                else:
                    shut_out = head
                    self._pause_for(head)
            elif first is not None:
                begun.remove(first)
                pauses = shut_out and self._chunks and self.policy.defers(first, shut_out)
                if not pauses:
                    self._give(first)
            else:
                break
        return list(self._chunks.values())

    def lengthen(self, sequence: Sequence, tokens: int) -> int:
        """Make room for guesses behind a sequence's chunk of this step; return for how many.

        They get what budget and blocks are left, beyond a block that each sequence may grow into.
        """
        room = len(sequence.blocks) * self.pool.block_size - sequence.length
        spare = max(0, self.pool.free_blocks - len(self.running)) * self.pool.block_size
        tokens = min(tokens, self._left, room + spare)
        missing = self.pool.blocks_for(sequence.length + tokens) - len(sequence.blocks)
        sequence.blocks += self.pool.lend(max(0, missing)) or []
        self._left -= tokens
        self.policy.charge(sequence, tokens)
        return tokens

    def advance(self, chunks: list[Chunk]) -> None:
        """Note that chunks were run: others may share the blocks that they filled."""
        size = self.pool.block_size
        for sequence, start, length in chunks:
            sequence.computed = start + length
            first, end = start // size, sequence.computed // size
            if self.share and first < end:
                keys = sequence.block_keys(sequence.computed, size)
                for i in range(first, end):
                    self.pool.publish(sequence.blocks[i], keys[i])
                    self._wake(keys[i], sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands, and give its blocks back."""
        sequence.is_done = True
        if sequence.blocks:
            self._stop(sequence)
        else:
            self.waiting -= 1
            if sequence.is_waiting:
                self.policy.remove(sequence)
        self.policy.leave(sequence)

    def _give(self, sequence: Sequence) -> None:
        """Give a running sequence a chunk, and the blocks for it; nothing if there are none."""
        tokens = min(self._left, sequence.behind)
        if not tokens:
            return
        beyond = sequence.computed + tokens - len(sequence.blocks) * self.pool.block_size
        if beyond > 0 and not self._make_room(sequence, self.pool.blocks_for(beyond)):
            return
        self._chunks[sequence] = Chunk(sequence, sequence.computed, tokens)
        self._left -= tokens
        self.policy.charge(sequence, tokens)

    def _make_room(self, sequence: Sequence, missing: int) -> bool:
        """Lend a running sequence blocks; False if all that could be pre-empted rank before it."""
        while missing > self.pool.free_blocks:
            others = [each for each in self.running if each not in self._chunks]
            victim = max(others, key=self.policy.rank)
            if victim is sequence:
                return False
            self._preempt(victim)
        sequence.blocks += self.pool.lend(missing) or []
        return True

    def _admit(self, head: Sequence) -> bool:
        """Begin with a waiting sequence, if there is room or it may take another's."""
        keys = head.block_keys(head.shareable + 1, self.pool.block_size) if self.share else []
        shared = self.pool.share(keys)
        missing = self.pool.blocks_for(head.wanted) - len(shared)
        # The running ones keep a block each to grow into, lest the new one is pre-empted at once.
        while (
            len(self.running) >= self.max_sequences
            or missing + len(self.running) > self.pool.free_blocks
        ):
            others = self._yielding(head)
            if not others:
                self.pool.release(shared)
                return False
            self._preempt(max(others, key=self.policy.rank))
        self.policy.remove(head)
        self.waiting -= 1
        self.running.append(head)
        head.open()
        head.blocks = shared + (self.pool.lend(missing) or [])
        # The last token may lie in a shared block: it is run again, and writes the same bits there.
        head.computed = min(len(shared) * self.pool.block_size, head.shareable)
        if self.share:
            for key in head.block_keys(head.wanted, self.pool.block_size)[len(shared) :]:
                self._begun.setdefault(key, head)
        return True

    def _yielding(self, head: Sequence) -> list[Sequence]:
        """Return the running sequences that may be pre-empted for a waiting one."""
        return [each for each in self.running if self.policy.yields(each, head)]

    def _follow(self, head: Sequence) -> bool:
        """Let a sequence wait for the one that is computing its beginning, if there is one."""
        keys = head.block_keys(head.shareable + 1, self.pool.block_size) if self.share else []
        for key in reversed(keys):
            leader = self._begun.get(key)
            if leader is not None and not self.policy.yields(leader, head):
                self.policy.remove(head)
                self._followers[key].append(head)
                return True
        return False

    def _pause_for(self, head: Sequence) -> None:
        """Let sequences miss this step that are put off for one without room, if others run."""
        if not all(self.policy.defers(sequence, head) for sequence in self._chunks):
            for sequence in list(self._chunks):
                if self.policy.defers(sequence, head):
                    self._take_back(sequence)

    def _take_back(self, sequence: Sequence) -> None:
        """Take back the chunk that a sequence was given, if it was."""
        chunk = self._chunks.pop(sequence, None)
        if chunk is not None:
            self._left += chunk.length
            self.policy.charge(sequence, -chunk.length)

    def _preempt(self, sequence: Sequence) -> None:
        self._take_back(sequence)
        self._stop(sequence)
        self.preemptions += 1
        sequence.preemptions += 1
        self.waiting += 1
        self.policy.add(sequence)

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.computed = [], 0
        for key in sequence.keys:
            self._wake(key, sequence)

    def _wake(self, key: bytes, leader: Sequence) -> None:
        """Queue again what waited for a block that is there now, or will not come."""
        if self._begun.get(key) is leader:
            del self._begun[key]
            for sequence in self._followers.pop(key, ()):
                if not sequence.is_done:
                    self.policy.add(sequence)
