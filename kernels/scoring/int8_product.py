"""Products of quantized activations with packed weights.

Codes are multiplied and summed in exact integers for 32 columns at a time, and only these sums are
scaled, in float32, from the first block to the last::

    total += sum(code of w * code of x) * scale of x * scale of w
    total += least of w * (sum(code of x) * scale of x)              4 bits
    total += sum((byte of w - 128) * code of x) * scale of x * scale of w    8 bits

So every path and every number of rows gives the same bits. Activations of two terms (quantize.py)
are two rows here, whose totals are added at the end, or of which the second is passed over.

``int8_dots`` and ``int8_shorts`` multiply a few rows with a panel, by what the CPU has.
"""

from __future__ import annotations

from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring import int8_dots, int8_shorts
from numbatch.kernels.scoring.int8_panels import BYTES_4, BYTES_8, PANEL
from numbatch.kernels.simd import LANES
from numbatch.kernels.simd_bytes import DOTS_BYTES
from numbatch.kernels.simd_path import gains_by_prefetch

__all__ = ["multiply_int8"]

ROWS = 6 if DOTS_BYTES else 4
"""Rows of activations that meet a panel at a time."""

_rows_many = int8_dots.rows_6 if DOTS_BYTES else int8_shorts.rows_4
_rows_2 = int8_dots.rows_2 if DOTS_BYTES else int8_shorts.rows_2

ASKS_AHEAD = gains_by_prefetch()

NEAR = 0 if DOTS_BYTES else 4
"""Blocks ahead of which one row asks for lines, where not a whole panel ahead.

On a Zen 3 15.3 instead of 14 GB/s of weights come from memory; 8 and 18 blocks took as long as a
panel.
"""


@cpu_device
def _all_rows(
    start, stop, data, size, bits, jump, x, rows, blocks, terms, given, out, shift, bias, add
):  # fmt: skip
    """Multiply all rows with panels that begin at matrix rows ``start`` to ``stop - 1``.

    While a panel is multiplied, the next one is asked for, by each strip of rows a part of it,
    or by each of two where there are no others; one strip of two asks only where that gains. Lines
    come to the second level: a Zen 4 waits for 24 lines at most that come to the first, which took
    8 rows of bytes 85 us where these take 46.
    """
    panel_bytes, number, apart = blocks * size, rows * terms, given // terms * blocks
    rest, lines, last = number % ROWS, size // 64, (stop - 1) // PANEL
    # Some strips of two take longer than a full one, and with bytes they do from memory.
    filled = rest >= ROWS - 1 or (bits == 8 and 3 <= number < ROWS)
    whole = number - rest + (ROWS if filled else 0)
    strips = whole // ROWS if whole > 0 else (number + 1) // 2
    each = (lines + strips - 1) // strips
    for panel in range(start // PANEL, last + 1):
        at, n, two = panel * panel_bytes, panel * PANEL, stop - panel * PANEL > LANES
        later = panel_bytes + (jump if panel == last else 0)
        for row in range(0, whole, ROWS):
            to, line = row // terms * out.shape[1] + n - shift, row // ROWS * each
            ask = later, min(line, lines), min(line + each, lines)
            _rows_many(data, at, size, bits, x, row, number - row, blocks, apart, terms, ask,
                       out, to, two, bias, n, add)  # fmt: skip
        asked = lines if whole == 0 and (strips > 1 or ASKS_AHEAD) else 0
        if NEAR and number == 1 and panel < last:
            later = NEAR * size
        for row in range(whole, number, 2):
            to, line = row // terms * out.shape[1] + n - shift, row // 2 * each
            ask = later, min(line, asked), min(line + each, asked)
            _rows_2(data, at, size, bits, x, row, number - row, blocks, apart, terms, ask,
                    out, to, two, bias, n, add)  # fmt: skip


@cpu_device
def multiply_int8(
    start, stop, data, bits, jump, x, rows, blocks, terms, given, out, shift, bias, add
):  # fmt: skip
    """Multiply the first rows of x with rows ``start`` to ``stop - 1`` of a matrix.

    No error check.

    Parameters
    ----------
    start, stop : intp
        Multiples of 32, or the end.
    data : uint8 array, flat
    bits : intp
        As in ``int8_panels``.
    jump : intp
        From the end of these panels to what is read after them.
    x : tuple of codes, factors and sums
        Flat arrays, as :func:`quantize.quantize_row` writes them; there is memory for an even
        number of rows, and for six.
    rows : intp
        How many rows of x.
    blocks : intp
        Of a row of the matrix.
    terms, given : intp
        How many terms of a row of x are multiplied, and how many it has: one of one or two, or both
        of two.
    out : float32 array, shape (at least rows, columns)
        Modified in place: matrix row n goes to column ``n - shift``; up to a multiple of 16.
    shift : intp
    bias : float32 array, shape (rows of the matrix, up to a multiple of 16,) or (0,)
    add : bool
        Whether outputs are added to what is in ``out``.
    """
    if bits == 4:
        _all_rows(start, stop, data, BYTES_4, 4, jump, x, rows, blocks, terms, given, out, shift,
                  bias, add)  # fmt: skip
    else:
        _all_rows(start, stop, data, BYTES_8, 8, jump, x, rows, blocks, terms, given, out, shift,
                  bias, add)  # fmt: skip
