"""Threads meet: nobody goes on before all are there, however many there are."""

import numba
import numpy as np
import pytest

from numbatch.kernels.barrier import mark, meet, share
from numbatch.kernels.fork_join import call_on_team, entry_of
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.threads import TeamKernel, ThreadTeam


@cpu_device
def _relay(thread, threads, counter, rounds, cells, wrong):
    """Each thread writes its cell, and after a meeting reads its neighbour's."""
    meeting = 0
    for i in range(rounds):
        cells[thread] = i
        meeting = meet(counter, threads, meeting)
        if cells[(thread + 1) % threads] != i:
            wrong[thread] += 1
        meeting = meet(counter, threads, meeting)


_relay_entry = entry_of(_relay)


@cpu_kernel
def _launch_relay(board, threads, *args):
    return call_on_team(board, threads, _relay_entry(args), args)


@cpu_device
def _slow_first(thread, threads, counter, work, total):
    """The first thread comes late enough for the others to have gone to sleep."""
    if thread == 0:
        for i in range(work):
            total[0] += np.sin(float(i))
        total[1] = 7
    meet(counter, threads, 0)
    total[2 + thread] = total[1]


_slow_first_entry = entry_of(_slow_first)


@cpu_kernel
def _launch_slow_first(board, threads, *args):
    return call_on_team(board, threads, _slow_first_entry(args), args)


relay = TeamKernel(_relay, _launch_relay)
slow_first = TeamKernel(_slow_first, _launch_slow_first)


@cpu_kernel
def shares(items, grain, threads, out):
    for thread in range(threads):
        out[thread, 0], out[thread, 1] = share(items, grain, thread, threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_nobody_is_ahead(threads):
    counter, wrong = np.zeros(8, np.int64), np.zeros(threads, np.int64)
    ThreadTeam(threads).run_together(relay, counter, 300, np.zeros(threads, np.int64), wrong)
    assert not wrong.any()
    assert counter.tolist()[:2] == [600 * threads if threads > 1 else 0, 0]


def test_sleepers_are_woken():
    for _ in range(5):
        counter, total = np.zeros(8, np.int64), np.zeros(5)
        ThreadTeam(3).run_together(slow_first, counter, 300_000, total)
        assert total[2:].tolist() == [7, 7, 7]
        assert counter[1] == 0


@pytest.mark.parametrize(("items", "grain"), [(0, 1), (1, 16), (33, 16), (192, 32), (100, 7)])
def test_shares_cover_all_items_once(items, grain):
    for threads in (1, 2, 3, 16):
        out = np.zeros((threads, 2), np.int64)
        shares(items, grain, threads, out)
        covered = [i for start, stop in out for i in range(start, stop)]
        assert covered == list(range(items))
        assert all(start % grain == 0 or start == items for start, _ in out)


def test_counters_are_compiled_in_only_where_there_are_some():
    for counted in (True, False):

        @numba.njit
        def mark_twice(cycles):
            return mark(cycles, 0, mark(cycles, 0, 0))

        cycles = np.zeros(1 if counted else 0, np.int64 if counted else np.bool_)
        assert (mark_twice(cycles) > 0) == counted
        (code,) = mark_twice.inspect_llvm().values()
        assert ("call i64 @llvm.readcyclecounter" in code) == counted
        assert not counted or cycles[0] > 0
