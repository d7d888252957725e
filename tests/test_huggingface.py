"""Hugging Face folders: what arrives, and what is refused."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from numbatch.errors import ModelError
from numbatch.kernels.scoring.formats import BF16, F16, F32, unpack
from numbatch.models.decoder import Decoder, Matrix
from numbatch.models.decoders.from_huggingface import decoder_from_folder
from numbatch.models.safetensors import SafetensorsFolder


def values(matrix: Matrix) -> np.ndarray:
    return unpack(matrix.data, matrix.format, matrix.columns)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tiny_models.write_huggingface("llama", folder)
    return folder


def changed(source: Path, target: Path, **values: Any) -> Path:
    """Copy a model folder with other configuration values; ``...`` leaves one out."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text()) | values
    config = {key: value for key, value in config.items() if value is not ...}
    (target / "config.json").write_text(json.dumps(config))
    return target


NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


@pytest.mark.parametrize("family", [name for name in tiny_models.FAMILIES if name != "gpt2"])
def test_every_family(family: str, tmp_path: Path) -> None:
    model = tiny_models.write_huggingface(family, tmp_path)
    decoder = decoder_from_folder(tmp_path)
    config, wanted = decoder.config, model.config
    attention = model.model.layers[-1].self_attn
    assert config.family == {"gemma3_text": "gemma3"}.get(wanted.model_type, wanted.model_type)
    assert (config.vocabulary, config.width) == (wanted.vocab_size, wanted.hidden_size)
    assert (config.heads, config.kv_heads) == (4, 2)
    assert (config.head_size, config.context) == (attention.head_dim, 128)
    assert config.norm_epsilon == wanted.rms_norm_eps
    assert config.attention_scale == pytest.approx(attention.scaling, rel=1e-12)
    assert not config.rotary_interleaved
    assert (decoder.head.weight is decoder.embedding) == wanted.tie_word_embeddings
    assert len(decoder.layers) == wanted.num_hidden_layers
    shift = 1 if family.startswith("gemma") else 0
    for layer, reference in zip(decoder.layers, model.model.layers, strict=True):
        for part, name in NAMES.items():
            linear, module = getattr(layer, part), reference.get_submodule(name)
            assert np.array_equal(values(linear.weight), module.weight.detach().numpy())
            assert not linear.weight.data.flags.writeable
            assert not linear.weight.data.flags.owndata
            if module.bias is None:
                assert linear.bias is None
            else:
                assert np.array_equal(linear.bias, module.bias.detach().numpy())
        window = getattr(reference.self_attn, "sliding_window", None)
        assert layer.window == (10 if family == "mistral" else window or 0)
        norm = reference.input_layernorm.weight.detach().numpy()
        assert np.array_equal(layer.attention_norm.weight, norm + np.float32(shift))
        assert (layer.query_norm is not None) == hasattr(reference.self_attn, "q_norm")
        assert (layer.post_mlp_norm is not None) == family.startswith("gemma")


@pytest.mark.parametrize("family", ["llama", "llama-llama3", "llama-yarn", "qwen3"])
def test_rotary_arrives(family: str, tmp_path: Path) -> None:
    model = tiny_models.write_huggingface(family, tmp_path)
    decoder, rotary = decoder_from_folder(tmp_path), model.model.rotary_emb
    got = decoder.layers[0].inverse_frequencies
    np.testing.assert_allclose(got, rotary.inv_freq.numpy(), rtol=1e-6)
    assert decoder.config.rotary_magnitude == rotary.attention_scaling


def test_gemma3_has_two_rotary_bases(tmp_path: Path) -> None:
    model = tiny_models.write_huggingface("gemma3_text", tmp_path)
    decoder, rotary = decoder_from_folder(tmp_path), model.model.rotary_emb
    for layer, kind in zip(decoder.layers, model.config.layer_types, strict=True):
        wanted = getattr(rotary, f"{kind}_inv_freq").numpy()
        np.testing.assert_allclose(layer.inverse_frequencies, wanted, rtol=1e-6)
    assert decoder.config.embedding_scale == 8.0
    assert decoder.config.activation == "gelu_tanh"


def test_softcaps(tmp_path: Path) -> None:
    tiny_models.write_huggingface("gemma2", tmp_path / "a")
    config = decoder_from_folder(tmp_path / "a").config
    assert (config.attention_softcap, config.logit_softcap) == (3.0, 2.0)
    absent = changed(tmp_path / "a", tmp_path / "b", attn_logit_softcapping=...)
    assert decoder_from_folder(absent).config.attention_softcap == 50.0
    null = changed(tmp_path / "a", tmp_path / "c", attn_logit_softcapping=None)
    assert decoder_from_folder(null).config.attention_softcap == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gpt2_is_transposed_in_its_own_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_models.write_huggingface("gpt2", tmp_path, dtype=dtype)
    decoder = decoder_from_folder(tmp_path)
    block, layer = model.transformer.h[1], decoder.layers[1]
    formats = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}
    assert layer.up.weight.format == formats[dtype]
    assert not layer.up.weight.data.flags.writeable

    def same(got: Any, wanted: torch.Tensor) -> bool:
        return np.array_equal(got, wanted.detach().float().numpy())

    assert same(values(layer.up.weight), block.mlp.c_fc.weight.T)
    assert same(values(layer.key.weight), block.attn.c_attn.weight.T[64:128])
    assert same(layer.value.bias, block.attn.c_attn.bias[128:])
    assert same(values(decoder.positions), model.transformer.wpe.weight)
    assert same(decoder.final_norm.bias, model.transformer.ln_f.bias)
    assert layer.gate is None
    assert layer.inverse_frequencies is None
    assert (decoder.config.norm, decoder.config.activation) == ("layer", "gelu_tanh")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_models.write_huggingface("llama", tmp_path, dtype=dtype)
    decoder = decoder_from_folder(tmp_path)
    wanted = model.model.layers[2].mlp.down_proj.weight.detach().float().numpy()
    assert np.array_equal(values(decoder.layers[2].down.weight), wanted)
    norm = model.model.norm.weight.detach().float().numpy()
    assert np.array_equal(decoder.final_norm.weight, norm)


def test_shards(tmp_path: Path) -> None:
    model = tiny_models.write_huggingface("llama", tmp_path, max_shard_size="100KB")
    assert not (tmp_path / "model.safetensors").exists()
    decoder = decoder_from_folder(tmp_path)
    assert len(decoder.files) > 2
    wanted = model.model.layers[2].mlp.down_proj.weight.detach().numpy()
    assert np.array_equal(values(decoder.layers[2].down.weight), wanted)
    Path(decoder.files[1]).unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-.*does not exist"):
        decoder_from_folder(tmp_path)


def test_a_bare_decoder_without_prefix(tmp_path: Path) -> None:
    model = tiny_models.make_model("qwen3")
    model.model.save_pretrained(tmp_path)
    decoder = decoder_from_folder(tmp_path)
    wanted = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    assert np.array_equal(values(decoder.layers[0].up.weight), wanted)


def test_gemma3_with_images(tmp_path: Path) -> None:
    """Its text part is read: the configuration is nested, the names have another prefix."""
    model = tiny_models.make_model("gemma3_text")
    state = {
        f"language_model.{name}": tensor.clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    state["vision_tower.patch.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "model.safetensors")
    config = {"model_type": "gemma3", "text_config": model.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert decoder_from_folder(tmp_path).config.family == "gemma3"


def test_older_configurations(llama: Path, tmp_path: Path) -> None:
    """Before version 5 base and scaling were two values, and the scaling's key was ``type``."""
    folder = changed(
        llama,
        tmp_path,
        rope_parameters=...,
        rope_theta=777.0,
        rope_scaling={"type": "linear", "factor": 2.0},
    )
    got = decoder_from_folder(folder).layers[0].inverse_frequencies
    np.testing.assert_allclose(got, 777.0 ** (-np.arange(0, 16, 2) / 16) / 2, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"])
def test_defaults_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Values that transformers fills in are the ones that we fill in."""
    tiny_models.write_huggingface(family, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    for key in (
        *("rms_norm_eps", "rope_parameters", "sliding_window", "layer_types", "hidden_act"),
        *("hidden_activation", "max_position_embeddings", "query_pre_attn_scalar"),
    ):
        config.pop(key, None)
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    got = decoder_from_folder(tmp_path / "a")
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(tmp_path / "a")
    )
    wanted = model.config
    assert got.config.context == wanted.max_position_embeddings
    assert got.config.norm_epsilon == wanted.rms_norm_eps
    scaling = model.model.layers[0].self_attn.scaling
    assert got.config.attention_scale == pytest.approx(scaling, rel=1e-12)
    for layer, reference in zip(got.layers, model.model.layers, strict=True):
        window = getattr(reference.self_attn, "sliding_window", None) or 0
        assert layer.window == (wanted.sliding_window if family == "mistral" else window)
    rotary = model.model.rotary_emb
    name = "sliding_attention_inv_freq" if family == "gemma3_text" else "inv_freq"
    np.testing.assert_allclose(
        got.layers[0].inverse_frequencies, getattr(rotary, name).numpy(), rtol=2e-6
    )


# What is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba', supported are llama, mistral, qwen2"),
        ({"model_type": ["llama"]}, "supported are"),
        ({"model_type": ...}, "model_type None"),
        ({"hidden_size": "64"}, "hidden_size is '64', should be an integer"),
        ({"hidden_size": 32}, r"has shape \(300, 64\), should have \(300, 32\)"),
        ({"num_hidden_layers": 4}, "no tensor model.layers.3.self_attn.q_proj.weight"),
        ({"num_hidden_layers": 2}, "9 tensors that llama has no use for: model.layers.2"),
        ({"num_key_value_heads": 3}, "4 heads over 3"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', should be one of silu"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, should be a positive number"),
        ({"attention_bias": True}, "no tensor model.layers.0.self_attn.q_proj.bias"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes', should be true or false"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope' is not supported"),
        ({"rope_parameters": [1]}, r"rope_parameters is \[1\], should be a mapping"),
        ({"head_dim": 15}, "should be an even number"),
        ({"vocab_size": 301}, r"embed_tokens.weight has shape \(300, 64\)"),
    ],
)
def test_refused_configurations(
    values: dict[str, Any], message: str, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        decoder_from_folder(changed(llama, tmp_path, **values))


def test_refused_flags(tmp_path: Path) -> None:
    tiny_models.write_huggingface("gpt2", tmp_path / "a")
    other = changed(tmp_path / "a", tmp_path / "b", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx is True"):
        decoder_from_folder(other)
    plain = changed(tmp_path / "a", tmp_path / "c", scale_attn_weights=False)
    assert decoder_from_folder(plain).config.attention_scale == 1.0


def test_missing_and_damaged_files(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config.json does not exist"):
        decoder_from_folder(tmp_path / "nowhere")
    folder = changed(llama, tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither model.safetensors nor model.safetensors.index"):
        decoder_from_folder(folder)
    index = folder / "model.safetensors.index.json"
    for content in (b"{", b"[]", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b"\xff", b"{}"):
        index.write_bytes(content)
        with pytest.raises(ModelError, match=r"is damaged|should name files"):
            decoder_from_folder(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../b.safetensors"}}))
    with pytest.raises(ModelError, match="should name files of its own folder"):
        decoder_from_folder(folder)
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b'"text"'):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot be read|should hold a JSON object"):
            decoder_from_folder(folder)


def test_truncated_anywhere(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "a")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for length in [*range(0, 40, 3), *np.linspace(40, len(content) - 1, 60).astype(int).tolist()]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"truncated|damaged"):
            decoder_from_folder(folder)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_corrupt_headers(data: st.DataObject, llama: Path) -> None:
    folder = llama.with_name("corrupt")
    shutil.copytree(llama, folder, dirs_exist_ok=True)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 1))
        new = data.draw(
            st.binary(min_size=1, max_size=4) | st.sampled_from([b"1", b"[", b"-", b"0"])
        )
        content[at : at + len(new)] = new
    path.write_bytes(content)
    try:  # most changes make the file unfit, some (in the file's own notes) do not
        decoder = decoder_from_folder(folder)
    except ModelError:
        return
    assert isinstance(decoder, Decoder)


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    state = {
        name: tensor.clone()
        for name, tensor in tiny_models.make_model("llama").state_dict().items()
    }
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder


def test_missing_left_over_and_unfit_tensors(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    with_tensors(folder, lambda state: state.__delitem__(name))
    with pytest.raises(ModelError, match=f"has no tensor {name}"):
        decoder_from_folder(folder)
    with_tensors(
        folder, lambda state: state.update({"model.layers.1.router.weight": torch.ones(2)})
    )
    with pytest.raises(
        ModelError, match=r"1 tensors that llama has no use for: model.layers.1.router"
    ):
        decoder_from_folder(folder)
    with_tensors(folder, lambda state: state.update({name: state[name].double()}))
    with pytest.raises(ModelError, match=f"{name} has dtype F64, supported are F32, F16, BF16"):
        decoder_from_folder(folder)
    known = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    with_tensors(folder, lambda state: state.update(known))
    decoder_from_folder(folder)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"a": torch.ones(2)}, tmp_path / f"{number}.safetensors")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="tensor a is in"):
        SafetensorsFolder(tmp_path)


def test_misaligned_tensors_are_copied(tmp_path: Path) -> None:
    """The format aligns nothing: a header of odd length moves every tensor."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    header += b" " * (1 - len(header) % 4 + 4)
    assert (8 + len(header)) % 4
    content = struct.pack("<Q", len(header)) + header + weight.tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    matrix = SafetensorsFolder(tmp_path).matrix("a", 2, 3)
    assert matrix.data.ctypes.data % 4 == 0
    assert np.array_equal(values(matrix), weight)
