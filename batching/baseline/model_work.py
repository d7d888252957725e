"""What a decoder cannot do without: operations a token, bytes of weights a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from numbatch.batching.forward import ForwardPass
from numbatch.kernels.scoring.activations import COMPUTE
from numbatch.models.decoder import Decoder, Matrix

__all__ = ["ModelWork", "arithmetic_of"]


@dataclass(frozen=True, slots=True)
class ModelWork:
    """Counts for one decoder; a multiply-add is two operations.

    Parameters
    ----------
    layers, head : float
        Operations a token in the layers' products, and in the product onto the vocabulary.
    attention : float
        Operations a token and a token that it looks back at.
    weights : float
        Bytes of all matrices that a step reads, the head's included.
    """

    layers: float
    head: float
    attention: float
    weights: float

    @classmethod
    def of(cls, decoder: Decoder) -> ModelWork:
        """Count a decoder's matrices."""
        matrices = list(_layer_matrices(decoder))
        head, config = decoder.head.weight, decoder.config
        return cls(
            layers=sum(2.0 * m.rows * m.columns for m in matrices),
            head=2.0 * head.rows * head.columns,
            attention=4.0 * config.heads * config.head_size * len(decoder.layers),
            weights=float(sum(m.data.nbytes for m in [*matrices, head])),
        )

    def scoring(self, sequences: int, length: int, step: int) -> tuple[float, float]:
        """Return operations and bytes to score sequences in steps of so many tokens."""
        tokens = sequences * (length - 1)  # nothing is asked of the last one
        steps = -(-tokens // step)
        looked_at = sequences * length * (length - 1) / 2
        operations = tokens * (self.layers + self.head) + looked_at * self.attention
        return operations, steps * self.weights

    def generation(
        self, sequences: int, prompt: int, output: int, at_once: int
    ) -> tuple[float, float]:
        """Return operations and bytes to continue prompts by ``output`` tokens."""
        tokens = sequences * (prompt + output - 1)
        rounds = -(-sequences // at_once)
        length = prompt + output - 1
        looked_at = sequences * length * (length + 1) / 2
        operations = tokens * self.layers + sequences * output * self.head
        operations += looked_at * self.attention
        return operations, rounds * output * self.weights


def arithmetic_of(forward: ForwardPass) -> str:
    """Return the name of the arithmetic in which a forward pass multiplies by weights."""
    names = {number: name for name, number in COMPUTE.items()}
    return names[int(forward.tables.config["compute"][0])]


def _layer_matrices(decoder: Decoder) -> Iterator[Matrix]:
    for layer in decoder.layers:
        linears = (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down)
        yield from (linear.weight for linear in linears)
        if layer.gate is not None:
            yield layer.gate.weight
