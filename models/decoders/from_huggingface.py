"""Decoders from Hugging Face folders: ``config.json`` and safetensors.

What a missing configuration value means is what transformers' configuration classes say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.errors import ModelError
from numbatch.models.decoder import Decoder, DecoderConfig
from numbatch.models.decoders.assemble import Plan, assemble
from numbatch.models.decoders.huggingface_families import FAMILIES, Family
from numbatch.models.decoders.rotary import inverse_frequencies
from numbatch.models.decoders.settings import Settings
from numbatch.models.safetensors import SafetensorsFolder

__all__ = ["decoder_from_folder", "read_json"]

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_PREFIXES = ("", "model.", "transformer.", "language_model.model.", "model.language_model.")
_IGNORED = (
    r".*\.rotary_emb\.inv_freq|.*\.attn\.(bias|masked_bias)"
    r"|(model\.)?(vision_tower|multi_modal_projector)\..*"
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises
    ------
    ModelError
        If the file is missing or holds anything else.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}, should hold a JSON object")
    return values


def decoder_from_folder(folder: str | Path) -> Decoder:
    """Read a decoder from a Hugging Face folder; its weights stay views of the mapped files.

    Raises
    ------
    ModelError
        If a file is missing or damaged, the model's type is not supported, or a weight or a
        value of the configuration is missing or unfit.
    """
    folder = Path(folder)
    path = folder / "config.json"
    values = read_json(path)
    kind = values.get("model_type")
    if kind == "gemma3" and isinstance(values.get("text_config"), dict):
        values, kind = values["text_config"], "gemma3_text"  # the rest is about images
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(
            f"{path} has model_type {kind!r}, supported are {', '.join(FAMILIES)} and gemma3"
        )
    family = FAMILIES[kind]
    settings = Settings(values, path, aliases=family.keys)
    for key, wanted in family.only.items():
        if settings.flag(key, wanted) is not wanted:
            raise ModelError(f"{path}: {key} is {not wanted}, only {wanted} is supported")
    tensors = SafetensorsFolder(folder, family.transposed)
    plan = _plan(kind, family, settings, tensors.names)
    return assemble(plan, tensors, str(values.get("_name_or_path") or folder.name))


def _plan(kind: str, family: Family, settings: Settings, tensors: frozenset[str]) -> Plan:
    width = settings.integer("hidden_size", family.defaults.get("hidden_size"))
    heads = settings.integer("num_attention_heads", family.defaults.get("num_attention_heads"))
    head_size = settings.integer(
        "head_dim", family.defaults.get("head_dim", width // heads or 1), most=2**16
    )
    layers = settings.integer("num_hidden_layers", family.defaults["num_hidden_layers"])
    window, is_local = _window(family, settings, layers)
    frequencies, magnitude = _frequencies(family, settings, head_size, is_local)
    prefix = _prefix(family, settings, tensors)
    names = {part: prefix + name for part, name in family.names.items()}
    head_prefix = "language_model." if prefix == "language_model.model." else ""
    config = _config(kind, family, settings, width, heads, head_size, magnitude)
    biased = family.biased
    for key, parts in family.biased_if.items():
        biased |= parts if settings.flag(key, False) else frozenset()
    return Plan(
        config=config,
        layers=layers,
        mlp_width=settings.integer(
            "intermediate_size", family.defaults.get("intermediate_size", 4 * width)
        ),
        names=names | {"head": f"{head_prefix}lm_head"},
        frequencies=frequencies,
        window=window,
        biased=biased,
        tied=settings.flag("tie_word_embeddings", family.defaults["tie_word_embeddings"]),
        norm_shift=family.norm_shift,
        ignored=_IGNORED,
    )


def _prefix(family: Family, settings: Settings, tensors: frozenset[str]) -> str:
    """Return what stands before the tensors' names: a whole model's or a bare decoder's."""
    embedding = f"{family.names['embedding']}.weight"
    for prefix in _PREFIXES:
        if prefix + embedding in tensors:
            return prefix
    folder = Path(str(settings.where)).parent
    raise ModelError(f"{folder} has no tensor {embedding}, with or without a prefix")


def _config(
    kind: str,
    family: Family,
    settings: Settings,
    width: int,
    heads: int,
    head_size: int,
    magnitude: float,
) -> DecoderConfig:
    kv_heads = settings.integer("num_key_value_heads", family.kv_heads(settings, heads))
    if heads % kv_heads:
        raise ModelError(
            f"{settings.where} has {heads} heads over {kv_heads} key-value heads, "
            "should have a multiple"
        )
    scaled = settings.number("query_pre_attn_scalar", family.defaults.get("scalar", head_size))
    if not settings.flag("scale_attn_weights", True):
        scaled = 1.0
    return DecoderConfig(
        family=family.name or kind,
        vocabulary=settings.integer("vocab_size", family.defaults["vocab_size"]),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        context=settings.integer(
            "max_position_embeddings", family.defaults["max_position_embeddings"]
        ),
        norm=family.norm,
        norm_epsilon=settings.number("norm_epsilon", family.defaults["norm_epsilon"]),
        activation=settings.choice("activation", _ACTIVATIONS, family.activation),
        attention_scale=scaled**-0.5,
        attention_softcap=_softcap(family, settings, "attn_logit_softcapping"),
        logit_softcap=_softcap(family, settings, "final_logit_softcapping"),
        embedding_scale=width**0.5 if family.scaled_embedding else 1.0,
        rotary_magnitude=magnitude,
    )


def _softcap(family: Family, settings: Settings, key: str) -> float:
    """Return a cap; a null in the file means none, an absent key the family's own."""
    if not family.softcapped or (key in settings.values and settings.values[key] is None):
        return 0.0
    return float(settings.number(key, family.defaults.get(key, 0.0)))


def _window(
    family: Family, settings: Settings, layers: int
) -> tuple[Callable[[int], int], Callable[[int], bool]]:
    """Return each layer's sliding window, and whether it slides."""
    absent = family.window_default if "sliding_window" not in settings.values else 0
    window = settings.integer("sliding_window", absent, least=0)
    if family.window_optional and not settings.flag("use_sliding_window", False):
        window = 0
    types = settings.values.get("layer_types") if family.window_by_layer else None
    if types is None:
        is_local = family.slides(settings)
    else:
        known = {"sliding_attention", "full_attention"}
        if not isinstance(types, list) or len(types) != layers or not known.issuperset(types):
            raise ModelError(
                f"{settings.where}: layer_types should be {layers} times one of {sorted(known)}"
            )
        is_local = [each == "sliding_attention" for each in types].__getitem__
    return (lambda layer: window if is_local(layer) else 0), is_local


def _frequencies(
    family: Family, settings: Settings, head_size: int, is_local: Callable[[int], bool]
) -> tuple[Callable[[int], np.ndarray | None], float]:
    """Return the inverse frequencies of each layer, and the factor on sine and cosine."""
    if not family.rotary:
        return lambda layer: None, 1.0
    # Since version 5 transformers keeps base and scaling in one mapping, by layer type in Gemma 3.
    given = settings.mapping("rope_parameters")
    older = settings.mapping("rope_scaling")
    everywhere = older or given
    if family.local_rotary and ("full_attention" in given or "sliding_attention" in given):
        everywhere = (given.get("full_attention") or {}) | older
    theta = settings.number("rope_theta", family.defaults.get("rope_theta", 10000.0))
    full, magnitude = _turns(settings, everywhere, theta, head_size, family)
    if not family.local_rotary:
        return lambda layer: full, magnitude
    theta = settings.number("rope_local_base_freq", 10000.0)
    local_scaling = given.get("sliding_attention") or {}
    local, local_magnitude = _turns(settings, local_scaling, theta, head_size, family)
    if local_magnitude != magnitude:
        raise ModelError(
            f"{settings.where}: yarn has factors {magnitude} and {local_magnitude} by layer type, "
            "only equal ones are supported"
        )
    return lambda layer: local if is_local(layer) else full, magnitude


def _turns(
    settings: Settings, scaling: Any, theta: float, head_size: int, family: Family
) -> tuple[np.ndarray, float]:
    if not isinstance(scaling, dict):
        raise ModelError(f"{settings.where}: rope_parameters hold {scaling!r}, should be a mapping")
    rotary = Settings(scaling, settings.where)
    context = settings.integer(
        "max_position_embeddings", family.defaults["max_position_embeddings"]
    )
    original = settings.integer("original_max_position_embeddings", None)
    if original is not None:
        scaling = scaling | {"original_max_position_embeddings": original}
    part = rotary.number("partial_rotary_factor", settings.number("partial_rotary_factor", 1.0))
    return inverse_frequencies(
        int(head_size * min(part, 1.0)),
        rotary.number("rope_theta", theta),
        scaling,
        context,
        settings.where,
    )
