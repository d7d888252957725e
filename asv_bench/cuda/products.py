"""Products of weights with one or a few inputs, against the copy bandwidth and cuBLAS."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from asv_bench.cuda.common import _matrix, _quantized, copy_bandwidth, limits, row, seconds_of
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.scoring.cuda import matvec, results
from numbatch.kernels.scoring.cuda.dense import Dense
from numbatch.kernels.scoring.cuda.matvec_one import multiply_one
from numbatch.kernels.scoring.cuda.packing import pack_matrix

SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096))
NOTHING = np.zeros((1, 1), np.uint16)
COPIES = 4
"""Different matrices that are gone through, so that none stays in the cache."""


def _graph(gpu: Gpu, action: Any) -> Any:
    action()
    gpu.stream.begin_capture()
    action()
    return gpu.stream.end_capture()


def main() -> None:
    """Print GB/s of each shape, for ours and for cuBLAS."""
    print(limits())
    gpu = Gpu()
    dense = Dense(gpu)
    for rows, columns in SHAPES:
        plain = _matrix(rows, columns, 1)
        for kind, matrix in (("bf16", plain), ("4-bit", _quantized(plain))):
            packed = pack_matrix(matrix.data, matrix.format, columns)
            arrays = [
                [gpu.upload(NOTHING if x is None else x) for x in
                 (packed.words, packed.scales, packed.leasts)]
                for _ in range(COPIES)
            ]  # fmt: skip
            size = sum(x.nbytes for x in (packed.words, packed.scales) if x is not None)
            for tokens in (1, 8, 16):
                x = gpu.upload(np.full((tokens, columns), 0x3C00, np.uint16))
                out, full = gpu.zeros((tokens, rows), np.uint16), gpu.zeros((1, 1), np.float32)
                blocks = matvec.matvec_blocks(results.STORE, rows, tokens)
                kernel = matvec.matvec_kernel(packed.kind, matvec.tiles_of(tokens))
                is_one = kind == "bf16" and tokens == 1

                def ours(
                    arrays: Any = arrays, kernel: Any = kernel, x: Any = x, out: Any = out,
                    full: Any = full, tokens: int = tokens, rows: int = rows,
                    blocks: Any = blocks, is_one: bool = is_one,
                ) -> None:  # fmt: skip
                    for each in arrays:
                        if is_one:
                            gpu.launch(
                                multiply_one, blocks[1], matvec.THREADS, each[0], rows, x,
                                results.STORE, 0, 0, np.float32(1), np.float32(0), 0, out, full,
                            )  # fmt: skip
                            continue
                        gpu.launch(
                            kernel, blocks, matvec.THREADS, *each, rows, x, tokens,
                            results.STORE, 0, 0, np.float32(1), np.float32(0), 0, out, full,
                        )  # fmt: skip

                def theirs(
                    arrays: Any = arrays, x: Any = x, out: Any = out, tokens: int = tokens,
                    rows: int = rows, columns: int = columns,
                ) -> None:  # fmt: skip
                    for each in arrays:
                        dense.product(x, each[0], tokens, columns, out, rows=(0, rows))

                graph = _graph(gpu, ours)
                seconds = seconds_of(lambda g=graph: g.launch(gpu.stream), gpu.stream) / COPIES
                cells = [f"{size / seconds / 1e9:.0f} GB/s", f"{1e6 * seconds:.1f} us",
                         f"{size / seconds / copy_bandwidth():.0%} of copy"]  # fmt: skip
                if kind == "bf16":
                    graph = _graph(gpu, theirs)
                    other = seconds_of(lambda g=graph: g.launch(gpu.stream), gpu.stream) / COPIES
                    cells.append(f"cuBLAS {size / other / 1e9:.0f}")
                row(f"{rows} x {columns}, {kind}, {tokens} inputs", *cells)
            del arrays
            cupy.get_default_memory_pool().free_all_blocks()
