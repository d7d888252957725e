"""The first half of a decoder's MLP: two products and the activation, some columns at a time.

What is between the products and the next one's inputs, three times as wide as a row, is never
written to memory as a whole: it would not fit into the second level of the cache.
"""

from __future__ import annotations

from numbatch.kernels.barrier import mark, share
from numbatch.kernels.jit import cpu_device
from numbatch.kernels.scoring.activation import activate_span
from numbatch.kernels.scoring.activations import FLOAT32, convert_span
from numbatch.kernels.scoring.bfloat16_unpack import HAS_TILES
from numbatch.kernels.scoring.gated_tiles import gate_and_up_by_tiles, suits_tiles
from numbatch.kernels.scoring.product import multiply_range, share_address
from numbatch.kernels.simd import LANES

__all__ = ["gate_and_up", "gated_memory"]

TOGETHER = 2 * LANES
"""Columns go through in multiples of it: two panels, a block of the next product."""

NUMBERS = 1 << 15
"""Outputs of either product that are held at a time: 128 KB each."""

FEW_ROWS, FEW_NUMBERS = 32, 1 << 13
"""Outputs of so few rows: 32 KB each, which stay in the first levels of the cache.

All weights of a layer pass through the second level between two uses of a larger buffer; so each
line that is written had to come back first, an eighth of these products' time.
"""


def gated_memory(rows: int) -> int:
    """Return the float32 numbers of working memory that a thread needs for so many rows."""
    return 2 * max(NUMBERS, rows * TOGETHER)


@cpu_device
def _clear(x, rows, columns, first, last):
    """Write zeros to some columns of all rows."""
    for row in range(rows):
        x[row * columns + first : row * columns + last] = 0


@cpu_device
def gate_and_up(
    thread, threads, memory, span, config, shapes, table, gate, up, down, activations, first_row,
    rows, inner, phases, ticks, since,
):  # fmt: skip
    """Do a thread's share of ``act(x @ gate) * (x @ up)``, or ``act(x @ up)``. No error check.

    Parameters
    ----------
    thread, threads : int
        The columns are shared out.
    memory : uint8 array
        As for ``product.multiply_range``.
    span : float32 array, from a cache line on
        Of :func:`gated_memory` numbers; overwritten.
    config, shapes, table
        As for ``decoder_step.run_layers``.
    gate, up : records of MATRIX
        ``gate`` is read if ``config.gated``.
    down : record of MATRIX
        What is multiplied next.
    activations : tuple
        ``Activations.arrays``: x.
    first_row, rows : int
        Rows of x.
    inner : tuple
        ``Activations.arrays``; modified in place: the outputs in the form of a product.
    phases : tuple of int
        Where the cycles of products and of activating are counted.
    ticks, since
        As for ``barrier.mark``.

    Returns
    -------
    int
        The last mark.
    """
    compute = config.compute
    start, stop = share(up.rows, TOGETHER, thread, threads)
    if HAS_TILES and suits_tiles(config, gate, up, rows):
        gate_and_up_by_tiles(start, stop, memory, config.activation, shapes, table, gate, up,
                             activations, first_row, rows, inner)  # fmt: skip
        return mark(ticks, phases[0], since)
    numbers = FEW_NUMBERS if rows <= FEW_ROWS else NUMBERS
    columns = max(TOGETHER, numbers // rows // TOGETHER * TOGETHER)
    gates, ups = span[: span.size // 2], span[span.size // 2 :]
    for first in range(start, stop, columns):
        last = min(first + columns, stop)
        if config.gated:
            out = gates[: rows * columns].reshape((rows, columns))
            following = up.data + first // LANES * up.stride
            multiply_range(compute, first, last, memory, shapes, table, gate, following,
                           activations, first_row, rows, out, first, False)  # fmt: skip
        out = ups[: rows * columns].reshape((rows, columns))
        following = share_address(down, thread, threads)
        if last < stop:
            other = gate if config.gated else up
            following = other.data + last // LANES * other.stride
        multiply_range(compute, first, last, memory, shapes, table, up, following,
                       activations, first_row, rows, out, first, False)  # fmt: skip
        since = mark(ticks, phases[0], since)
        size = (last - first + LANES - 1) // LANES * LANES
        if size > last - first:
            _clear(gates, rows, columns, last - first, size)
            _clear(ups, rows, columns, last - first, size)
        for row in range(rows):
            at = row * columns
            activate_span(config.activation, config.gated, compute != FLOAT32, gates, ups, at, size)
            convert_span(compute, ups, at, first_row + row, first, size, up.rows, inner)
        since = mark(ticks, phases[1], since)
    return since
