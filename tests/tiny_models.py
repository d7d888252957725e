"""Tiny random models of every family, written as transformers and llama.cpp write real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

VOCABULARY = 300
BEGIN, END = 298, 299

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GEMMA: dict[str, Any] = {"tie_word_embeddings": True, "query_pre_attn_scalar": 24}
_GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 128,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-odd": ("llama", {"hidden_size": 48, "head_dim": 20, "intermediate_size": 100}),
    "llama-bias": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama-llama3": ("llama", {"rope_parameters": _LLAMA3}),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}),
    "mistral": ("mistral", {"sliding_window": 10, "rms_norm_eps": 1e-5}),
    "qwen2": ("qwen2", {"head_dim": None}),
    "qwen2-window": (
        "qwen2",
        {
            "head_dim": None,
            "use_sliding_window": True,
            "sliding_window": 10,
            "max_window_layers": 1,
        },
    ),
    "qwen3": ("qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "gemma2": (
        "gemma2",
        _GEMMA
        | {"sliding_window": 10, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0},
    ),
    "gemma3_text": (
        "gemma3_text",
        _GEMMA | {"sliding_window": 10, "num_hidden_layers": 6, "rope_parameters": _GEMMA3_ROPE},
    ),
    "gpt2": ("gpt2", _GPT2),
}
"""Name -> (transformers' model type, what its configuration has besides the common sizes)."""

GGUF_FAMILIES = tuple(name for name in FAMILIES if name != "qwen2-window")
"""Families that llama.cpp has; it does not run Qwen 2 with a sliding window."""


def make_model(family: str, seed: int = 0, **overrides: Any) -> Any:
    """Return a transformers model of tiny size with random float32 weights.

    Weights are scaled so that every part changes the logits and none drowns the others.
    """
    kind, changes = FAMILIES[family]
    sizes = {} if kind == "gpt2" else dict(_SIZES)
    sizes |= {**_copy(changes), **overrides}
    if sizes.get("head_dim", 0) is None:  # a family that has no such choice
        del sizes["head_dim"]
    config = transformers.AutoConfig.for_model(kind, **sizes)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(_scaled(name, noise, config))
    return model


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))  # transformers writes into the dicts that it is given


def _scaled(name: str, noise: torch.Tensor, config: Any) -> torch.Tensor:
    kind = config.model_type
    if "norm" in name or ".ln_" in name:
        at_rest = 0.0 if kind.startswith("gemma") or name.endswith("bias") else 1.0
        return at_rest + 0.2 * noise
    if noise.ndim == 1:
        return 0.2 * noise
    if "embed" in name or "wte" in name or "wpe" in name:
        return (0.15 if config.tie_word_embeddings else 0.7) * noise
    inputs = noise.shape[0] if kind == "gpt2" and "lm_head" not in name else noise.shape[1]
    return 1.2 * inputs**-0.5 * noise


def write_huggingface(
    family: str,
    folder: Path,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "50GB",
    **overrides: Any,
) -> Any:
    """Write a model folder with a tokenizer, and return the transformers model (as written)."""
    model = make_model(family, seed, **overrides).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def make_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer of 300 tokens: bytes, 42 pairs, two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(first, second) for first in "Ġtaoi" for second in "tnhaeirs"] + [
        ("e", "d"),
        ("l", "y"),
    ]
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    for first, second in pairs:
        vocabulary[first + second] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<begin>", special=True), AddedToken("<end>", special=True)]
    )
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    return tokenizer


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write_gguf(family: str, path: Path, seed: int = 0, format: Type = Type.F32) -> Any:
    """Write the model of ``make_model(family, seed)`` as GGUF and return it.

    Matrices are stored in ``format`` where their rows are a multiple of its block, else as F32.
    Follows llama.cpp's converter: llama's queries and keys are permuted for interleaved rotary
    positions, Gemma's norms have the one added, GPT-2's matrices are transposed.
    """
    model = make_model(family, seed)
    config = model.config
    kind = config.model_type
    architecture = {"mistral": "llama", "gemma3_text": "gemma3"}.get(kind, kind)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {family}")
    _add_sizes(writer, config, kind)
    _add_tokenizer(writer)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = tensor.numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            half = len(weight) // heads // 2
            parts = weight.reshape(heads, 2, half, *weight.shape[1:])
            weight = parts.swapaxes(1, 2).reshape(weight.shape)
        if kind.startswith("gemma") and "norm" in name:
            weight = weight + 1
        if kind == "gpt2" and ".c_" in name and weight.ndim == 2:
            weight = weight.T
        _add_tensor(writer, _gguf_name(name, kind), np.ascontiguousarray(weight), format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _gguf_name(name: str, kind: str) -> str:
    base, suffix = name.rsplit(".", 1)
    names = _GGUF_NAMES | (_GEMMA_NAMES if kind.startswith("gemma") else {})
    if base in names:
        return f"{names[base]}.{suffix}"
    _, _, layer, rest = base.split(".", 3)
    if kind == "gpt2":
        layer, rest = base.split(".", 3)[2:]
    return f"blk.{layer}.{names[rest]}.{suffix}"


def _add_tensor(writer: gguf.GGUFWriter, name: str, weight: np.ndarray, format: Type) -> None:
    block = gguf.GGML_QUANT_SIZES[format][0]
    if weight.ndim == 1 or weight.shape[-1] % block or format == Type.F32:
        writer.add_tensor(name, weight)
    else:
        writer.add_tensor(name, gguf.quants.quantize(weight, format), raw_dtype=format)


def _add_sizes(writer: gguf.GGUFWriter, config: Any, kind: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if kind == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if size := getattr(config, "head_dim", None):
        writer.add_key_length(size)
        writer.add_value_length(size)
    if window := getattr(config, "sliding_window", None):
        writer.add_sliding_window(window)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind.startswith("gemma"):
        writer.add_attention_scale(config.query_pre_attn_scalar**-0.5)
    _add_rope(writer, config)


def _add_rope(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    if "full_attention" in rope:
        local = rope["sliding_attention"]["rope_theta"]
        writer.add_float32(f"{writer.arch}.rope.freq_base_swa", local)
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif rope["rope_type"] == "llama3":
        plain = rope["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        scaled = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
        writer.add_tensor("rope_freqs.weight", (plain / scaled.numpy()).astype(np.float32))


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokenizer = make_tokenizer()
    described = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(number) for number in range(VOCABULARY)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * (VOCABULARY - 2) + [control] * 2)
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
