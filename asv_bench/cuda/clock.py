"""Times of what runs on a GPU, and of what it is set beside."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from numbatch.kernels.cuda import CudaKernel, Gpu
from numbatch.kernels.device_arrays import gpu_of


def gpu_in_use() -> Gpu:
    """Return the GPU that functions use for arrays on the first one."""
    import cupy

    return gpu_of(cupy.empty(1), "array")


def wall_seconds(gpu: Gpu, run: Callable[[], Any], repeats: int = 9) -> float:
    """Return the median time of one call and of what it started; the first is not counted."""
    run()
    times = []
    for _ in range(repeats):
        gpu.synchronize()
        begin = time.perf_counter()
        run()
        gpu.synchronize()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


@contextmanager
def kernel_seconds(gpu: Gpu) -> Iterator[dict[str, float]]:
    """Sum up the time of each kernel that is launched meanwhile; launches wait for one another.

    A copy before each keeps the GPU busy until the launch has reached it, so that the time between
    the events is the kernel's alone.
    """
    import cupy

    gpu.use()
    source = cupy.zeros(1 << 30, cupy.uint8)
    target = cupy.empty_like(source)

    seconds: dict[str, float] = defaultdict(float)
    launch = gpu.launch

    def timed(kernel: CudaKernel, grid: Any, block: Any, *args: Any) -> None:
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        gpu.synchronize()
        cupy.copyto(target, source)
        begin.record(gpu.stream)
        launch(kernel, grid, block, *args)
        end.record(gpu.stream)
        end.synchronize()
        seconds[kernel.name] += cupy.cuda.get_elapsed_time(begin, end) / 1e3

    gpu.launch = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        del gpu.launch


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print rows under a header, in columns."""
    print(f"\n{title}", flush=True)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells), flush=True)


def close(found: Any, wanted: Any, relative: float) -> bool:
    """Return whether numbers agree within a relative error; NaN with NaN."""
    return bool(np.allclose(found, wanted, rtol=relative, atol=0, equal_nan=True))
