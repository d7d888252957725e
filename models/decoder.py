"""The decoder as data: one description that covers every supported family.

A reader (GGUF or a Hugging Face folder) fills these classes; the forward pass reads them and knows
no family by name. Weights stay packed as the file holds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Decoder", "DecoderConfig", "Layer", "Linear", "Matrix", "Norm"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix, still packed in its storage format.

    Parameters
    ----------
    data : uint8 array, shape (rows, bytes of a row)
        C-contiguous and read-only; usually a view of a memory-mapped file. Row ``i`` holds the
        weights of output ``i``.
    format : int
        The GGML type code of the storage format (see ``numbatch.kernels.scoring.formats``).
    columns : int
        Number of inputs.
    """

    data: np.ndarray
    format: int
    columns: int

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return int(self.data.shape[0])


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``; ``bias`` is a float32 array of shape (rows,) or None."""

    weight: Matrix
    bias: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and, for a layer norm, shift; float32 arrays of shape (width,).

    A family that multiplies by ``1 + weight`` (Gemma) has the one added when it is read.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one decoder layer."""

    attention_norm: Norm
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    mlp_norm: Norm
    up: Linear
    down: Linear
    gate: Linear | None = None
    """None: a plain MLP, ``down(act(up(x)))``; else ``down(act(gate(x)) * up(x))``."""
    query_norm: Norm | None = None
    """RMS norm over each head of the queries, of shape (head size,)."""
    key_norm: Norm | None = None
    post_attention_norm: Norm | None = None
    """Applied to the attention's output before it is added to the residual (Gemma)."""
    post_mlp_norm: Norm | None = None
    window: int = 0
    """Sliding window: a token sees itself and ``window - 1`` tokens before it; 0: all."""
    inverse_frequencies: np.ndarray | None = None
    """Rotary: float32, shape (rotated pairs,), scaling applied. None: no rotary position."""


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The sizes and choices that the weights alone do not tell."""

    family: str
    """Name for messages: ``llama``, ``qwen2``, ``qwen3``, ``gemma3``, ``gpt2``, ``mistral``."""
    vocabulary: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    """The longest sequence that the model was made for, in tokens."""
    norm: str = "rms"
    """``rms`` or ``layer``."""
    norm_epsilon: float = 1e-5
    activation: str = "silu"
    """``silu``, ``gelu`` (exact, erf) or ``gelu_tanh``."""
    attention_scale: float = 0.0
    """Factor on query-key products, usually ``head_size ** -0.5``."""
    attention_softcap: float = 0.0
    """``c``: logits become ``c * tanh(logits / c)``; 0: none."""
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    embedding_scale: float = 1.0
    """Factor on the embeddings (Gemma: ``sqrt(width)``)."""
    rotary_interleaved: bool = False
    """True: pairs are (0, 1), (2, 3), ...; False: (0, half), (1, half + 1), ..."""
    rotary_magnitude: float = 1.0
    """Factor on sine and cosine (YaRN)."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """A whole model: its sizes, its layers, and what stands before and after them."""

    config: DecoderConfig
    embedding: Matrix
    """Rows are tokens: shape (vocabulary, width)."""
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Linear
    """Onto the vocabulary; shares ``embedding`` where the two are tied."""
    positions: Matrix | None = None
    """Learned positions (GPT-2): shape (context, width); None where rotary."""
    name: str = ""
    """What the file calls the model, for messages and reports."""
    files: tuple[str, ...] = field(default=())
    """The files that the weights were read from."""
