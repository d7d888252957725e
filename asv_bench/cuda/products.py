"""Products of weights with one, a few and many inputs, against the copy bandwidth and cuBLAS."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from asv_bench.cuda.common import _matrix, _quantized, copy_bandwidth, limits, row, seconds_of
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.scoring.cuda import matmul_tiles, matvec, results
from numbatch.kernels.scoring.cuda.dense import Dense
from numbatch.kernels.scoring.cuda.matvec_one import multiply_one
from numbatch.kernels.scoring.cuda.packing import pack_matrix

FEW, MANY = (1, 8, 16), (256, 4096)
SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096))
NOTHING = np.zeros((1, 1), np.uint16)
COPIES = 4
"""Different matrices that are gone through, so that none stays in the cache."""


def _graph(gpu: Gpu, action: Any) -> Any:
    action()
    gpu.stream.begin_capture()
    action()
    return gpu.stream.end_capture()


class Case:
    """A shape of weights and a number of random inputs on the GPU.

    Parameters
    ----------
    gpu : Gpu
    rows, columns, tokens : int
    arrays : list of lists of device arrays
        Words, scales and leasts of some matrices, which are gone through one after the other.
    """

    def __init__(
        self, gpu: Gpu, rows: int, columns: int, tokens: int, arrays: list[list[Any]]
    ) -> None:
        self.gpu, self.rows, self.columns, self.tokens, self.arrays = (
            gpu, rows, columns, tokens, arrays
        )  # fmt: skip
        bits = np.random.default_rng(0).integers(0x3C00, 0x3F80, (tokens, columns))
        self.x = gpu.upload(bits.astype(np.uint16))
        self.out, self.full = gpu.zeros((tokens, rows), np.uint16), gpu.zeros((1, 1), np.float32)
        self.rest = (
            results.STORE, 0, 0, np.float32(1), np.float32(0), 0, self.out, self.full
        )  # fmt: skip

    def seconds(self, product: Any) -> float:
        """Return the time of ``product(arrays)`` in a graph."""

        def all_products() -> None:
            for each in self.arrays:
                product(each)

        graph = _graph(self.gpu, all_products)
        return seconds_of(lambda: graph.launch(self.gpu.stream), self.gpu.stream) / COPIES

    def one(self, each: list[Any]) -> None:
        """Multiply with one input as the engine does without ``invariant``."""
        blocks = matvec.matvec_blocks(results.STORE, self.rows, 1)[1]
        self.gpu.launch(
            multiply_one, blocks, matvec.THREADS, each[0], self.rows, self.x, *self.rest
        )

    def few(self, each: list[Any], kind: str) -> None:
        """Multiply with few inputs, in an order that does not depend on how many there are."""
        blocks = matvec.matvec_blocks(
            results.STORE, self.rows, self.tokens, self.gpu.multiprocessors
        )
        self.gpu.launch(
            matvec.matvec_kernel(kind, matvec.tiles_of(self.tokens)), blocks, matvec.THREADS, *each,
            self.rows, self.x, self.tokens, *self.rest,
        )  # fmt: skip

    def many(self, each: list[Any]) -> None:
        """Multiply with many inputs, in the same order."""
        sizes = matmul_tiles.tile_sizes(
            results.STORE, self.rows, self.tokens, self.gpu.multiprocessors
        )
        self.gpu.launch(
            matmul_tiles.multiply_tiles_kernel(*sizes),
            matmul_tiles.tile_blocks(results.STORE, self.rows, self.tokens, *sizes),
            matmul_tiles.THREADS, each[0], self.rows, self.x, 0, self.tokens, *self.rest,
        )  # fmt: skip

    def theirs(self, each: list[Any], dense: Dense) -> None:
        """Multiply with cuBLAS."""
        dense.product(
            self.x, each[0], self.tokens, self.columns, self.out, rows=(0, self.rows)
        )  # fmt: skip


def _bytes_row(case: Case, name: str, size: int, seconds: float, *cells: str) -> None:
    row(
        f"{case.rows} x {case.columns}, {name}, {case.tokens} inputs",
        f"{size / seconds / 1e9:.0f} GB/s", f"{1e6 * seconds:.1f} us",
        f"{size / seconds / copy_bandwidth():.0%} of copy", *cells,
    )  # fmt: skip


def few_inputs(
    gpu: Gpu, dense: Dense, shape: tuple[int, int], kind: str, arrays: list[list[Any]], size: int
) -> None:
    """Print the rows of few inputs for weights of a kind."""
    for tokens in FEW:
        case = Case(gpu, *shape, tokens, arrays)
        seconds = case.seconds(lambda each, c=case: c.few(each, kind))
        if kind != "plain":
            _bytes_row(case, "4-bit", size, seconds)
            continue
        other = size / case.seconds(lambda each, c=case: c.theirs(each, dense)) / 1e9
        if tokens == 1:
            _bytes_row(case, "bf16", size, case.seconds(case.one), f"cuBLAS {other:.0f}")
        _bytes_row(case, "invariant", size, seconds, f"cuBLAS {other:.0f}")


def many_inputs(gpu: Gpu, dense: Dense, shape: tuple[int, int], arrays: list[list[Any]]) -> None:
    """Print the rows of many inputs, in operations a second."""
    for tokens in MANY:
        case = Case(gpu, *shape, tokens, arrays)
        operations = 2 * shape[0] * shape[1] * tokens / 1e12
        ours = case.seconds(case.many)
        other = case.seconds(lambda each, c=case: c.theirs(each, dense))
        row(
            f"{shape[0]} x {shape[1]}, invariant, {tokens} inputs",
            f"{operations / ours:.0f} TFLOP/s", f"{1e6 * ours:.0f} us",
            f"cuBLAS {operations / other:.0f}", f"x {other / ours:.2f}",
        )  # fmt: skip


def main() -> None:
    """Print the rates of each shape, for ours and for cuBLAS."""
    print(limits())
    gpu = Gpu()
    dense = Dense(gpu)
    for shape in SHAPES:
        plain = _matrix(*shape, 1)
        for matrix in (plain, _quantized(plain)):
            packed = pack_matrix(matrix.data, matrix.format, shape[1])
            arrays = [
                [gpu.upload(NOTHING if x is None else x) for x in
                 (packed.words, packed.scales, packed.leasts)]
                for _ in range(COPIES)
            ]  # fmt: skip
            size = sum(x.nbytes for x in (packed.words, packed.scales) if x is not None)
            few_inputs(gpu, dense, shape, packed.kind, arrays, size)
            if packed.kind == "plain" and shape != SHAPES[-1]:  # the vocabulary goes in pieces
                many_inputs(gpu, dense, shape, arrays)
            del arrays
            cupy.get_default_memory_pool().free_all_blocks()
