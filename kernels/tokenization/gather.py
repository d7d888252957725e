"""Lay out texts and tokens one after another."""

from __future__ import annotations

from numbatch.kernels.jit import cpu_kernel

__all__ = ["cut_points", "rows_on_characters"]


@cpu_kernel
def cut_points(data, begin, stop, wanted, points):
    """Write places at which a text may be cut before it is split; return their number.

    The first place at or after each of ``wanted`` at which every compiled family of patterns
    ends a piece, whatever stands before: between a letter and a space that a letter follows, or
    between a line end and a sign, letter or digit (not a slash, which o200k puts with it).
    No error check.
    """
    count = 0
    last = begin
    for k in range(wanted.size):
        at = max(wanted[k], last + 1)
        while at < stop - 1:
            before, here, after = data[at - 1], data[at], data[at + 1]
            if here == 0x20:
                if 0x61 <= before | 0x20 <= 0x7A and 0x61 <= after | 0x20 <= 0x7A:
                    break
            elif before == 0x0A and 0x20 < here < 0x7F and here != 0x2F:
                break
            at += 1
        if at >= stop - 1:
            break
        points[count] = at
        last = at
        count += 1
    return count


@cpu_kernel
def rows_on_characters(ids, offsets, most, values, token_offsets, ends):
    """Write where each row of ids ends if it has at most ``most``, on a character boundary.

    No error check. ``values`` and ``token_offsets`` are the bytes of all tokens.
    """
    for row in range(offsets.size - 1):
        end = min(offsets[row + 1], offsets[row] + most)
        while offsets[row] < end < offsets[row + 1]:
            at = token_offsets[ids[end]]
            if at < token_offsets[ids[end] + 1] and values[at] & 0xC0 != 0x80:
                break
            end -= 1
        ends[row] = end
