"""A matrix repacked into panels, and the repacking of many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from numbatch.kernels.aligned import Arena, aligned
from numbatch.kernels.scoring import formats
from numbatch.kernels.threads import Call, ThreadTeam

__all__ = ["PackedMatrix", "pack_all"]


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix in panels; rows beyond its own, and columns up to a multiple of 32, are zero.

    Parameters
    ----------
    data : uint8 array, shape (panels, blocks * bytes of a block)
    bits : int
        Of a weight.
    rows, columns : int
    panel : int
        Rows of a panel.
    """

    data: np.ndarray
    bits: int
    rows: int
    columns: int
    panel: int

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return int(self.data.nbytes)


Begin = Callable[..., tuple[Call, PackedMatrix, np.ndarray]]


def pack_all(
    begin: Begin,
    most_bits: int,
    weights: Sequence[tuple[np.ndarray, int, int]],
    names: Sequence[str],
    team: ThreadTeam,
    arena: Arena | None = None,
) -> list[PackedMatrix]:
    """Repack many matrices at a time: threads begin and end once, and not for each.

    Parameters
    ----------
    begin : function (data, format, columns, bits, scratch, take)
        Returns the call that packs a matrix, the matrix, and an array whose element becomes the
        number of a row that cannot be packed so, else stays -1. ``bits`` is 0 for those of the
        format; ``scratch`` is float32, shape (threads, columns); ``take(shape, dtype)`` returns
        memory.
    most_bits : int
        With so many bits whatever is finite can be packed.
    weights : sequence of (data, format, columns)
        ``data`` is uint8, shape (rows, bytes of a row), C-contiguous, as its file holds it;
        ``format`` a GGML type code.
    names : sequence of str
        What messages call them.
    team : ThreadTeam
    arena : Arena, optional
        Where the memory is taken from.

    Raises
    ------
    ValueError
        If a format is unknown, a row is not a whole number of its blocks, or a weight is NaN or
        infinite; the message names the matrix and the row.
    """
    for (_, format, columns), name in zip(weights, names, strict=True):
        try:
            formats.row_bytes(format, columns)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    packed: dict[int, PackedMatrix] = {}
    scratch = np.zeros((team.threads, max((each[2] for each in weights), default=0)), np.float32)
    waiting: Sequence[int] = range(len(weights))
    take = aligned if arena is None else arena.take
    for bits in (0, most_bits):  # what is too large for the bits of its format takes the most
        begun = {i: begin(*weights[i], bits, scratch[:, : weights[i][2]], take) for i in waiting}
        if begun:
            team.run(*(call for call, _, _ in begun.values()))
        for i, (_, matrix, wrong) in begun.items():
            if wrong[0] >= 0 and matrix.bits == most_bits:
                raise ValueError(f"{names[i]}: row {wrong[0]} has a weight that is NaN or infinite")
            packed[i] = matrix
        waiting = [i for i, (_, _, wrong) in begun.items() if wrong[0] >= 0]
    return [packed[i] for i in range(len(weights))]
