"""What sets the families of Hugging Face models apart: names, defaults and choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numbatch.models.decoders.settings import Settings

__all__ = ["FAMILIES", "Family"]


def _never(settings: Settings) -> Callable[[int], bool]:
    return lambda layer: False


def _always(settings: Settings) -> Callable[[int], bool]:
    return lambda layer: True


def _upper(settings: Settings) -> Callable[[int], bool]:
    first = settings.integer("max_window_layers", 28, least=0)
    return lambda layer: layer >= first


def _all_but_each(period: int) -> Callable[[Settings], Callable[[int], bool]]:
    def slides(settings: Settings) -> Callable[[int], bool]:
        each = settings.integer("sliding_window_pattern", period)
        return lambda layer: (layer + 1) % each != 0

    return slides


@dataclass(frozen=True, slots=True)
class Family:
    """One model type.

    Parameters
    ----------
    names : Mapping
        Part -> tensor, as in ``numbatch.models.decoders.assemble.Plan``, without a prefix.
    defaults : Mapping
        What transformers' configuration class says where the file says nothing.
    keys : Mapping
        Common names of configuration values -> the family's own.
    only : Mapping
        Flags of which one value is supported.
    biased, biased_if : frozenset, Mapping
        Parts that always have a bias; those that a flag gives one.
    slides : callable
        Settings -> whether a layer slides, where ``layer_types`` does not say it.
    """

    names: Mapping[str, str]
    defaults: Mapping[str, Any]
    name: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, bool] = field(default_factory=dict)
    biased: frozenset[str] = frozenset()
    biased_if: Mapping[str, frozenset[str]] = field(default_factory=dict)
    slides: Callable[[Settings], Callable[[int], bool]] = _never
    window_default: int = 0
    window_optional: bool = False
    window_by_layer: bool = False
    rotary: bool = True
    local_rotary: bool = False
    norm: str = "rms"
    norm_shift: float = 0.0
    activation: str = "silu"
    scaled_embedding: bool = False
    softcapped: bool = False
    transposed: str = r"(?!)"

    def kv_heads(self, settings: Settings, heads: int) -> int:
        """Return the default number of key-value heads; a null means one for each head."""
        absent = "num_key_value_heads" not in settings.values
        return int(self.defaults.get("num_key_value_heads", heads)) if absent else heads


_LLAMA = {
    "embedding": "embed_tokens",
    "final_norm": "norm",
    "attention_norm": "layers.{}.input_layernorm",
    "query": "layers.{}.self_attn.q_proj",
    "key": "layers.{}.self_attn.k_proj",
    "value": "layers.{}.self_attn.v_proj",
    "output": "layers.{}.self_attn.o_proj",
    "mlp_norm": "layers.{}.post_attention_layernorm",
    "gate": "layers.{}.mlp.gate_proj",
    "up": "layers.{}.mlp.up_proj",
    "down": "layers.{}.mlp.down_proj",
}
_HEAD_NORMS = {
    "query_norm": "layers.{}.self_attn.q_norm",
    "key_norm": "layers.{}.self_attn.k_norm",
}
_GEMMA = _LLAMA | {
    "post_attention_norm": "layers.{}.post_attention_layernorm",
    "mlp_norm": "layers.{}.pre_feedforward_layernorm",
    "post_mlp_norm": "layers.{}.post_feedforward_layernorm",
}
_GPT2 = {
    "embedding": "wte",
    "positions": "wpe",
    "final_norm": "ln_f",
    "attention_norm": "h.{}.ln_1",
    "query_key_value": "h.{}.attn.c_attn",
    "output": "h.{}.attn.c_proj",
    "mlp_norm": "h.{}.ln_2",
    "up": "h.{}.mlp.c_fc",
    "down": "h.{}.mlp.c_proj",
}
_QKV = frozenset({"query", "key", "value"})
_ATTENTION_BIAS = {"attention_bias": _QKV | {"output"}}
_EPSILON = {"norm_epsilon": "rms_norm_eps"}
_KEYS = _EPSILON | {"activation": "hidden_act"}
_GEMMA_KEYS = _EPSILON | {"activation": "hidden_activation"}
_GPT2_KEYS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "activation": "activation_function",
    "norm_epsilon": "layer_norm_epsilon",
}


def _sizes(
    vocabulary: int, width: int, mlp: int, layers: int, heads: int, context: int, **others: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "norm_epsilon": 1e-6,
        "tie_word_embeddings": False,
    } | others


_QWEN_SIZES = _sizes(151936, 4096, 22016, 32, 32, 32768, num_key_value_heads=32)
_GEMMA2_SIZES = _sizes(
    256000, 2304, 9216, 26, 8, 8192,
    num_key_value_heads=4, head_dim=256, scalar=256, tie_word_embeddings=True,
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "llama": Family(
        names=_LLAMA,
        defaults=_sizes(32000, 4096, 11008, 32, 32, 2048),
        keys=_KEYS,
        biased_if=_ATTENTION_BIAS | {"mlp_bias": frozenset({"gate", "up", "down"})},
    ),
    "mistral": Family(
        names=_LLAMA,
        defaults=_sizes(32000, 4096, 14336, 32, 32, 131072, num_key_value_heads=8),
        keys=_KEYS,
        slides=_always,
        window_default=4096,
    ),
    "qwen2": Family(
        names=_LLAMA,
        defaults=_QWEN_SIZES,
        keys=_KEYS,
        biased=_QKV,
        slides=_upper,
        window_default=4096,
        window_optional=True,
        window_by_layer=True,
    ),
    "qwen3": Family(
        names=_LLAMA | _HEAD_NORMS,
        defaults=_QWEN_SIZES | {"head_dim": 128},
        keys=_KEYS,
        biased_if=_ATTENTION_BIAS,
        slides=_upper,
        window_default=4096,
        window_optional=True,
        window_by_layer=True,
    ),
    "gemma2": Family(
        names=_GEMMA,
        defaults=_GEMMA2_SIZES | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        keys=_GEMMA_KEYS,
        only={"use_bidirectional_attention": False},
        biased_if=_ATTENTION_BIAS,
        slides=_all_but_each(2),
        window_default=4096,
        window_by_layer=True,
        norm_shift=1.0,
        activation="gelu_pytorch_tanh",
        scaled_embedding=True,
        softcapped=True,
    ),
    "gemma3_text": Family(
        names=_GEMMA | _HEAD_NORMS,
        defaults=_GEMMA2_SIZES
        | {"vocab_size": 262208, "max_position_embeddings": 131072, "rope_theta": 1e6},
        name="gemma3",
        keys=_GEMMA_KEYS,
        only={"use_bidirectional_attention": False},
        biased_if=_ATTENTION_BIAS,
        slides=_all_but_each(6),
        window_default=4096,
        window_by_layer=True,
        local_rotary=True,
        norm_shift=1.0,
        activation="gelu_pytorch_tanh",
        scaled_embedding=True,
        softcapped=True,
    ),
    "gpt2": Family(
        names=_GPT2,
        defaults={
            "vocab_size": 50257,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 1024,
            "norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        keys=_GPT2_KEYS,
        only={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
        biased=frozenset({"query_key_value", "output", "up", "down"}),
        rotary=False,
        norm="layer",
        activation="gelu_new",
        transposed=r".*\.(c_attn|c_proj|c_fc)\.weight",
    ),
}
"""Every supported ``model_type`` of a configuration."""
