"""Histograms with bins of one width on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.statistics.cuda.counters import (
    SHARED_COUNTERS,
    add_counters,
    clear,
)
from numbatch.kernels.statistics.cuda.fixed_places import place_in
from numbatch.kernels.statistics.cuda.strides import REGISTERS, pass_over

__all__ = ["even_bins_kernel", "settled"]


@cpu_device
def settled_place(x, bin, edges):
    """Return the counter of a value near a bin: below, the bins, above; exact by the edges."""
    bins = edges.size - 1
    while bin > 0 and x < edges[bin]:
        bin -= 1
    while bin < bins and x >= edges[bin + 1]:
        bin += 1
    return bin + 1 if x >= edges[bin] else np.int32(0)


settled = shared_body(settled_place)


def even_bins_kernel(kind: Any) -> Any:
    """Make the kernel for values of a dtype and bins of one width, whose counters fit a block."""
    place_of = place_in(kind)

    @cuda_device
    def find(x, given):
        _, _, first, scale, origin, lowest, highest, layout = given
        whole, mask, near, shift, own, unread = layout
        moved = min(max((x - first) * scale + origin, lowest), highest)
        place, again = place_of(moved, whole, mask, near)
        again = again | (x != x)
        # A counter that nobody reads, so that no thread branches.
        place = unread if again else place
        return np.uint32(np.uint32(place << shift) | own), np.uint32(again)

    @cuda_device
    def count(place, given):
        cuda.atomic.add(given[1], place, np.int32(1))

    @cuda_device
    def look_again(x, given):
        """Count a value that is near an edge, or NaN."""
        edges, counters, first, scale, _, _, _, layout = given
        _, _, _, shift, own, _ = layout
        counter = np.int32(edges.size + 1)
        if x == x:
            last = kind(edges.size - 2)
            bin = np.int32(min(max((x - first) * scale, kind(0)), last))
            counter = np.int32(settled(x, bin, edges))
        cuda.atomic.add(counters, np.uint32(np.uint32(counter) << shift) | own, np.int32(1))

    over = pass_over(kind, find, count, look_again)

    @cuda_kernel(registers=REGISTERS)
    def count_in_even_bins(values, start, edges, scale, origin, whole, mask, near, shift, counts):
        """Add the values between edges to their counters; no error check.

        Parameters
        ----------
        values : float32 or float64 array
            ``values[start:]`` begins at a multiple of 16 bytes.
        start : int
        edges : array of the same dtype, shape (bins + 1,)
            The last one is moved up by the least step.
        scale : float of the same dtype
            Bins for a unit.
        origin : float of the same dtype
        whole, mask, near : uint32
            As :class:`~numbatch.kernels.statistics.cuda.fixed_places.FixedPlaces` has them.
        shift : uint32
            Of the sets of counters in shared memory the binary logarithm.
        counts : int64 array, shape (bins + 3,)
            Modified in place: below, the bins, above, NaN.
        """
        counters = cuda.shared.array(SHARED_COUNTERS, np.int32)
        clear(counters)
        own = np.uint32(cuda.threadIdx.x) & ((np.uint32(1) << shift) - np.uint32(1))
        half = kind(0.5)  # of the counters below and above all edges, the middle
        lowest, highest = origin + half, origin + kind(edges.size) + half
        layout = (whole, mask, near, shift, own, np.uint32(edges.size + 2))
        given = (edges, counters, edges[0], scale, origin + kind(1), lowest, highest, layout)
        over(values, start, given)
        add_counters(counters, shift, edges.size + 2, counts)

    return count_in_even_bins
