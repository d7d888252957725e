"""A team's threads run compiled code side by side, call after call, and are gone with the team."""

import gc
import os
import threading
import time

import numpy as np
import pytest

from numbatch.kernels.barrier import HAS_FUTEX, meet
from numbatch.kernels.fork_join import call_on_team, entry_of
from numbatch.kernels.jit import cpu_device, cpu_kernel
from numbatch.kernels.threads import TeamKernel, ThreadTeam


@cpu_device
def _add_shares(thread, threads, counter, out, factors):
    """Each thread writes what it was handed, and after a meeting reads what the others wrote."""
    numbers, factor = factors
    out[0, thread] = numbers[thread] * factor
    meet(counter, threads, 0)
    out[1, thread] += out[0, :threads].sum()


@cpu_device
def _fail_on(thread, threads, which):
    if thread == which:
        raise ValueError("as it was told to")


_add_shares_entry, _fail_on_entry = entry_of(_add_shares), entry_of(_fail_on)


@cpu_kernel
def _launch_add_shares(board, threads, *args):
    return call_on_team(board, threads, _add_shares_entry(args), args)


@cpu_kernel
def _launch_fail_on(board, threads, *args):
    return call_on_team(board, threads, _fail_on_entry(args), args)


add_shares = TeamKernel(_add_shares, _launch_add_shares)
fail_on = TeamKernel(_fail_on, _launch_fail_on)


def add_all(team, calls=1):
    numbers, out = np.arange(1.0, team.threads + 1), np.zeros((2, team.threads))
    for _ in range(calls):
        team.run_together(add_shares, np.zeros(8, np.int64), out, (numbers, 0.5))
    return out[1].tolist()


def workers():
    return sum(thread.name == "numbatch" for thread in threading.enumerate())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_thread_is_called_with_all_arguments(threads):
    total = 0.5 * sum(range(1, threads + 1))
    assert add_all(ThreadTeam(threads), calls=50) == [50 * total] * threads


def test_threads_that_sleep_are_woken():
    team = ThreadTeam(3)
    for _ in range(3):
        assert add_all(team) == [3.0] * 3
        time.sleep(0.05)  # longer than they look out for the next call


def test_different_kernels_take_turns():
    team = ThreadTeam(2)
    for _ in range(3):
        team.run_together(fail_on, -1)
        assert add_all(team) == [1.5, 1.5]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_failure_on_any_thread_is_told_and_the_team_goes_on(which):
    team = ThreadTeam(3)
    with pytest.raises(RuntimeError, match="_fail_on failed on a thread"):
        team.run_together(fail_on, which)
    assert add_all(team) == [3.0] * 3


def test_calls_from_several_threads_wait_for_each_other():
    team, results = ThreadTeam(2), []
    callers = [
        threading.Thread(target=lambda: results.append(add_all(team, calls=200))) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [[300.0, 300.0]] * 4


def test_threads_leave_with_their_team():
    gc.collect()
    before, team = workers(), ThreadTeam(4)
    add_all(team)
    assert workers() == before + 3
    del team
    gc.collect()
    for _ in range(200):
        if workers() <= before:
            break
        time.sleep(0.01)
    assert workers() <= before


@pytest.mark.skipif(not HAS_FUTEX, reason="where there is no futex they give their core away")
def test_idle_threads_sleep():
    team = ThreadTeam(3)
    add_all(team)
    asleep = team._board[0]  # the second number counts them
    for _ in range(200):
        if asleep[1] == 2:
            break
        time.sleep(0.01)
    assert asleep[1] == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_threads_of_its_own():
    team = ThreadTeam(2)
    add_all(team)
    child = os.fork()
    if child == 0:
        os._exit(0 if add_all(team) == [1.5, 1.5] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
