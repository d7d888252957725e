"""What is known of a launch's arguments without a GPU."""

from types import SimpleNamespace

import numpy as np
import pytest
from numba import typeof, types

from numbatch.kernels.cuda.launch import _SCALARS, _compiled, _keep


@pytest.mark.parametrize("kind", _SCALARS, ids=lambda kind: kind.__name__)
def test_numbers_are_of_the_types_that_numba_gives_them(kind):
    name, convert = _SCALARS[kind]
    assert str(typeof(kind(1))) == name
    passed = convert(kind(1))
    assert getattr(passed, "value", passed) == 1


class OnDevice:
    """What a launch needs of Numba's device arrays."""

    def __init__(self, shape, strides):
        self.shape, self.strides, self.dtype = shape, strides, np.dtype(np.float32)
        self.size, self.gpu_data = int(np.prod(shape)), None
        self._numba_type_ = types.Array(types.float32, len(shape), "C")
        self.device_ctypes_pointer = SimpleNamespace(value=4096 if self.size else None)


def test_an_array_keeps_what_a_launch_needs():
    array = OnDevice((2, 3), (12, 4))
    kept = _keep(array)
    assert kept == ("array(float32, 2d, C)", (0, 0, 6, 4, 4096, 2, 3, 12, 4))
    assert array._numbatch_launch is kept
    assert _keep(OnDevice((0,), (4,)))[1] == (0, 0, 0, 4, 0, 0, 4)
    assert _keep(np.zeros(3)) is None
    assert _keep("text") is None


def test_a_kernel_of_other_types_is_not_taken():
    code = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(kernel="the kernel"))
    made = SimpleNamespace(argument_types=(types.int64, types.float32), _codelibrary=code)
    compiled = SimpleNamespace(_compile_for_args=lambda *_: made)
    kernel = SimpleNamespace(compiled=compiled, shared=0)
    assert _compiled(kernel, (1, np.float32(2)), ["int64", "float32"]) == "the kernel"
    assert not _compiled(kernel, (1, 2.0), ["int64", "float64"])
