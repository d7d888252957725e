"""The tools that time operations: what they count, what they leave out, what they put back."""

import gc
import itertools
import math
import os
import time
import tracemalloc

import numba
import numpy as np
import pytest

import numbatch
from numbatch.batching import measure, timing
from numbatch.batching.measure import compare, measure_operation, measure_time, time_operation
from numbatch.errors import InputError

QUICK = {"seconds": 0.0, "min_samples": 5, "max_samples": 20}


class FakeClock:
    """Time that passes only when an operation says so, and a little at each reading."""

    def __init__(self, monkeypatch, reading=50):
        self.now, self.reading = 0, reading
        for module in (measure, timing):
            monkeypatch.setattr(module, "perf_counter_ns", self.read)

    def read(self):
        self.now += self.reading
        return self.now

    def takes(self, nanoseconds):
        pending = iter(nanoseconds)

        def operation():
            self.now += next(pending)

        return operation

    def always(self, nanoseconds):
        def operation():
            self.now += nanoseconds

        return operation


def test_the_cost_of_the_clock_is_subtracted_and_said(monkeypatch):
    clock = FakeClock(monkeypatch)
    stats = measure_operation(clock.always(3_000_000), **QUICK)
    assert stats.calls == 1
    assert stats.overhead == pytest.approx(50e-9)
    assert stats.median == pytest.approx(3e-3, abs=1e-15)
    assert measure_time(clock.always(7000)) == pytest.approx(7e-6)
    assert time_operation(clock.always(300), 10) == pytest.approx(300e-9)


def test_fast_operations_are_called_often_in_a_sample(monkeypatch):
    stats = measure_operation(FakeClock(monkeypatch).always(100), **QUICK)
    assert stats.calls >= 10_000
    assert stats.median == pytest.approx(100e-9)
    assert stats.std == pytest.approx(0, abs=1e-12)


def test_statistics_of_known_times(monkeypatch):
    clock = FakeClock(monkeypatch)
    times = [1_000_000 * (1 + i) for i in range(10)]
    operation = clock.takes([9_000_000, 2_000_000, 2_000_000, *times, 5_000_000])
    stats = measure_operation(operation, seconds=0, min_samples=10, items=4, tokens=32, bytes=1000)
    milliseconds = np.arange(1, 11) * 1e-3
    assert stats.first_call == pytest.approx(9e-3, rel=1e-4)
    assert stats.n == 10
    assert stats.mean == pytest.approx(milliseconds.mean())
    assert stats.median == stats.p50 == pytest.approx(5.5e-3)
    assert stats.std == pytest.approx(milliseconds.std(ddof=1))
    assert (stats.min, stats.max) == pytest.approx((1e-3, 1e-2))
    percentiles = [stats.p90, stats.p95, stats.p99]
    assert percentiles == pytest.approx(np.percentile(milliseconds, [90, 95, 99]).tolist())
    assert 1e-3 <= stats.low < stats.median < stats.high <= 1e-2
    assert stats.items_per_second == pytest.approx(4 / 5.5e-3)
    assert stats.tokens_per_second == pytest.approx(32 / 5.5e-3)
    assert stats.bytes_per_second == pytest.approx(1000 / 5.5e-3)
    assert "5.5 ms [" in str(stats)


def test_rates_that_were_not_asked_for_are_absent():
    stats = measure_operation(lambda: None, **QUICK)
    assert stats.items_per_second is stats.tokens_per_second is stats.bytes_per_second is None
    assert stats.compilation == 0
    assert stats.discarded == 0


def test_compilation_is_reported_and_not_counted():
    @numba.njit
    def double(x):
        return x + x

    stats = measure_operation(lambda: double(1.5), **QUICK)
    assert double.signatures
    assert 0 < stats.compilation <= stats.first_call
    assert stats.max < stats.compilation / 10
    assert "not counted" in str(stats)


def test_samples_that_compile_are_thrown_away():
    arguments = [1, 2, 3, 4, 5.5, 6, 7, 8, 9, 10, 11]
    calls = iter(arguments)

    @numba.njit
    def double(x):
        return x + x

    def operation():
        double(next(calls))
        time.sleep(0.002)  # a sample is one call

    stats = measure_operation(operation, seconds=0, min_samples=5, measure_memory=False)
    assert stats.discarded == 1
    assert stats.n == 5
    assert len(double.signatures) == 2


def test_the_garbage_collector_is_off_meanwhile_and_on_again():
    seen = []
    assert gc.isenabled()
    measure_operation(lambda: seen.append(gc.isenabled()), measure_memory=False, **QUICK)
    assert not any(seen)
    assert gc.isenabled()
    seen.clear()
    measure_operation(
        lambda: seen.append(gc.isenabled()), measure_memory=False, collect_garbage=True, **QUICK
    )
    assert all(seen)

    def fail():
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        measure_operation(fail)
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
def test_threads_are_pinned_meanwhile():
    before = os.sched_getaffinity(0)
    cpu, seen = min(before), set()
    measure_operation(
        lambda: seen.update(os.sched_getaffinity(0)), cpus=[cpu], measure_memory=False, **QUICK
    )
    assert seen == {cpu}
    assert os.sched_getaffinity(0) == before
    for bad in ([], [10**6]):
        with pytest.raises(InputError, match="cpus is"):
            measure_operation(lambda: None, cpus=bad)


def test_peak_memory():
    stats = measure_operation(lambda: np.ones(1_000_000).sum(), **QUICK)
    assert 8_000_000 <= stats.peak_memory < 9_000_000
    assert measure_operation(lambda: None, measure_memory=False, **QUICK).peak_memory is None
    tracemalloc.start()
    try:
        assert measure_operation(lambda: None, **QUICK).peak_memory is None
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_a_device_is_waited_for(monkeypatch):
    clock = FakeClock(monkeypatch)
    stats = measure_operation(lambda: None, synchronize=clock.always(2_000_000), **QUICK)
    assert stats.median == pytest.approx(2e-3)


class FakeGpu:
    """A device whose events say how long it worked, whatever the host's clock says."""

    def __init__(self):
        self.worked = 0.0

    def seconds_of(self, run):
        before = self.worked
        run()
        return self.worked - before + 1e-6

    def works(self, seconds):
        def operation():
            self.worked += seconds

        return operation


def test_a_device_is_timed_by_its_events():
    gpu = FakeGpu()
    stats = measure_operation(gpu.works(3e-3), gpu=gpu, **QUICK)
    assert stats.median == pytest.approx(3e-3, rel=1e-6)
    assert stats.overhead == pytest.approx(1e-6)
    assert stats.first_call == pytest.approx(3.001e-3)
    comparison = compare(gpu.works(6e-3), gpu.works(2e-3), gpu=gpu, seconds=0)
    assert comparison.ratio == pytest.approx(3, rel=1e-6)
    with pytest.raises(InputError, match="both given"):
        measure_operation(lambda: None, gpu=gpu, synchronize=lambda: None)


def test_compare_gives_the_ratio(monkeypatch):
    clock = FakeClock(monkeypatch)
    comparison = compare(clock.always(6_000_000), clock.always(2_000_000), seconds=0)
    assert comparison.ratio == pytest.approx(3)
    assert (comparison.low, comparison.high) == pytest.approx((3, 3))
    assert comparison.differs
    assert (comparison.f, comparison.g) == pytest.approx((6e-3, 2e-3))
    assert comparison.rounds == 10


def test_compare_is_not_misled_by_a_machine_that_slows_down(monkeypatch):
    clock = FakeClock(monkeypatch)
    calls = 0

    def slower_and_slower():
        nonlocal calls
        calls += 1
        clock.now += 2_000_000 + 100_000 * calls

    comparison = compare(slower_and_slower, slower_and_slower, seconds=0, min_rounds=100)
    assert not comparison.differs
    assert comparison.ratio == pytest.approx(1, abs=0.02)


def test_compare_takes_turns():
    order = []

    def operation(name):
        order.append(name)
        time.sleep(0.0011)

    compare(lambda: operation("f"), lambda: operation("g"), seconds=0, min_rounds=4, warmup=1)
    assert "".join(order) == "fg" + "fg" + "fggffggf"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"min_samples": 0}, "min_samples is 0"),
        ({"min_samples": 5, "max_samples": 4}, "max_samples 4"),
        ({"warmup": 0}, "warmup is 0"),
        ({"confidence": 1}, "confidence is 1"),
        ({"items": -1}, "items is -1"),
        ({"bytes": math.nan}, "bytes is nan"),
        ({"synchronize": 3}, "synchronize is of type int"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        measure_operation(lambda: None, **parameters)


def test_what_cannot_be_called_is_refused():
    for call in (measure_time, measure_operation, lambda f: time_operation(f, 3)):
        with pytest.raises(InputError, match="f is of type int, should be a function"):
            call(3)
    with pytest.raises(InputError, match="g is of type str"):
        compare(lambda: None, "g")
    with pytest.raises(InputError, match="iterations is 0"):
        time_operation(lambda: None, 0)


def test_the_names_are_public():
    for name in ("measure_time", "time_operation", "measure_operation", "compare"):
        assert getattr(numbatch, name) is getattr(measure, name)
        assert name in dir(numbatch)
    assert numbatch.OperationStats is type(measure_operation(lambda: None, **QUICK))
    assert numbatch.statistics.mean([1, 2]) == 1.5


def test_waiting_for_a_processor_is_told(monkeypatch):
    waited = itertools.count(0, 1000)
    monkeypatch.setattr(measure, "seconds_waited", lambda: float(next(waited)))
    assert measure_operation(lambda: None, seconds=0, min_samples=3).waited == 1
    monkeypatch.setattr(measure, "seconds_waited", lambda: 0.0)
    assert measure_operation(lambda: None, seconds=0, min_samples=3).waited == 0
