"""Functions that only kernels call: linked as a whole, whoever calls them."""

import numba
import numpy as np
import pytest

from numbatch.kernels.jit import cpu_device, cpu_kernel


@cpu_device
def leaf(x):
    """Return one more."""
    return x + 1


@cpu_device
def either(which, x):
    """Call another function for one of two constants only."""
    if which == 1:
        return leaf(x) * 2
    return x


@cpu_device(inline=True)
def inlined(x):
    """Call what is called elsewhere too."""
    return leaf(x) * 3


@cpu_device
def branches(x):
    """Call the function that is called by no code in one of its two forms."""
    return either(0, x) + either(1, x)


@cpu_kernel
def whole(x):
    """Call functions that share one, the first of which does so in dead code."""
    return either(0, x), inlined(x), branches(x)


@numba.njit
def of_a_user(x):
    """Call such functions as a user's code may."""
    return inlined(x) + branches(x)


@cpu_device
def calls_user(x):
    """Call a user's function, which calls device functions again."""
    return of_a_user(x) + leaf(x)


@cpu_kernel
def through_user(out):
    """Write what comes of all of them."""
    for i in range(out.size):
        out[i] = calls_user(out[i])


def test_what_dead_code_calls_is_linked_where_live_code_does():
    assert whole(5) == (5, 18, 17)


def test_a_users_function_can_call_them_and_be_called():
    assert of_a_user(5) == 35
    out = np.arange(3.0)
    through_user(out)
    assert out.tolist() == [6.0, 13.0, 20.0]


@cpu_device(allocates=True)
def says(number):
    """Print a text, which is one of Python's objects, and raise with a number."""
    print("number", number)
    if number > 3:
        raise ValueError("too large", number)
    return number


@numba.njit
def asks(number):
    """Call what prints."""
    return says(number)


def test_they_may_print_texts_and_raise(capfd):
    assert asks(2) == 2
    with pytest.raises(ValueError, match="too large"):
        asks(4)
    assert capfd.readouterr().out.split() == ["number", "2", "number", "4"]


def test_machine_code_is_made_of_callers_only():
    assert of_a_user(1) == 11
    kind = (numba.int64,)
    device, caller = branches.overloads[kind], of_a_user.overloads[kind]
    engine = caller.library.codegen._engine
    assert engine.is_symbol_defined(caller.fndesc.mangled_name)
    assert not engine.is_symbol_defined(device.fndesc.mangled_name)
