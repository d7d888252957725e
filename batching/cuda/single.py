"""The layers for one token where all weights are 4-bit: five kernels a layer instead of nine.

What such a step takes is mostly the time between kernels that wait for one another. So the norms
are done by the products before and after them, and attention by one kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numbatch.batching.cuda.weights import DeviceLayer, DeviceLinear, DeviceNorm
from numbatch.batching.cuda.workspace import StepInputs, Workspace
from numbatch.kernels.scoring.activation import ACTIVATIONS
from numbatch.kernels.scoring.cuda.matvec_packed import (
    GROUP,
    THREADS,
    multiply_packed_kernel,
    packed_launch,
)
from numbatch.kernels.scoring.cuda.results import ADD, GATED, LOGITS, STORE

if TYPE_CHECKING:
    from numbatch.batching.cuda.forward import CudaForward

__all__ = ["SingleStep", "fits_single"]


def fits_single(forward: CudaForward) -> bool:
    """Whether a model's layers and head are such that :class:`SingleStep` can run them."""
    weights = forward.weights
    norms = [norm for layer in weights.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    if any(norm.bias is not None for norm in [*norms, weights.final_norm]):
        return False
    return _is_packed(weights.head, GROUP) and all(map(_fits_layer, weights.layers))


def _fits_layer(layer: DeviceLayer) -> bool:
    if layer.post_attention_norm is not None or layer.post_mlp_norm is not None:
        return False
    linears = (layer.attention_inputs, layer.output, layer.mlp_inputs, layer.down)
    return layer.is_gated and all(_is_packed(each, GROUP) for each in linears)


def _is_packed(linear: DeviceLinear, multiple: int) -> bool:
    """Whether a product has one part, of 4-bit weights without leasts, and no bias."""
    part = linear.parts[0]
    is_bare = len(linear.parts) == 1 and not linear.has_bias
    is_four = part.kind == "nibbles" and part.leasts is None
    return is_bare and is_four and linear.rows % multiple == 0


class SingleStep:
    """Runs the layers and the head for one token.

    Parameters
    ----------
    forward : CudaForward
    """

    def __init__(self, forward: CudaForward) -> None:
        self._forward, self._gpu = forward, forward.gpu
        width = forward.decoder.config.width
        self._multiprocessors = forward.gpu.multiprocessors
        self._squares = forward.gpu.zeros(width // GROUP, np.float32)
        self._none = forward.gpu.zeros(0, np.float32)
        self._unused = forward.gpu.zeros((1, 1), np.float32)
        self._unread = forward.gpu.zeros(1, np.float32)

    def start(self, space: Workspace, inputs: StepInputs, plan: Any, out: Any) -> None:
        """Start all kernels but the embedding's; ``out`` gets the logits of ``space.hidden``."""
        weights, config = self._forward.weights, self._forward.decoder.config
        forward, squares = self._forward, self._none
        forward.norm(weights.layers[0].attention_norm, space.hidden, 1, space.normed)
        code = ACTIVATIONS[config.activation]
        following = [layer.attention_norm for layer in weights.layers[1:]] + [weights.final_norm]
        for number, (layer, after) in enumerate(zip(weights.layers, following, strict=True)):
            self._run(layer.attention_inputs, space.normed, squares, STORE, space.inputs)
            forward.mix(number, layer, 1, space, inputs, plan)
            self._add(layer.output, space.attended, space, layer.mlp_norm)
            squares = self._squares
            self._run(layer.mlp_inputs, space.normed, squares, GATED, space.active, code=code)
            self._add(layer.down, space.active, space, after)
        self._run(
            weights.head, space.normed, squares, LOGITS, out, scale=config.logit_scale,
            cap=config.logit_softcap,
        )  # fmt: skip

    def _add(self, linear: DeviceLinear, x: Any, space: Workspace, norm: DeviceNorm) -> None:
        """Add a product to the residual stream, and begin the norm that follows."""
        following = (norm.weight, space.normed, self._squares)
        self._run(linear, x, self._none, ADD, space.hidden, following=following)

    def _run(
        self, linear: DeviceLinear, x: Any, squares: Any, mode: int, out: Any, *, code: int = 0,
        scale: float = 1.0, cap: float = 0.0, following: tuple[Any, Any, Any] | None = None,
    ) -> None:  # fmt: skip
        (part,), config = linear.parts, self._forward.decoder.config
        apart = part.rows // 2 if mode == GATED else 0
        rows = apart or part.rows
        none = self._forward.weights.none16
        half, full = (out, self._unused) if mode in (STORE, GATED) else (none, out)
        shape, is_long, blocks = packed_launch(mode, rows, part.columns, self._multiprocessors)
        self._gpu.launch(
            multiply_packed_kernel(shape, is_long), blocks, THREADS, part.words, part.scales,
            rows, x, squares, config.width, np.float32(config.norm_epsilon), mode, apart, code,
            np.float32(scale), np.float32(cap), half, full,
            *(following or (self._none, none, self._unread)),
        )  # fmt: skip
