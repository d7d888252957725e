"""Terms of an entropy on the device."""

from __future__ import annotations

from numbatch.kernels.cuda import cuda, cuda_kernel
from numbatch.kernels.device_arrays import shared_body
from numbatch.kernels.statistics.likelihood import entropy_term

__all__ = ["write_entropy_terms"]

entropy_of = shared_body(entropy_term)


@cuda_kernel
def write_entropy_terms(values, out):
    """Write ``-p log p`` of each value, float64; no error check."""
    i = cuda.grid(1)
    while i < values.size:
        out[i] = entropy_of(float(values[i]))
        i += cuda.gridsize(1)
