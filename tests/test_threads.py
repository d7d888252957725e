import os

import numpy as np
import pytest

from numbatch.errors import InputError
from numbatch.kernels.threads import Call, ThreadTeam


def mark(start, stop, out, step):
    out[start:stop] += step


def mark_scratch(start, stop, scratch, out):
    scratch[0] += stop - start
    out[start:stop] += 1


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 64, 1000])
@pytest.mark.parametrize("grain", [1, 16, 5000])
def test_every_item_is_worked_on_once(threads, items, grain):
    a, b = np.zeros(items, np.int64), np.zeros(items + 3, np.int64)
    team = ThreadTeam(threads)
    team.run(Call(mark, items, (a, 1), grain=grain), Call(mark, items + 3, (b, 2), grain=grain))
    assert np.all(a == 1)
    assert np.all(b == 2)


def test_each_thread_has_scratch_of_its_own():
    out, scratch = np.zeros(100, np.int64), np.zeros((4, 1), np.int64)
    ThreadTeam(4).run(Call(mark_scratch, 100, (out,), scratch))
    assert np.all(out == 1)
    assert scratch.sum() == 100


def test_an_error_in_a_part_comes_out():
    def fail(start, stop):
        raise ArithmeticError(f"{start}")

    with pytest.raises(ArithmeticError):
        ThreadTeam(2).run(Call(fail, 10, ()))


def test_no_threads_is_refused():
    with pytest.raises(InputError, match="threads is 0, should be at least 1"):
        ThreadTeam(0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_team_of_its_own():
    team = ThreadTeam(2)
    out = np.zeros(10, np.int64)
    team.run(Call(mark, 10, (out, 1)))
    child = os.fork()
    if child == 0:
        team.run(Call(mark, 10, (out, 1)))
        os._exit(0 if np.all(out == 2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
