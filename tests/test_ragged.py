import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1))))
def test_rows_come_back_as_they_went_in(rows):
    ragged = Ragged.from_rows(rows, np.int32)
    assert [row.tolist() for row in ragged] == rows
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    if rows:
        assert ragged[-1].tolist() == rows[-1]


def test_a_row_is_a_view():
    ragged = Ragged.from_rows([[1, 2], [3]], np.int64)
    ragged[1][0] = 9
    assert ragged.values.tolist() == [1, 2, 9]


def test_rows_out_of_range_are_refused():
    with pytest.raises(IndexError, match="row 2 is out of range for a Ragged of 2 rows"):
        Ragged.from_rows([[1], []], np.int64)[2]


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        ([1, 2], [0, 1], "from 0 to 1, should run from 0 to 2"),
        ([1, 2], [1, 2], "from 1 to 2"),
        ([1, 2], [0, 2, 1, 2], "decrease"),
        ([[1], [2]], [0, 2], "one-dimensional"),
        ([], [], "at least one offset"),
    ],
)
def test_arrays_that_describe_no_rows_are_refused(values, offsets, message):
    with pytest.raises(InputError, match=message):
        Ragged(np.array(values), np.array(offsets, np.int64))
