"""Exact quantiles on the device, by radix selection: count leading digits, collect, narrow.

Two passes over the values, as on the CPU; the keys that share a wanted rank's digit are collected,
narrowed digit by digit, and the last few thousand are sorted on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu, cuda, cuda_device, cuda_kernel
from numbatch.kernels.device_arrays import (
    blocks_for,
    shared_body,
    threads_of,
)
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.statistics import digits
from numbatch.kernels.statistics.digits import numbers_of

__all__ = ["DeviceSelection", "order", "order_wide"]

DIGIT = 13
"""Bits of a digit: float64's sign and exponent have 12, which infinity shares with NaN."""
DIGITS = 1 << DIGIT
THREADS = threads_of(256, 8)
EACH = 16
"""Values of a thread, which it reads twice when it collects."""
TILE = THREADS * EACH
FEW = 1 << 13
"""Keys that are sorted on the host: 64 KiB at most."""


@cpu_device
def _key(bits):
    return bits


order, order_wide = shared_body(digits.order), shared_body(digits.order_wide)
as_it_is = shared_body(_key)


def _kernels(key_of: Any, wide: bool) -> tuple[Any, Any]:
    """Make the kernels that count and collect digits of the keys that ``key_of`` gives."""
    unsigned = np.uint64 if wide else np.uint32

    @cuda_device
    def count_key(key, shift, mask, counters):
        digit = np.int64(key >> unsigned(shift)) & mask
        cuda.atomic.add(counters, digit, 1)

    @cuda_kernel
    def count_digits(bits, shift, width, prefix, counts):
        """Count a digit of the keys whose bits above it are ``prefix``; no error check.

        The digit is the ``width`` bits from ``shift`` on. ``counts`` is int64, shape (DIGITS,),
        modified in place. A ``prefix`` of -1 takes all keys, by their leading bits.
        """
        counters = cuda.shared.array(DIGITS, np.int32)
        thread = cuda.threadIdx.x
        mask = np.int64((1 << width) - 1)
        i = thread
        while i < DIGITS:
            counters[i] = 0
            i += THREADS
        cuda.syncthreads()
        step = cuda.gridsize(1)
        i = cuda.grid(1)
        while prefix < 0 and i + 3 * step < bits.size:
            a, b = bits[i], bits[i + step]
            c, d = bits[i + 2 * step], bits[i + 3 * step]
            count_key(key_of(a), shift, mask, counters)
            count_key(key_of(b), shift, mask, counters)
            count_key(key_of(c), shift, mask, counters)
            count_key(key_of(d), shift, mask, counters)
            i += 4 * step
        while i < bits.size:
            key = key_of(bits[i])
            if prefix < 0 or np.int64(key >> unsigned(shift + width)) == prefix:
                count_key(key, shift, mask, counters)
            i += step
        cuda.syncthreads()
        i = thread
        while i < DIGITS:
            total = np.int64(counters[i])
            if total > 0:
                cuda.atomic.add(counts, i, total)
            i += THREADS

    @cuda_kernel
    def collect_keys(bits, shift, wanted, low, kept, cursor):
        """Write the keys whose bits from ``shift`` on, less ``low``, are wanted, in any order.

        No error check. ``wanted`` is uint8, read below its size; ``kept`` has room for all of them;
        ``cursor`` (int64, shape (1,)) says how many there are.
        """
        sums = cuda.shared.array(THREADS, np.int32)
        base = cuda.shared.array(1, np.int64)
        thread = cuda.threadIdx.x
        first = np.int64(cuda.blockIdx.x) * TILE + thread
        marks = 0
        own = 0
        for k in range(EACH):
            i = first + k * THREADS
            if i < bits.size:
                digit = np.int64(key_of(bits[i]) >> unsigned(shift)) - low
                if 0 <= digit < wanted.size and wanted[digit] > 0:
                    marks |= 1 << k
                    own += 1
        sums[thread] = own
        cuda.syncthreads()
        step = 1
        while step < THREADS:
            more = 0
            if thread >= step:
                more = sums[thread - step]
            cuda.syncthreads()
            sums[thread] += more
            cuda.syncthreads()
            step *= 2
        if thread == THREADS - 1:
            base[0] = cuda.atomic.add(cursor, 0, np.int64(sums[thread]))
        cuda.syncthreads()
        at = base[0] + sums[thread] - own
        for k in range(EACH):
            if marks >> k & 1:
                kept[at] = key_of(bits[first + k * THREADS])
                at += 1

    return count_digits, collect_keys


COUNT, COLLECT = _kernels(order, False)
COUNT_WIDE, COLLECT_WIDE = _kernels(order_wide, True)
COUNT_KEYS, COLLECT_KEYS = _kernels(as_it_is, False)
COUNT_KEYS_WIDE, COLLECT_KEYS_WIDE = _kernels(as_it_is, True)


class DeviceSelection:
    """Selects ranks of the values of several arrays on a device.

    Parameters
    ----------
    gpu : Gpu
    parts : list of float32 or float64 arrays on it, flat, of one dtype

    Attributes
    ----------
    nans, numbers : int
        How many values are NaN, and how many are not.
    """

    def __init__(self, gpu: Gpu, parts: list[Any]) -> None:
        self._gpu = gpu
        self._wide = np.dtype(parts[0].dtype) == np.float64
        self._bits = [part.view(np.uint64 if self._wide else np.uint32) for part in parts]
        self._shift = (64 if self._wide else 32) - DIGIT
        count = COUNT_WIDE if self._wide else COUNT
        self._counts = self._count(count, self._bits, self._shift, -1)
        # The last digit holds NaN only: infinity's key has zeros after the exponent's bits.
        self.nans = int(self._counts[-1])
        self.numbers = sum(int(part.size) for part in parts) - self.nans

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        ends = np.cumsum(self._counts)
        digits = np.searchsorted(ends, ranks, side="right")
        wanted = np.zeros(DIGITS, np.uint8)
        wanted[digits] = 1
        total = int(self._counts[wanted > 0].sum())
        collect = COLLECT_WIDE if self._wide else COLLECT
        keys = self._collect(collect, self._bits, self._shift, wanted, 0, total)
        found = np.empty(len(ranks), np.uint64)
        for digit in np.unique(digits).tolist():
            mine = digits == digit
            before = int(ends[digit] - self._counts[digit])
            found[mine] = self._narrow(
                keys, digit, self._shift, int(self._counts[digit]), ranks[mine] - before
            )
        return numbers_of(found, self._wide)

    def _narrow(self, keys: Any, prefix: int, shift: int, size: int, ranks: Any) -> np.ndarray:
        """Return the keys of ranks among those whose bits from ``shift`` on are ``prefix``."""
        if shift == 0:
            return np.full(len(ranks), prefix, np.uint64)
        if size <= FEW:
            collect = COLLECT_KEYS_WIDE if self._wide else COLLECT_KEYS
            one = np.ones(1, np.uint8)
            kept = self._collect(collect, [keys], shift, one, prefix, size)
            few = self._gpu.download(kept)
            return np.sort(few)[ranks].astype(np.uint64)
        count = COUNT_KEYS_WIDE if self._wide else COUNT_KEYS
        step = min(DIGIT, shift)
        counts = self._count(count, [keys], shift - step, prefix, step)
        ends = np.cumsum(counts)
        digits = np.searchsorted(ends, ranks, side="right")
        found = np.empty(len(ranks), np.uint64)
        for digit in np.unique(digits).tolist():
            mine = digits == digit
            before = int(ends[digit] - counts[digit])
            found[mine] = self._narrow(
                keys, prefix << step | digit, shift - step, int(counts[digit]), ranks[mine] - before
            )
        return found

    def _count(
        self, kernel: Any, parts: list[Any], shift: int, prefix: int, width: int = DIGIT
    ) -> np.ndarray:
        counts = self._gpu.zeros(DIGITS, np.int64)
        for bits in parts:
            blocks = min(blocks_for(bits.size, TILE), 6 * self._gpu.multiprocessors)
            self._gpu.launch(kernel, blocks, THREADS, bits, shift, width, prefix, counts)
        return self._gpu.download(counts)

    def _collect(
        self, kernel: Any, parts: list[Any], shift: int, wanted: np.ndarray, low: int, total: int
    ) -> Any:
        kept = self._gpu.empty(total, np.uint64 if self._wide else np.uint32)
        cursor, marks = self._gpu.zeros(1, np.int64), self._gpu.upload(wanted)
        for bits in parts:
            blocks = blocks_for(bits.size, TILE)
            self._gpu.launch(kernel, blocks, THREADS, bits, shift, marks, low, kept, cursor)
        return kept
