"""Radix selection of floats: ranks are found digit by digit.

The bits of a float, with the sign turned, are an integer of the same order. One pass counts the
leading digits of all keys; a second collects the keys that share a wanted rank's digit, usually a
few in a hundred; those are narrowed digit by digit.
"""

from __future__ import annotations

import numpy as np

from numbatch.kernels.jit import cpu_device, cpu_kernel

__all__ = ["FEW", "DigitSelection", "bits_of", "numbers_of", "order", "order_wide"]

LEADING, LEADING_FEW, FEW = 16, 13, 1 << 18
"""Bits of the first digit, those for at most ``FEW`` values; float64's exponent has 11."""

DIGIT = 12
BUCKETS = 1 << DIGIT
"""Of the digits after the first."""


@cpu_device
def order(bits):
    """Map float32 bits in a uint32 to a key of the same order as the numbers; NaN comes last."""
    if bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000):
        return np.uint32(0xFFFFFFFF)
    return bits ^ (np.uint32(np.int32(bits) >> np.int32(31)) | np.uint32(0x80000000))


@cpu_device
def order_wide(bits):
    """Map float64 bits in a uint64 to a key of the same order as the numbers; NaN comes last."""
    if bits & np.uint64(0x7FFFFFFFFFFFFFFF) > np.uint64(0x7FF0000000000000):
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    return bits ^ (np.uint64(np.int64(bits) >> np.int64(63)) | np.uint64(0x8000000000000000))


@cpu_kernel
def _count_leading(bits, leading, counts):
    """Count the leading digits of the keys of float32; no error check.

    Parameters
    ----------
    bits : uint32 array, shape (total,)
        The floats' bits.
    leading : int
        Bits of the digit.
    counts : int64 array, shape (4, 1 << leading)
        Modified in place: the four rows are to be added. Neighbouring values are often alike, and a
        counter cannot be raised twice in a row without waiting.
    """
    shift = np.uint32(32 - leading)
    whole = bits.size // 4 * 4
    for i in range(0, whole, 4):
        counts[0, np.uintp(order(bits[i]) >> shift)] += 1
        counts[1, np.uintp(order(bits[i + 1]) >> shift)] += 1
        counts[2, np.uintp(order(bits[i + 2]) >> shift)] += 1
        counts[3, np.uintp(order(bits[i + 3]) >> shift)] += 1
    for i in range(whole, bits.size):
        counts[0, np.uintp(order(bits[i]) >> shift)] += 1


@cpu_kernel
def _count_leading_wide(bits, leading, counts):
    """Count the leading digits of the keys of float64; as :func:`_count_leading`."""
    shift = np.uint64(64 - leading)
    whole = bits.size // 4 * 4
    for i in range(0, whole, 4):
        counts[0, np.uintp(order_wide(bits[i]) >> shift)] += 1
        counts[1, np.uintp(order_wide(bits[i + 1]) >> shift)] += 1
        counts[2, np.uintp(order_wide(bits[i + 2]) >> shift)] += 1
        counts[3, np.uintp(order_wide(bits[i + 3]) >> shift)] += 1
    for i in range(whole, bits.size):
        counts[0, np.uintp(order_wide(bits[i]) >> shift)] += 1


@cpu_kernel
def _collect(bits, leading, slots, cursors, out):
    """Copy the keys whose leading digit is wanted; no error check.

    Parameters
    ----------
    bits : uint32 array, shape (total,)
    slots : int64 array, shape (1 << leading,)
        The digit's slot; the last slot is for digits that nobody wants.
    cursors : int64 array, shape (slots,)
        Modified in place: where each slot writes next. The last stands at the end of ``out``.
    out : uint32 array
        Modified in place. One element longer than the keys that are wanted.
    """
    shift = np.uint32(32 - leading)
    last = cursors.size - 1
    for i in range(bits.size):
        key = order(bits[i])
        slot = slots[np.uintp(key >> shift)]
        if slot != last:
            out[cursors[slot]] = key
            cursors[slot] += 1


@cpu_kernel
def _collect_wide(bits, leading, slots, cursors, out):
    """Copy the keys of float64 whose leading digit is wanted; as :func:`_collect`."""
    shift = np.uint64(64 - leading)
    last = cursors.size - 1
    for i in range(bits.size):
        key = order_wide(bits[i])
        slot = slots[np.uintp(key >> shift)]
        if slot != last:
            out[cursors[slot]] = key
            cursors[slot] += 1


@cpu_device
def _digit_of_rank(counts, rank):
    """Return the digit that holds the rank, and the rank among its keys."""
    digit = 0
    while rank >= counts[digit]:
        rank -= counts[digit]
        digit += 1
    return digit, rank


@cpu_kernel
def _select(keys, shift, rank, counts, scratch):
    """Return the key of a rank, of keys that differ in their last ``shift`` bits alone.

    No error check. ``counts`` (int64, BUCKETS) and ``scratch`` (uint64, as long as keys) are
    overwritten.
    """
    size = keys.size
    for i in range(size):
        scratch[i] = np.uint64(keys[i])
    while shift > 0 and size > 1:
        shift -= DIGIT
        digits = BUCKETS - 1
        if shift < 0:
            digits, shift = (1 << (DIGIT + shift)) - 1, 0
        counts[:] = 0
        for i in range(size):
            counts[np.intp(scratch[i] >> np.uint64(shift)) & digits] += 1
        digit, rank = _digit_of_rank(counts, rank)
        kept = 0
        for i in range(size):
            if np.intp(scratch[i] >> np.uint64(shift)) & digits == digit:
                scratch[kept] = scratch[i]
                kept += 1
        size = kept
    return scratch[0]


class DigitSelection:
    """Selects ranks of values in several parts of one dtype."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self._wide = parts[0].dtype == np.float64
        self._bits = [bits_of(part) for part in parts]
        total = sum(map(len, parts))
        self._leading = LEADING if total > FEW else LEADING_FEW
        counts = np.zeros((4, 1 << self._leading), np.int64)
        for bits in self._bits:
            (_count_leading_wide if self._wide else _count_leading)(bits, self._leading, counts)
        self._counts = counts.sum(axis=0)
        # The last digit holds NaN only: infinity's key has zeros after the exponent's bits.
        self.nans = int(self._counts[-1])
        self.numbers = total - self.nans

    def select(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values of increasing ranks (0: the least), float64."""
        ends = np.cumsum(self._counts)
        digits = np.searchsorted(ends, ranks, side="right")
        wanted = np.unique(digits)
        slots = np.full(len(ends), len(wanted), np.int64)
        slots[wanted] = np.arange(len(wanted))
        edges = np.concatenate([[0], np.cumsum(self._counts[wanted])])
        keys = np.empty(edges[-1], self._bits[0].dtype)
        cursors = edges.copy()
        for bits in self._bits:
            (_collect_wide if self._wide else _collect)(bits, self._leading, slots, cursors, keys)
        counts, scratch = np.empty(BUCKETS, np.int64), np.empty(edges[-1], np.uint64)
        found = np.empty(len(ranks), np.uint64)
        shift = (64 if self._wide else 32) - self._leading
        for i, (rank, digit) in enumerate(zip(ranks, digits, strict=True)):
            slot = slots[digit]
            part = keys[edges[slot] : edges[slot + 1]]
            before = ends[digit] - self._counts[digit]
            found[i] = _select(part, shift, rank - before, counts, scratch)
        return numbers_of(found, self._wide)


def numbers_of(keys: np.ndarray, wide: bool) -> np.ndarray:
    """Turn keys (uint64) back to floats, float64; ``wide`` tells keys of float64."""
    if wide:
        sign = np.uint64(1) << np.uint64(63)
        return np.where(keys & sign, keys ^ sign, ~keys).view(np.float64)
    narrow, sign32 = keys.astype(np.uint32), np.uint32(0x80000000)
    bits = np.where(narrow & sign32, narrow ^ sign32, ~narrow)
    return bits.view(np.float32).astype(np.float64)


def bits_of(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 or float64 numbers, for reading."""
    bits = values.view(np.uint64 if values.dtype == np.float64 else np.uint32)
    bits.flags.writeable = False  # of one type to Numba, whatever the values are
    return bits
