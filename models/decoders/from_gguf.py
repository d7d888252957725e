"""Decoders from GGUF files: the architectures' metadata keys and tensor names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.decoder import Decoder, DecoderConfig
from numbatch.models.decoders.assemble import Plan, assemble
from numbatch.models.decoders.rotary import inverse_frequencies
from numbatch.models.decoders.settings import Settings
from numbatch.models.gguf import GGUFFile, open_gguf

__all__ = ["ARCHITECTURES", "decoder_from_gguf"]

_COMMON = {
    "embedding": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "attention_norm": "blk.{}.attn_norm",
    "output": "blk.{}.attn_output",
    "mlp_norm": "blk.{}.ffn_norm",
    "up": "blk.{}.ffn_up",
    "down": "blk.{}.ffn_down",
}
_LLAMA = _COMMON | {
    "query": "blk.{}.attn_q",
    "key": "blk.{}.attn_k",
    "value": "blk.{}.attn_v",
    "gate": "blk.{}.ffn_gate",
}
_HEAD_NORMS = {"query_norm": "blk.{}.attn_q_norm", "key_norm": "blk.{}.attn_k_norm"}
_POST_NORMS = {
    "post_attention_norm": "blk.{}.post_attention_norm",
    "post_mlp_norm": "blk.{}.post_ffw_norm",
}
ARCHITECTURES: dict[str, dict[str, str]] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | _HEAD_NORMS,
    "gemma2": _LLAMA | _POST_NORMS,
    "gemma3": _LLAMA | _POST_NORMS | _HEAD_NORMS,
    "gpt2": _COMMON | {"query_key_value": "blk.{}.attn_qkv", "positions": "position_embd"},
}
"""Every supported architecture, and the names of its tensors (Mistral is a ``llama`` here)."""

_BIASED = {
    "qwen2": frozenset({"query", "key", "value"}),
    "gpt2": frozenset({"query_key_value", "output", "up", "down"}),
}
_IGNORED = r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight"
# llama.cpp knows these two sizes by their number of layers: their queries are scaled by the
# width over the heads, all others by the head size.
_SCALED_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}


def decoder_from_gguf(path: str | Path | GGUFFile) -> Decoder:
    """Read a decoder from a GGUF file; its weights stay views of the mapped file.

    Raises
    ------
    ModelError
        If the file cannot be read, its architecture is not supported, or a tensor or a metadata
        key is missing or unfit.
    """
    file = path if isinstance(path, GGUFFile) else open_gguf(path)
    architecture = Settings(file.metadata, file.path).text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{file.path} has architecture {architecture!r}, supported are "
            f"{', '.join(ARCHITECTURES)}"
        )
    settings = Settings(file.metadata, file.path, f"{architecture}.")
    width, heads = settings.integer("embedding_length"), settings.integer("attention.head_count")
    head_size = settings.integer("attention.key_length", width // heads or 1, most=2**16)
    value_size = settings.integer("attention.value_length", head_size)
    if value_size != head_size:
        raise ModelError(
            f"{file.path}: values have {value_size} entries a head and keys {head_size}; "
            "only equal sizes are supported"
        )
    frequencies, magnitude = _frequencies(file, architecture, settings, head_size)
    config = _config(file, architecture, settings, width, heads, head_size, magnitude)
    plan = Plan(
        config=config,
        layers=settings.integer("block_count"),
        mlp_width=settings.integer("feed_forward_length"),
        names=ARCHITECTURES[architecture],
        frequencies=frequencies,
        window=_window(architecture, settings),
        biased=_BIASED.get(architecture, frozenset()),
        extra_bias=True,
        ignored=_IGNORED,
    )
    name = Settings(file.metadata, file.path).text("general.name", file.path.stem)
    return assemble(plan, file, name)


def _config(
    file: GGUFFile,
    architecture: str,
    settings: Settings,
    width: int,
    heads: int,
    head_size: int,
    magnitude: float,
) -> DecoderConfig:
    gemma, layer_norm = architecture.startswith("gemma"), architecture == "gpt2"
    kv_heads = settings.integer("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise ModelError(
            f"{file.path} has {heads} heads over {kv_heads} key-value heads, should have a multiple"
        )
    by_width = (architecture, settings.integer("block_count")) in _SCALED_BY_WIDTH
    scale = (width / heads if by_width else head_size) ** -0.5
    epsilon = "attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon"
    # Gemma 2 files of early converters lack the caps, which that family always had.
    softcaps = {"gemma2": (50.0, 30.0)}.get(architecture, (0.0, 0.0))
    return DecoderConfig(
        family=architecture,
        vocabulary=file.rows("token_embd.weight"),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context=settings.integer("context_length"),
        norm="layer" if layer_norm else "rms",
        norm_epsilon=settings.number(epsilon),
        activation="gelu_tanh" if gemma or layer_norm else "silu",
        attention_scale=settings.number("attention.scale", scale),
        attention_softcap=settings.number("attn_logit_softcapping", softcaps[0]),
        logit_softcap=settings.number("final_logit_softcapping", softcaps[1]),
        embedding_scale=width**0.5 if gemma else 1.0,
        # llama.cpp's converter permutes the rows of Llama's queries and keys so.
        rotary_interleaved=architecture == "llama",
        rotary_magnitude=magnitude,
    )


def _is_local(architecture: str, settings: Settings) -> Callable[[int], bool]:
    """Return which layers slide: all but each second (Gemma 2) or sixth (Gemma 3), or all."""
    period = {"gemma2": 2, "gemma3": 6}.get(architecture, 0)
    period = settings.integer("attention.sliding_window_pattern", period)
    return lambda layer: not period or (layer + 1) % period != 0


def _window(architecture: str, settings: Settings) -> Callable[[int], int]:
    default = 4096 if architecture == "gemma2" else 0
    window = settings.integer("attention.sliding_window", default, least=0)
    if architecture.startswith("qwen") or not window:  # llama.cpp lets Qwen see everything
        return lambda layer: 0
    is_local = _is_local(architecture, settings)
    return lambda layer: window if is_local(layer) else 0


def _frequencies(
    file: GGUFFile, architecture: str, settings: Settings, head_size: int
) -> tuple[Callable[[int], np.ndarray | None], float]:
    """Return the inverse frequencies of each layer, and the factor on sine and cosine."""
    if architecture == "gpt2":
        return lambda layer: None, 1.0
    size = settings.integer("rope.dimension_count", head_size, most=head_size)
    theta = settings.number("rope.freq_base", 10000.0)
    context = settings.integer("context_length")
    scaling = _scaling(settings)
    everywhere, magnitude = inverse_frequencies(size, theta, scaling, context, file.path)
    if "rope_freqs.weight" in file:
        everywhere = everywhere / file.vector("rope_freqs.weight", size // 2)
        everywhere.flags.writeable = False
    if architecture != "gemma3":
        return lambda layer: everywhere, magnitude
    local_theta = settings.number("rope.freq_base_swa", 10000.0)
    local, _ = inverse_frequencies(size, local_theta, {}, context, file.path)
    is_local = _is_local(architecture, settings)
    return lambda layer: local if is_local(layer) else everywhere, magnitude


def _scaling(settings: Settings) -> dict[str, Any]:
    """Return the rotary scaling under transformers' names."""
    kind = settings.text("rope.scaling.type", "none")
    linear = settings.number("rope.scale_linear", 1.0)  # the key of older files
    if kind == "none":
        return {} if linear == 1.0 else {"rope_type": "linear", "factor": linear}
    factor = settings.number("rope.scaling.factor", linear)
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        attention = settings.number("rope.scaling.attn_factor", 1.0)
        scaling |= {
            "original_max_position_embeddings": settings.integer(
                "rope.scaling.original_context_length", None
            ),
            "beta_fast": settings.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": settings.number("rope.scaling.yarn_beta_slow", 1.0),
            "attention_factor": attention * (0.1 * np.log(max(factor, 1.0)).item() + 1.0),
        }
    return scaling
