"""Whether offsets on a device describe rows, which a Ragged checks on the host only."""

from __future__ import annotations

from numbatch.kernels.cuda import cuda, cuda_device

__all__ = ["count_wrong"]


@cuda_device
def count_wrong(offsets, i, size, counters, place):
    """Raise ``counters[place]`` if an offset is less than the one before, or out of place.

    The first should be 0 and the last ``size``.
    """
    before = offsets[i - 1] if i > 0 else 0
    here = offsets[i]
    wrong = here < before or (i == 0 and here != 0)
    if wrong or (i == offsets.size - 1 and here != size):
        cuda.atomic.add(counters, place, 1)
