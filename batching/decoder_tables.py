"""A decoder as tables that the step's kernel reads: addresses, sizes and choices."""

from __future__ import annotations

import numpy as np

from numbatch.errors import ModelError
from numbatch.kernels.aligned import Arena, aligned
from numbatch.kernels.scoring import activation
from numbatch.kernels.scoring.activations import ATTENTION_TERMS, INT8
from numbatch.kernels.scoring.decoder_records import (
    CONFIG,
    KEY,
    LAYER,
    MATRICES,
    NORM,
    NORMS,
    QUERY,
    VALUE,
)
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import (
    MATRIX,
    Prepared,
    matrix_record,
    prepare,
    prepared_bytes,
)
from numbatch.kernels.threads import ThreadTeam
from numbatch.models.decoder import Decoder, Layer, Linear, Norm

__all__ = ["DecoderTables", "input_sizes", "packed_bytes"]


class DecoderTables:
    """Weights in the form of an arithmetic, and the tables that tell where they lie.

    Parameters
    ----------
    decoder : Decoder
    compute : int
        From ``activations.COMPUTE``.
    team : ThreadTeam
        For repacking.

    Attributes
    ----------
    config, matrices, norms, layers, final_norm, head : arrays
        Of CONFIG, MATRIX, NORM and LAYER; see ``kernels.scoring.decoder_records``.
    windows : list of int
        The windows that layers have; ``LAYER.plan`` is a place in it.
    nbytes : int
        Memory that repacked weights take.

    Raises
    ------
    ModelError
        If a weight is NaN or infinite; the message names layer, matrix and row.
    """

    def __init__(self, decoder: Decoder, compute: int, team: ThreadTeam) -> None:
        self._compute, self._team = compute, team
        self._kept: list[np.ndarray] = []  # what addresses point to
        # Layers share frequencies, and the kernel compares their addresses.
        self._copies: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.nbytes = 0
        self._arena = Arena(packed_bytes(decoder, compute))
        self.config = _config(decoder, compute)
        count = len(decoder.layers)
        self.matrices = np.zeros((count, len(MATRICES)), MATRIX)
        self.norms = np.zeros((count, len(NORMS)), NORM)
        self.layers = np.zeros(count, LAYER)
        self.windows = sorted({layer.window for layer in decoder.layers})
        for index, layer in enumerate(decoder.layers):
            self._fill_layer(index, layer)
        self.final_norm = np.array([self._norm(decoder.final_norm)], NORM)
        self.head = np.zeros(1, MATRIX)
        self._fill_matrices(decoder)

    def _fill_layer(self, index: int, layer: Layer) -> None:
        for i, name in enumerate(NORMS):
            norm = getattr(layer, f"{name}_norm")
            if norm is not None:
                self.norms[index, i] = self._norm(norm)
        frequencies, address, pairs = layer.inverse_frequencies, 0, 0
        if frequencies is not None:
            address, pairs = self._keep(frequencies), len(frequencies)
        self.layers[index] = (address, pairs, layer.window, self.windows.index(layer.window))

    def _fill_matrices(self, decoder: Decoder) -> None:
        found: list[tuple[np.ndarray, int, Linear, str]] = []
        for index, layer in enumerate(decoder.layers):
            for i, name in enumerate(MATRICES):
                linear = getattr(layer, name)
                if linear is not None:
                    found.append((self.matrices[index], i, linear, f"layer {index}, {name}"))
        found.append((self.head, 0, decoder.head, "the head"))
        weights = [each.weight for _, _, each, _ in found]
        try:
            prepared = prepare(
                self._compute,
                [(weight.data, weight.format, weight.columns) for weight in weights],
                [name for *_, name in found],
                self._team,
                self._arena,
            )
        except ValueError as error:
            raise ModelError(str(error)) from error
        for (row, i, linear, _), matrix in zip(found, prepared, strict=True):
            attention = row is not self.head and i in (QUERY, KEY, VALUE)
            given = ATTENTION_TERMS if attention else 1
            row[i] = self._record(linear, matrix, given if i == VALUE else 1, given)

    def _keep(self, values: np.ndarray) -> int:
        """Return the address of a float32 copy that is padded by zeros to whole vectors."""
        known = self._copies.get(id(values))
        if known is None:
            copy = aligned((padded(len(values)),), np.float32)
            copy[: len(values)] = values
            known = self._copies[id(values)] = (values, copy)
        return int(known[1].ctypes.data)

    def _norm(self, norm: Norm) -> tuple[int, int, int]:
        bias = 0 if norm.bias is None else self._keep(norm.bias)
        return self._keep(norm.weight), bias, len(norm.weight)

    def _record(
        self, linear: Linear, prepared: Prepared, terms: int, given: int
    ) -> tuple[int, ...]:
        if isinstance(prepared, np.ndarray):
            self._kept.append(prepared)
        else:
            self._kept.append(prepared.data)
            self.nbytes += prepared.nbytes
        weight = linear.weight
        bias = 0 if linear.bias is None else self._keep(linear.bias)
        return matrix_record(prepared, weight.format, weight.columns, bias, terms, given)


def input_sizes(decoder: Decoder, compute: int) -> tuple[tuple[int, int], ...]:
    """Return columns and terms of each of the inputs that ``run_layers`` is handed."""
    config = decoder.config
    return (
        (config.width, ATTENTION_TERMS if compute == INT8 else 1),
        (config.heads * config.head_size, 1),
        (config.width, 1),
        (decoder.layers[0].up.weight.rows, 1),
    )


def packed_bytes(decoder: Decoder, compute: int) -> int:
    """Return the memory that weights take which are repacked for an arithmetic."""
    linears = [getattr(layer, name) for layer in decoder.layers for name in MATRICES]
    weights = [linear.weight for linear in (*linears, decoder.head) if linear is not None]
    sizes = (prepared_bytes(compute, w.format, w.rows, w.columns) for w in weights)
    return sum(-(-size // 64) * 64 for size in sizes)


def _config(decoder: Decoder, compute: int) -> np.ndarray:
    config, positions = decoder.config, decoder.positions
    gated = any(layer.gate is not None for layer in decoder.layers)
    return np.array(
        [
            (
                compute,
                config.width,
                config.heads,
                config.kv_heads,
                config.head_size,
                decoder.layers[0].up.weight.rows,
                activation.ACTIVATIONS[config.activation],
                gated,
                config.rotary_interleaved,
                decoder.embedding.format,
                -1 if positions is None else positions.format,
                config.norm_epsilon,
                config.rotary_magnitude,
                config.embedding_scale,
                config.attention_scale,
                config.attention_softcap,
                config.logit_scale,
                config.logit_softcap,
            )
        ],
        CONFIG,
    )
