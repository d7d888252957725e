"""Whether offsets on a device describe rows, which a Ragged checks on the host only."""

from __future__ import annotations

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.device_arrays import threads_of

__all__ = ["OFFSET_THREADS", "count_wrong_offsets"]

OFFSET_THREADS = threads_of(128, 8)


@cuda_kernel
def count_wrong_offsets(offsets, size, counters, place):
    """Count the offsets that are less than the one before, or do not run from 0 to ``size``.

    ``counters[place]`` (int64) is raised by their number.
    """
    i = cuda.grid(1)
    if i < offsets.size:
        before = offsets[i - 1] if i > 0 else 0
        here = offsets[i]
        wrong = here < before or (i == 0 and here != 0)
        if wrong or (i == offsets.size - 1 and here != size):
            cuda.atomic.add(counters, place, 1)
