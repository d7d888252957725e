"""Products with weights held against the machine: ``python -m asv_bench.roofline``.

For the matrices of a layer of three models, by rows of activations: operations, bytes, the limit,
and what was reached, on one thread. Two limits are measured in the same run, turn by turn with the
product: the bare micro-kernel, which multiplies what lies in registers and in the L1 cache (with as
many rows), and reading as many bytes as the weights' copies have. The product takes a matrix after
the other from those copies, so that weights come from where a model's weights come from.

``of the bare``: the product's operations a second over the bare micro-kernel's. ``of the limit``:
the least time that arithmetic or reading needs, whichever is longer, over the time taken.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gguf
import numpy as np

from numbatch.batching.machine import reader_of
from numbatch.kernels import amx, machine_limits
from numbatch.kernels.aligned import aligned
from numbatch.kernels.jit import cpu_kernel
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.activations import COMPUTE, Activations
from numbatch.kernels.scoring.bfloat16_tiles import SHAPES
from numbatch.kernels.scoring.bfloat16_unpack import HALF_BYTES
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import (
    MATRIX,
    matrix_record,
    multiply_range,
    prepare,
    product_memory,
)
from numbatch.kernels.simd import LANES
from numbatch.kernels.simd_path import simd_path
from numbatch.kernels.threads import ThreadTeam

LAYERS = {  # rows and columns
    "SmolLM2-135M": {
        "query, output": (576, 576),
        "key, value": (192, 576),
        "gate, up": (1536, 576),
        "down": (576, 1536),
    },
    "Llama-3.2-1B": {
        "query, output": (2048, 2048),
        "key, value": (512, 2048),
        "gate, up": (8192, 2048),
        "down": (2048, 8192),
    },
    "Llama-3.1-8B": {
        "query, output": (4096, 4096),
        "key, value": (1024, 4096),
        "gate, up": (14336, 4096),
        "down": (4096, 14336),
    },
}
ROWS = (1, 8, 32, 128, 512)
COPIES_BYTES = 1 << 27
"""Weights are copied until they have so many bytes: far more than a second-level cache."""

SECONDS = 0.02
"""A round takes as many copies as fill this time."""

SHORT = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of an activation."""


@cpu_kernel
def multiply_copies(first, count, compute, memory, shapes, table, matrices, activations, rows, out):
    """Multiply activations with ``count`` matrices from ``first`` on, around the end."""
    for i in range(first, first + count):
        matrix = matrices[i % matrices.size]
        multiply_range(
            compute, 0, matrix.rows, memory, shapes, table, matrix,
            matrices[(i + 1) % matrices.size].data, activations, 0, rows, out, 0, False,
        )  # fmt: skip


def fill(activations: tuple[np.ndarray, ...]) -> None:
    """Write random numbers, in each form: constant ones would need less power."""
    floats, halves, codes, scales, _ = activations
    rng = np.random.default_rng(1)
    floats[:] = rng.standard_normal(len(floats), np.float32)
    halves[:] = rng.standard_normal(len(halves), np.float32).view(np.uint32) >> 16
    codes[:] = rng.integers(-127, 128, len(codes))
    scales[:] = 1


def _tiles(halves: bool) -> np.ndarray:
    """Return tiles of random numbers, of weights and of activations, from cache lines on."""
    rng, size = np.random.default_rng(2), machine_limits.TILE_BLOCKS * machine_limits.TILE_BYTES
    tiles = aligned((2, 2 * size), np.uint8)
    if halves:
        numbers = rng.standard_normal((2, size), np.float32).view(np.uint32) >> 16
        tiles[:] = numbers.astype(np.uint16).view(np.uint8)
    else:
        tiles[:] = rng.integers(0, 256, tiles.shape)
    return tiles


class Copies:
    """A random matrix in the form of an arithmetic, as often as ``COPIES_BYTES`` hold it."""

    def __init__(self, compute: str, kind: str, shape: tuple[int, int]) -> None:
        self.compute, self.shape = compute, shape
        code = {entry.name: code for code, entry in formats.FORMATS.items()}[kind]
        prepared: Any = prepare(
            COMPUTE[compute], [(_weights(kind, shape), code, shape[1])], [kind], TEAM
        )[0]
        plain = isinstance(prepared, np.ndarray)
        data = prepared if plain else prepared.data
        self.bytes = data.nbytes
        count = max(2, -(-COPIES_BYTES // data.nbytes))
        self._kept = [prepared, aligned((count, *data.shape), np.uint8)]
        self._kept[1][:] = data
        copies = [each if plain else dataclasses.replace(prepared, data=each)
                  for each in self._kept[1]]  # fmt: skip
        self.matrices = np.array([matrix_record(c, code, shape[1], 0) for c in copies], MATRIX)

    def action(self, rows: int) -> Callable[[int, int], None]:
        """Return what multiplies so many rows with ``count`` copies from ``first`` on."""
        compute = COMPUTE[self.compute]
        activations = Activations.empty(compute, rows, self.shape[1]).arrays
        fill(activations)
        memory = aligned((product_memory(compute, self.shape[1], rows),), np.uint8)
        out = aligned((rows, padded(self.shape[0])), np.float32)
        rest = (compute, memory, SHAPES, HALF_BYTES, self.matrices, activations, rows, out)
        return lambda first, count: multiply_copies(first, count, *rest)

    def traffic(self, rows: int) -> float:
        """Return the bytes that a product reads and writes at least."""
        n, k = self.shape
        return self.bytes + rows * (SHORT[self.compute] * k + 4 * n)


TEAM = ThreadTeam(1)


def _weights(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Return random weights in a file's format; after some rows they repeat."""
    some = np.random.default_rng(0).standard_normal((64, shape[1])).astype(np.float32)
    data = gguf.quants.quantize(some * np.float32(0.05), gguf.GGMLQuantizationType[kind])
    data = np.ascontiguousarray(data).view(np.uint8).reshape(64, -1)
    return np.tile(data, (-(-shape[0] // 64), 1))[: shape[0]]


def bare_kernels(compute: str, rows: int) -> list[tuple[float, Callable[[], None]]]:
    """Return micro-kernels with all they read at hand: their operations, and a call."""
    steps, out = 20_000, np.zeros((1, LANES * LANES), np.int32)
    found: list[tuple[float, Callable[[], None]]] = []
    if compute != "float32" and simd_path() == "amx":
        m, many, halves = min(rows, LANES), rows > LANES, compute == "bfloat16"
        tiles = _tiles(halves)
        shapes = amx.tile_shapes([m, m, m, m, m, m, 16, 16], [64] * 8)
        loops = steps // machine_limits.TILE_BLOCKS
        args = (loops, many, halves, shapes, *tiles, out)
        products = loops * machine_limits.TILE_BLOCKS * (4 if many else 2)
        operations = products * 2.0 * m * LANES * (32 if halves else 64)
        found.append((operations, lambda: machine_limits.multiply_loaded_tiles(0, 1, *args)))
    numbers, lanes = np.ones((2, LANES), np.float32), 2.0 * steps * machine_limits.CHAINS * LANES
    sums = np.zeros((1, LANES), np.float32)
    found.append((lanes, lambda: machine_limits.multiply_add(0, 1, steps, numbers, sums)))
    if compute == "int8":
        codes = np.ones((2, LANES), np.int32)
        vectors = lambda: machine_limits.multiply_add_bytes(0, 1, steps, codes, out)  # noqa: E731
        found.append((4 * lanes, vectors))
    return found


def seconds(action: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = perf_counter()
    action()
    return perf_counter() - begin


def measure(copies: Copies, rows: int, rounds: int) -> dict[str, float]:
    """Return the rates of bare kernels and of reading, and a product's seconds: the best of each.

    They take turns, so that what else runs on the machine meets all of them.
    """
    action, bare = copies.action(rows), bare_kernels(copies.compute, rows)
    memory, at = np.ones(COPIES_BYTES // 8), 1
    read = reader_of(memory)
    action(0, 1)
    once = max(seconds(lambda: action(0, 1)), 1e-7)
    count = int(max(1, min(len(copies.matrices), SECONDS / once)))
    best = {"product": np.inf, "read": np.inf, "bare": 0.0}
    for each in bare:
        each[1]()
    for _ in range(rounds):
        for operations, call in bare:
            best["bare"] = max(best["bare"], operations / seconds(call))
        best["read"] = min(best["read"], seconds(read))
        first = at
        took = seconds(lambda: action(first, count)) / count  # noqa: B023 (called at once)
        best["product"] = min(best["product"], took)
        at += count
    best["read"] = memory.nbytes / best["read"]
    return best


HEAD = (
    f"{'model, matrix':30}{'rows':>5}{'GFLOP':>9}{'MB':>8}{'flop/byte':>10}{'bare GF/s':>11}"
    f"{'read GB/s':>10}{'limit us':>11}{'took us':>11}{'GF/s':>8}{'of the bare':>12}"
    f"{'of the limit':>13}"
)


def line(name: str, copies: Copies, rows: int, best: dict[str, float]) -> str:
    """Return a line of the table."""
    operations, traffic = 2.0 * rows * copies.shape[0] * copies.shape[1], copies.traffic(rows)
    limit = max(operations / best["bare"], traffic / best["read"])
    rate = operations / best["product"]
    return (
        f"{name:30}{rows:5d}{operations / 1e9:9.4f}{traffic / 1e6:8.2f}"
        f"{operations / traffic:10.1f}{best['bare'] / 1e9:11.0f}{best['read'] / 1e9:10.1f}"
        f"{1e6 * limit:11.1f}{1e6 * best['product']:11.1f}{rate / 1e9:8.0f}"
        f"{100 * rate / best['bare']:11.1f}%{100 * limit / best['product']:12.1f}%"
    )


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m asv_bench.roofline")
    parser.add_argument("--compute", choices=COMPUTE, action="append", help="default: all")
    parser.add_argument("--format", default="Q4_1", help="of the weights in their file")
    parser.add_argument("--rows", type=int, action="append", help=f"default: {ROWS}")
    parser.add_argument("--only", default="", help="models and matrices whose name holds this")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    for compute in args.compute or COMPUTE:
        print(f"compute {compute}, weights {args.format}, path {simd_path()}, one thread")
        print(HEAD)
        for model, matrices in LAYERS.items():
            for matrix, shape in matrices.items():
                name = f"{model} {matrix}"
                if args.only not in name:
                    continue
                copies = Copies(compute, args.format, shape)
                for rows in args.rows or ROWS:
                    print(line(name, copies, rows, measure(copies, rows, args.rounds)), flush=True)


if __name__ == "__main__":
    main()
