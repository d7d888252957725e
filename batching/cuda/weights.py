"""A decoder's weights in a GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.errors import DeviceError
from numbatch.kernels.cuda import Gpu
from numbatch.kernels.scoring import formats
from numbatch.kernels.scoring.cuda.packing import (
    PackedMatrix,
    device_bytes,
    pack_matrix,
    padded_columns,
)
from numbatch.models.decoder import Decoder, Layer, Linear, Matrix, Norm

__all__ = [
    "DeviceLayer",
    "DeviceLinear",
    "DeviceMatrix",
    "DeviceNorm",
    "DeviceWeights",
    "weight_bytes",
]


@dataclass(frozen=True, slots=True)
class DeviceMatrix:
    """A packed matrix on the device; fields as in ``PackedMatrix``."""

    kind: str
    rows: int
    columns: int
    words: Any
    scales: Any
    leasts: Any


@dataclass(frozen=True, slots=True)
class DeviceLinear:
    """Products that have one input: matrices below one another, and a bias (empty: none)."""

    parts: tuple[DeviceMatrix, ...]
    bias: Any
    has_bias: bool

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return sum(part.rows for part in self.parts)

    @property
    def columns(self) -> int:
        """Number of inputs."""
        return self.parts[0].columns


@dataclass(frozen=True, slots=True)
class DeviceNorm:
    """A norm's weights; ``bias`` is None for RMS norms."""

    weight: Any
    bias: Any


@dataclass(frozen=True, slots=True)
class DeviceLayer:
    """The weights of a layer, with those of one input put together."""

    attention_norm: DeviceNorm
    attention_inputs: DeviceLinear
    query_norm: Any
    key_norm: Any
    output: DeviceLinear
    post_attention_norm: DeviceNorm | None
    mlp_norm: DeviceNorm
    mlp_inputs: DeviceLinear
    is_gated: bool
    down: DeviceLinear
    post_mlp_norm: DeviceNorm | None
    window: int
    rotary: int
    """Which of the tables of angles."""


class DeviceWeights:
    """Copies a decoder's weights to the device.

    Parameters
    ----------
    gpu : Gpu
    decoder : Decoder
    plain : bool
        Unpack 4- and 8-bit weights to bfloat16.

    Raises
    ------
    DeviceError
        If they do not fit; the message says how much they need and what would fit.
    """

    def __init__(self, gpu: Gpu, decoder: Decoder, *, plain: bool = False) -> None:
        self._gpu, self._plain = gpu, plain
        needed, (free, _) = weight_bytes(decoder, plain=plain), gpu.memory()
        if needed > free:
            raise DeviceError(_does_not_fit(decoder, needed, free))
        self.empty = gpu.zeros(0, np.float32)
        self.none16 = gpu.zeros((1, 1), np.uint16)
        self.frequencies: list[np.ndarray] = []
        try:
            self.embedding = self._matrix([decoder.embedding], plain=True)
            self.positions = (
                None if decoder.positions is None else self._matrix([decoder.positions], plain=True)
            )
            self.layers = tuple(self._layer(layer) for layer in decoder.layers)
            self.final_norm = self._norm(decoder.final_norm)
            self.head = self._head(decoder)
        except MemoryError as error:
            raise DeviceError(_does_not_fit(decoder, needed, free)) from error

    def _head(self, decoder: Decoder) -> DeviceLinear:
        head = decoder.head
        tied = head.weight.data is decoder.embedding.data
        if tied and device_bytes(1, 1, head.weight.format) == device_bytes(1, 1, formats.BF16):
            bias = self.empty if head.bias is None else self._vector(head.bias)
            return DeviceLinear((self.embedding,), bias, head.bias is not None)
        return self._linear([head])

    def _layer(self, layer: Layer) -> DeviceLayer:
        mlp = [layer.up] if layer.gate is None else [layer.gate, layer.up]
        return DeviceLayer(
            attention_norm=self._norm(layer.attention_norm),
            attention_inputs=self._linear([layer.query, layer.key, layer.value]),
            query_norm=self._head_norm(layer.query_norm),
            key_norm=self._head_norm(layer.key_norm),
            output=self._linear([layer.output]),
            post_attention_norm=self._norm_if_any(layer.post_attention_norm),
            mlp_norm=self._norm(layer.mlp_norm),
            mlp_inputs=self._linear(mlp),
            is_gated=layer.gate is not None,
            down=self._linear([layer.down]),
            post_mlp_norm=self._norm_if_any(layer.post_mlp_norm),
            window=layer.window,
            rotary=self._rotary(layer.inverse_frequencies),
        )

    def _rotary(self, frequencies: np.ndarray | None) -> int:
        own = np.empty(0, np.float32) if frequencies is None else frequencies
        for number, known in enumerate(self.frequencies):
            if np.array_equal(known, own):
                return number
        self.frequencies.append(own)
        return len(self.frequencies) - 1

    def _vector(self, values: np.ndarray) -> Any:
        return self._gpu.upload(np.ascontiguousarray(values, np.float32))

    def _norm(self, norm: Norm) -> DeviceNorm:
        bias = None if norm.bias is None else self._vector(norm.bias)
        return DeviceNorm(self._vector(norm.weight), bias)

    def _norm_if_any(self, norm: Norm | None) -> DeviceNorm | None:
        return None if norm is None else self._norm(norm)

    def _head_norm(self, norm: Norm | None) -> Any:
        return self.empty if norm is None else self._vector(norm.weight)

    def _linear(self, linears: Sequence[Linear]) -> DeviceLinear:
        matrices = [linear.weight for linear in linears]
        groups = [matrices]
        if len({matrix.format for matrix in matrices}) > 1:
            groups = [[matrix] for matrix in matrices]
        parts = tuple(self._matrix(group) for group in groups)
        if all(linear.bias is None for linear in linears):
            return DeviceLinear(parts, self.empty, False)
        biases = [
            np.zeros(each.weight.rows, np.float32) if each.bias is None else each.bias
            for each in linears
        ]
        return DeviceLinear(parts, self._vector(np.concatenate(biases)), True)

    def _matrix(self, matrices: Sequence[Matrix], *, plain: bool = False) -> DeviceMatrix:
        """Copy matrices of one format below one another."""
        packed = [
            pack_matrix(each.data, each.format, each.columns, plain=plain or self._plain)
            for each in matrices
        ]
        rows = sum(len(each.words) for each in packed)

        def together(field: str) -> Any:
            arrays = [getattr(each, field) for each in packed]
            if arrays[0] is None:
                return None
            out = self._gpu.empty((rows, arrays[0].shape[1]), arrays[0].dtype)
            self._gpu.write(out, arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
            self._gpu.synchronize()  # the host's copy is gone after this
            return out

        first: PackedMatrix = packed[0]
        return DeviceMatrix(
            first.kind, rows, first.columns, together("words"), together("scales"),
            together("leasts"),
        )  # fmt: skip


def weight_bytes(decoder: Decoder, *, plain: bool = False) -> int:
    """Return the bytes that a decoder's weights take on the device."""

    def of(matrix: Matrix, unpack: bool = plain) -> int:
        return device_bytes(matrix.rows, matrix.columns, matrix.format, plain=unpack)

    total = of(decoder.embedding, True)
    if decoder.positions is not None:
        total += of(decoder.positions, True)
    for layer in decoder.layers:
        linears = [layer.query, layer.key, layer.value, layer.output, layer.up, layer.down]
        total += sum(of(linear.weight) for linear in linears)
        total += 0 if layer.gate is None else of(layer.gate.weight)
    head = decoder.head.weight
    is_shared = head.data is decoder.embedding.data and of(head) == of(head, True)
    return total + (0 if is_shared else of(head))


def _does_not_fit(decoder: Decoder, needed: int, free: int) -> str:
    config = decoder.config
    weights = config.vocabulary * config.width + sum(
        linear.weight.rows * padded_columns(linear.weight.columns)
        for layer in decoder.layers
        for linear in (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down,
                       *(() if layer.gate is None else (layer.gate,)))
    )  # fmt: skip
    sizes = {"8-bit (Q8_0)": 1.0625, "4-bit (Q4_0)": 0.5625}
    fitting = [
        f"{name} weights ({weights * size / 2**30:.1f} GiB)"
        for name, size in sizes.items()
        if weights * size < min(free, needed)
    ]
    advice = " or ".join(fitting) or f"a GPU with more than {needed / 2**30:.1f} GiB"
    return (
        f"the weights need {needed / 2**30:.1f} GiB of the GPU's memory, {free / 2**30:.1f} GiB "
        f"are free; what would fit: {advice}"
    )
