"""Put a decoder together from named tensors, whatever file they lie in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.decoder import Decoder, DecoderConfig, Layer, Linear, Matrix, Norm

__all__ = ["Plan", "Tensors", "assemble"]


class Tensors(Protocol):
    """Tensors by name. The two readers raise ModelError for a missing or unfit tensor."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the tensors lie in."""

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a packed matrix."""

    def vector(self, name: str, length: int) -> np.ndarray:
        """Return a float32 array of shape (length,), read-only."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a family's decoder is made of, and under which names its tensors lie.

    Parameters
    ----------
    config : DecoderConfig
    layers, mlp_width : int
    names : Mapping
        Part -> name of its tensor without ``.weight``; ``{}`` stands for the layer's number. The
        parts are ``embedding``, ``positions``, ``final_norm``, ``head`` and the fields of
        ``Layer``; ``query_key_value`` stands for the three in one matrix. A part that is not named
        does not exist in the family; one that is named must be in the file.
    biased : frozenset
        Linear parts whose bias must be in the file.
    tied : bool or None
        Whether the head shares the embedding; None: where the file has no head.
    frequencies, window : callable
        Layer's number -> ``Layer.inverse_frequencies``, ``Layer.window``.
    extra_bias : bool
        Take the biases of other linear parts where the file has them.
    norm_shift : float
        Added to the weights of norms.
    ignored : str
        Regular expression of names of tensors that are known and not needed.
    """

    config: DecoderConfig
    layers: int
    mlp_width: int
    names: Mapping[str, str]
    frequencies: Callable[[int], np.ndarray | None]
    window: Callable[[int], int]
    biased: frozenset[str] = frozenset()
    tied: bool | None = None
    extra_bias: bool = False
    norm_shift: float = 0.0
    ignored: str = r"(?!)"


def assemble(plan: Plan, tensors: Tensors, name: str) -> Decoder:
    """Return the decoder that ``plan`` describes, with the weights in ``tensors``.

    Raises
    ------
    ModelError
        If a tensor is missing, unfit, or left over: a weight that nothing reads would mean that
        the model computes something else than its author's.
    """
    builder, config = _Builder(plan, tensors), plan.config
    embedding = builder.matrix("embedding", config.vocabulary, config.width)
    decoder = Decoder(
        config=config,
        embedding=embedding,
        layers=tuple(builder.layer(number) for number in range(plan.layers)),
        final_norm=builder.norm("final_norm", config.width),
        head=builder.head(embedding),
        positions=(
            builder.matrix("positions", config.context, config.width)
            if "positions" in plan.names
            else None
        ),
        name=name,
        files=tensors.files,
    )
    left = [each for each in tensors.names - builder.used if not re.fullmatch(plan.ignored, each)]
    if left:
        shown = ", ".join(sorted(left)[:3]) + (", ..." if len(left) > 3 else "")
        raise ModelError(
            f"{tensors.files[0]} has {len(left)} tensors that {config.family} has no use for: "
            f"{shown}; it is of another architecture"
        )
    return decoder


class _Builder:
    """Builds the parts of a decoder and remembers which tensors it read."""

    def __init__(self, plan: Plan, tensors: Tensors) -> None:
        self.plan, self.tensors = plan, tensors
        self.used: set[str] = set()

    def _name(self, part: str, layer: int | None, suffix: str) -> str:
        name = f"{self.plan.names[part].format(layer)}.{suffix}"
        self.used.add(name)
        return name

    def matrix(self, part: str, rows: int, columns: int, layer: int | None = None) -> Matrix:
        return self.tensors.matrix(self._name(part, layer, "weight"), rows, columns)

    def linear(self, part: str, rows: int, columns: int, layer: int | None = None) -> Linear:
        weight = self.matrix(part, rows, columns, layer)
        name = f"{self.plan.names[part].format(layer)}.bias"
        needed = part in self.plan.biased
        if not needed and not (self.plan.extra_bias and name in self.tensors.names):
            return Linear(weight)
        self.used.add(name)
        return Linear(weight, self.tensors.vector(name, rows))

    def norm(self, part: str, length: int, layer: int | None = None) -> Norm:
        weight = self.tensors.vector(self._name(part, layer, "weight"), length)
        if self.plan.norm_shift:
            weight = weight + np.float32(self.plan.norm_shift)
            weight.flags.writeable = False
        if self.plan.config.norm == "rms":
            return Norm(weight)
        return Norm(weight, self.tensors.vector(self._name(part, layer, "bias"), length))

    def norm_if_any(self, part: str, length: int, layer: int) -> Norm | None:
        return self.norm(part, length, layer) if part in self.plan.names else None

    def head(self, embedding: Matrix) -> Linear:
        name = self._name("head", None, "weight")
        tied = name not in self.tensors.names if self.plan.tied is None else self.plan.tied
        if tied:
            return Linear(embedding)
        return self.linear("head", self.plan.config.vocabulary, self.plan.config.width)

    def layer(self, number: int) -> Layer:
        config, plan = self.plan.config, self.plan
        width, heads_width = config.width, config.heads * config.head_size
        query, key, value = self._attention_inputs(number)
        return Layer(
            attention_norm=self.norm("attention_norm", width, number),
            query=query,
            key=key,
            value=value,
            output=self.linear("output", width, heads_width, number),
            mlp_norm=self.norm("mlp_norm", width, number),
            up=self.linear("up", plan.mlp_width, width, number),
            down=self.linear("down", width, plan.mlp_width, number),
            gate=(
                self.linear("gate", plan.mlp_width, width, number) if "gate" in plan.names else None
            ),
            query_norm=self.norm_if_any("query_norm", config.head_size, number),
            key_norm=self.norm_if_any("key_norm", config.head_size, number),
            post_attention_norm=self.norm_if_any("post_attention_norm", width, number),
            post_mlp_norm=self.norm_if_any("post_mlp_norm", width, number),
            window=plan.window(number),
            inverse_frequencies=plan.frequencies(number),
        )

    def _attention_inputs(self, layer: int) -> tuple[Linear, Linear, Linear]:
        config = self.plan.config
        heads, kv_heads = config.heads * config.head_size, config.kv_heads * config.head_size
        if "query_key_value" not in self.plan.names:
            return (
                self.linear("query", heads, config.width, layer),
                self.linear("key", kv_heads, config.width, layer),
                self.linear("value", kv_heads, config.width, layer),
            )
        fused = self.linear("query_key_value", heads + 2 * kv_heads, config.width, layer)
        ends = (0, heads, heads + kv_heads, heads + 2 * kv_heads)
        query, key, value = (_rows(fused, begin, end) for begin, end in itertools.pairwise(ends))
        return query, key, value


def _rows(linear: Linear, begin: int, end: int) -> Linear:
    """Return some of the outputs, as views."""
    weight = linear.weight
    part = Matrix(weight.data[begin:end], weight.format, weight.columns)
    return Linear(part, None if linear.bias is None else linear.bias[begin:end])
