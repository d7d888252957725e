"""The scheduler and its policies, without a model: budgets, fairness, ageing, urgency."""

import heapq
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbatch.batching.kv_pool import KVPool
from numbatch.batching.policy import FairPriority, FirstCome, check_policy
from numbatch.batching.request import Request, SamplingParams
from numbatch.batching.scheduler import Scheduler
from numbatch.batching.sequence import Sequence
from numbatch.errors import InputError

CONFIG = SimpleNamespace(head_size=1, kv_heads=1)
CONTEXT = 200


def make_scheduler(*, blocks=64, sequences=8, budget=32, policy=None):
    return Scheduler(KVPool(CONFIG, 1, 16 * blocks), sequences, budget, policy)


def make_sequence(name, prompt=20, output=10, **fields):
    tokens = np.random.default_rng(abs(hash(name)) % 2**32).integers(0, 1000, prompt)
    params = SamplingParams(max_tokens=output, ignore_eos=True) if output else None
    return Sequence(Request(name, tokens, params, **fields), CONTEXT)


def step(scheduler):
    """Run a step as the engine does; return its chunks and the sequences that it finished."""
    chunks = scheduler.schedule()
    scheduler.advance(chunks)
    finished = []
    for sequence, _, _ in chunks:
        if sequence.behind == 0:
            if sequence.params is not None:
                sequence.append(1, -1.0)
            if sequence.params is None or sequence.length == sequence.capacity:
                finished.append(sequence)
    for sequence in finished:
        scheduler.finish(sequence)
    scheduler.pool.check([sequence.blocks for sequence in scheduler.running])
    return chunks, finished


def order_of(scheduler, sequences):
    for sequence in sequences:
        scheduler.add(sequence)
    order = []
    while scheduler.running or scheduler.waiting:
        chunks, finished = step(scheduler)
        assert chunks
        order += [sequence.request.id for sequence in finished]
    assert scheduler.pool.free_blocks == scheduler.pool.blocks
    return order


SIZES = st.tuples(st.integers(2, 100), st.integers(0, 60), st.integers(0, 3), st.sampled_from("ab"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(SIZES, min_size=1, max_size=20),
    st.integers(13, 40),
    st.integers(1, 8),
    st.integers(1, 64),
    st.sampled_from([FairPriority, FirstCome]),
)  # fmt: skip
def test_every_sequence_is_served_within_the_budgets(sizes, blocks, most, budget, policy):
    scheduler = make_scheduler(blocks=blocks, sequences=most, budget=budget, policy=policy())
    sequences = [
        make_sequence(i, prompt, output, priority=priority, tag=tag)
        for i, (prompt, output, priority, tag) in enumerate(sizes)
    ]
    for sequence in sequences:
        scheduler.add(sequence)
    done = 0
    for _ in range(20_000):
        if not (scheduler.running or scheduler.waiting):
            break
        chunks, finished = step(scheduler)
        done += len(finished)
        assert 0 < sum(chunk.length for chunk in chunks) <= budget
        assert len(scheduler.running) <= most
        assert len({chunk.sequence for chunk in chunks}) == len(chunks)
    assert done == len(sequences)
    assert scheduler.pool.free_blocks == scheduler.pool.blocks


def test_lower_priority_runs_earlier_and_equals_in_their_order():
    scheduler = make_scheduler(sequences=1)
    sequences = [make_sequence(i, priority=p) for i, p in enumerate([2, 0.5, 2, -1, 0.5])]
    assert order_of(scheduler, sequences) == [3, 1, 4, 0, 2]


def test_first_come_first_served_knows_no_priority():
    scheduler = make_scheduler(sequences=1, policy=FirstCome())
    assert order_of(scheduler, [make_sequence(i, priority=-i) for i in range(5)]) == list(range(5))


def test_a_user_may_bring_a_policy():
    class ShortestFirst(FirstCome):
        """The prompt with the fewest tokens first."""

        def add(self, sequence):
            sequence.is_waiting = True
            heapq.heappush(self._queue, (self.rank(sequence), sequence))

        def rank(self, sequence):
            return sequence.prompt_length, sequence.arrival

    scheduler = make_scheduler(sequences=1, policy=ShortestFirst())
    sequences = [make_sequence(i, prompt) for i, prompt in enumerate([30, 9, 50, 9, 20])]
    assert order_of(scheduler, sequences) == [1, 3, 4, 0, 2]


def test_the_nearest_deadline_goes_first_among_equals():
    scheduler = make_scheduler(sequences=1)
    sequences = [make_sequence(i) for i in range(4)]
    sequences[2].expires, sequences[3].expires = 20.0, 10.0
    assert order_of(scheduler, sequences) == [3, 2, 0, 1]


def served(scheduler, tags, steps, *, refill, late=0):
    """Return the largest difference between what two tags were given while both had work.

    The second begins ``late`` steps after the first.
    """
    totals, weights = dict.fromkeys(tags, 0.0), scheduler.policy.weights
    worst, number = 0.0, 0
    present = dict.fromkeys(tags, 0)
    for i in range(late + steps):
        for tag in tags if i >= late else tags[:1]:
            for _ in range(refill[tag] - present[tag]):
                number += 1
                prompt, output = refill[tag, "size"]
                scheduler.add(make_sequence(number, prompt, output, tag=tag))
                present[tag] += 1
        chunks, finished = step(scheduler)
        for chunk in chunks:
            tag = chunk.sequence.request.tag
            totals[tag] += chunk.length / weights.get(tag, 1) if i >= late else 0
        for sequence in finished:
            present[sequence.request.tag] -= 1
        worst = max(worst, abs(totals[tags[0]] - totals[tags[1]]))
    return worst, totals


@pytest.mark.parametrize("late", [0, 30])
@pytest.mark.parametrize(
    "sizes",
    [
        ((40, 0), (40, 0)), ((150, 0), (20, 0)), ((20, 5), (60, 3)),
        ((150, 1), (10, 20)), ((10, 20), (150, 1)), ((20, 170), (40, 10)), ((150, 40), (1, 1)),
    ],
)  # fmt: skip
def test_a_heavy_tag_does_not_starve_a_light_one(sizes, late):
    """Their served tokens stay within two steps' budget while both have work."""
    scheduler = make_scheduler(budget=64, sequences=8, blocks=128)
    # The light one has always a little more work than there are places, the other far more.
    refill = {"heavy": 100, "light": 12, ("heavy", "size"): sizes[0], ("light", "size"): sizes[1]}
    worst, totals = served(scheduler, ("heavy", "light"), 400, refill=refill, late=late)
    assert worst <= 2 * 64
    assert min(totals.values()) > 400
    assert scheduler.preemptions <= 100


def test_first_come_first_served_does_starve_it():
    scheduler = make_scheduler(budget=64, policy=FirstCome())
    scheduler.policy.weights = {}
    refill = {"heavy": 100, "light": 4, ("heavy", "size"): (40, 0), ("light", "size"): (40, 0)}
    worst, _ = served(scheduler, ("heavy", "light"), 200, refill=refill)
    assert worst > 10 * 64


def test_weights_set_the_shares():
    policy = FairPriority({"gold": 3})
    scheduler = make_scheduler(budget=64, policy=policy)
    refill = {"gold": 10, "plain": 10, ("gold", "size"): (30, 0), ("plain", "size"): (30, 0)}
    worst, totals = served(scheduler, ("gold", "plain"), 300, refill=refill)
    assert worst <= 2 * 64
    assert totals["gold"] == pytest.approx(totals["plain"], rel=0.05)


def test_a_tag_that_was_away_saves_nothing_up():
    scheduler = make_scheduler(budget=20, sequences=1)
    for i in range(50):
        scheduler.add(make_sequence(i, 21, 0, tag="busy"))
    for _ in range(40):
        step(scheduler)
    for i in range(20):
        scheduler.add(make_sequence(100 + i, 21, 0, tag="new"))
    given = [step(scheduler)[0][0].sequence.request.tag for _ in range(20)]
    assert given.count("new") <= 11


def test_low_priority_still_finishes_under_endless_urgent_work():
    scheduler = make_scheduler(sequences=1)
    low = make_sequence("low", priority=9)
    scheduler.add(low)
    for i in range(1000):
        scheduler.add(make_sequence(i, 10, 1, priority=0))
        step(scheduler)
        if low.is_done:
            break
    assert low.is_done
    assert i < 200


def test_urgent_work_finds_its_place_where_others_take_the_whole_step():
    scheduler = make_scheduler(sequences=4, budget=4)
    for i in range(4):
        scheduler.add(make_sequence(i, 4, 50, priority=1))
    while any(each.behind != 1 for each in scheduler.running) or len(scheduler.running) < 4:
        step(scheduler)
    urgent = make_sequence("urgent", 10, 1, priority=0)
    scheduler.add(urgent)
    for _ in range(10):  # what decodes goes first: a token a step is left
        step(scheduler)
    assert urgent.is_done
    assert scheduler.preemptions == 1


def test_cancelled_sequences_are_skipped_wherever_they_stand():
    scheduler = make_scheduler(sequences=2)
    sequences = [make_sequence(i) for i in range(6)]
    for sequence in sequences:
        scheduler.add(sequence)
    step(scheduler)
    for i in (0, 3):
        scheduler.finish(sequences[i])
    done = []
    while scheduler.running or scheduler.waiting:
        done += [sequence.request.id for sequence in step(scheduler)[1]]
    assert sorted(done) == [1, 2, 4, 5]


def test_work_that_grows_out_of_the_pool_is_preempted_the_last_first():
    scheduler = make_scheduler(blocks=13, sequences=4, budget=100)
    sequences = [make_sequence(i, 30, 100) for i in range(4)]
    assert order_of(scheduler, sequences) == [0, 1, 2, 3]
    assert scheduler.preemptions > 0


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "1", None])
def test_weights_out_of_range_are_refused(weight):
    with pytest.raises(InputError, match="the weight of tag 'a' is"):
        FairPriority({"a": weight})


def test_weights_may_be_numbers_of_numpy():
    assert FairPriority({"a": np.float32(2)}).weights == {"a": 2}


@pytest.mark.parametrize("policy", ["fifo", FairPriority, object()])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(InputError, match="should be an object with the methods of Policy"):
        check_policy(policy)


def test_the_methods_that_a_policy_lacks_are_named():
    class Half(FirstCome):
        rank = None

    assert isinstance(check_policy(FirstCome()), FirstCome)
    with pytest.raises(InputError, match=r"as FairPriority\(\), it lacks rank$"):
        check_policy(Half())


def test_ageing_out_of_range_is_refused():
    for age in (1, 2.5, "3"):
        with pytest.raises(InputError, match=f"age_every is {age!r}, should be a whole number"):
            FairPriority(age_every=age)


def test_tags_without_work_are_forgotten_where_they_are_many():
    scheduler = make_scheduler(budget=1000)
    for i in range(5000):
        scheduler.add(make_sequence(i, 10, 0, tag=f"user {i}"))
        step(scheduler)
    assert len(scheduler.policy._tags) <= 1001
    scheduler.policy.rank(make_sequence("new", tag="user 4999"))
