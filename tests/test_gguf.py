"""GGUF files: what arrives, and what is refused."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_models
from gguf import GGMLQuantizationType as Type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numbatch.errors import ModelError
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.scoring.formats import FORMATS, unpack
from numbatch.models.decoder import Decoder, Matrix
from numbatch.models.decoders.from_gguf import decoder_from_gguf
from numbatch.models.gguf import open_gguf, read_metadata
from numbatch.models.tokenizers.vocabulary import texts_of


def values(matrix: Matrix) -> np.ndarray:
    return unpack(matrix.data, matrix.format, matrix.columns)


def write(path: Path, architecture: str = "llama", **metadata: Any) -> gguf.GGUFWriter:
    """Begin a file by hand; ``finish`` writes it."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        name = key.replace("__", ".")
        if isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_models.write_gguf("llama", path, format=Type.Q4_1)
    return path


def test_metadata_as_the_package_reads_it(tiny: Path) -> None:
    got = read_metadata(tiny)
    wanted = {
        name: field.contents()
        for name, field in gguf.GGUFReader(tiny).fields.items()
        if not name.startswith("GGUF.")
    }
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        if isinstance(got[name], Ragged):
            assert texts_of(got[name]) == value
        elif isinstance(got[name], np.ndarray):
            assert not got[name].flags.writeable
            assert got[name].tolist() == value
        else:
            assert got[name] == value
            assert type(got[name]) is type(value)
    assert isinstance(got["tokenizer.ggml.tokens"], Ragged)


def test_metadata_types(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    writer = write(path, word="größe", numbers=[1, 2, 3], texts=["", "é", "\x00b"])
    writer.add_bool("flag", True)
    writer.add_float32("float", 0.5)
    writer.add_int64("big", -(2**60))
    writer.add_array("floats", [0.25, 0.5])
    writer.add_array("flags", [True, False])
    finish(writer)
    got = read_metadata(path)
    assert texts_of(got["texts"]) == ["", "é", "\x00b"]
    assert got["word"] == "größe"
    assert (got["flag"], got["float"], got["big"]) == (True, 0.5, -(2**60))
    assert got["numbers"].tolist() == [1, 2, 3]
    assert got["floats"].tolist() == [0.25, 0.5]
    assert got["flags"].tolist() == [True, False]


@pytest.mark.parametrize("code", FORMATS)
def test_tensors_of_every_format(code: int, tmp_path: Path) -> None:
    path, rows, columns = tmp_path / "a.gguf", 5, 512
    width = columns // FORMATS[code].block * FORMATS[code].block_bytes
    data = np.random.default_rng(code).integers(0, 256, (rows, width), dtype=np.uint8)
    writer = write(path)
    writer.add_tensor("first", np.arange(3, dtype=np.float32))
    writer.add_tensor("odd", data, raw_dtype=Type(code))
    finish(writer)
    file = open_gguf(path)
    assert file.names == {"first", "odd"}
    matrix = file.matrix("odd", rows, columns)
    assert (matrix.format, matrix.rows, matrix.columns) == (code, rows, columns)
    assert np.array_equal(matrix.data, data)
    assert not matrix.data.flags.writeable
    assert not matrix.data.flags.owndata  # a view of the file
    assert file.vector("first", 3).tolist() == [0, 1, 2]
    assert file.vector("first", 3).dtype == np.float32


@pytest.mark.parametrize("family", tiny_models.GGUF_FAMILIES)
def test_every_architecture(family: str, tmp_path: Path) -> None:
    model = tiny_models.write_gguf(family, tmp_path / "a.gguf")
    decoder = decoder_from_gguf(tmp_path / "a.gguf")
    config, wanted = decoder.config, model.config
    assert (config.vocabulary, config.width) == (300, wanted.hidden_size)
    assert (config.context, config.heads) == (128, wanted.num_attention_heads)
    assert len(decoder.layers) == wanted.num_hidden_layers
    assert config.rotary_interleaved == (family.startswith(("llama", "mistral")))
    assert decoder.name == f"tiny {family}"
    assert decoder.files == (str(tmp_path / "a.gguf"),)
    assert (decoder.head.weight is decoder.embedding) == wanted.tie_word_embeddings
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    last = decoder.layers[-1]
    if family == "gpt2":
        fused = state["transformer.h.2.attn.c_attn.weight"].T
        bias = state["transformer.h.2.attn.c_attn.bias"]
        for number, part in enumerate((last.query, last.key, last.value)):
            assert np.array_equal(values(part.weight), fused[64 * number : 64 * number + 64])
            assert np.array_equal(part.bias, bias[64 * number : 64 * number + 64])
            assert not part.weight.data.flags.owndata
        assert decoder.positions is not None
        assert np.array_equal(values(decoder.positions), state["transformer.wpe.weight"])
        assert np.array_equal(decoder.final_norm.bias, state["transformer.ln_f.bias"])
        return
    prefix = f"model.layers.{len(decoder.layers) - 1}."
    assert np.array_equal(values(last.down.weight), state[prefix + "mlp.down_proj.weight"])
    assert np.array_equal(values(last.value.weight), state[prefix + "self_attn.v_proj.weight"])
    shift = 1 if family.startswith("gemma") else 0
    assert np.array_equal(decoder.final_norm.weight, state["model.norm.weight"] + shift)
    assert (last.query_norm is not None) == (family in ("qwen3", "gemma3_text"))
    assert (last.query.bias is not None) == (family in ("qwen2", "llama-bias"))
    assert (last.output.bias is not None) == (family == "llama-bias")
    windows = {"mistral": [10] * 3, "gemma2": [10, 0, 10], "gemma3_text": [10] * 5 + [0]}
    assert [layer.window for layer in decoder.layers] == windows.get(
        family, [0] * len(decoder.layers)
    )


def test_llama3_factors_divide_the_frequencies(tmp_path: Path) -> None:
    model = tiny_models.write_gguf("llama-llama3", tmp_path / "a.gguf")
    got = decoder_from_gguf(tmp_path / "a.gguf").layers[0].inverse_frequencies
    np.testing.assert_allclose(got, model.model.rotary_emb.inv_freq.numpy(), rtol=1e-6)


def test_quantized_model_falls_back_where_a_row_does_not_fit(tiny: Path) -> None:
    decoder = decoder_from_gguf(tiny)
    assert {layer.up.weight.format for layer in decoder.layers} == {Type.Q4_1}
    assert decoder.layers[0].attention_norm.weight.shape == (64,)


# What is refused


def test_missing_folder_and_not_gguf(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.gguf does not exist"):
        open_gguf(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="is a folder"):
        open_gguf(tmp_path)
    for content in (
        b"",
        b"GGU",
        b"GGUF",
        b"GGUF\x03\x00",
        b"PK\x03\x04 some zip",
        b"GGML\x03\0\0\0",
    ):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ModelError, match=r"is not a GGUF file|is truncated"):
            open_gguf(tmp_path / "a")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (b"\x01\0\0\0", "version 1; supported are"),
        (b"\x09\0\0\0", "version 9"),
        (b"\0\0\0\x03", "big-endian"),
    ],
)
def test_versions(version: bytes, message: str, tiny: Path, tmp_path: Path) -> None:
    content = tiny.read_bytes()
    (tmp_path / "a.gguf").write_bytes(content[:4] + version + content[8:])
    with pytest.raises(ModelError, match=message):
        open_gguf(tmp_path / "a.gguf")


def test_truncated_anywhere(tiny: Path, tmp_path: Path) -> None:
    content = tiny.read_bytes()
    path = tmp_path / "a.gguf"
    dense = range(0, 400, 7)
    spread = np.linspace(400, len(content) - 1, 150).astype(int).tolist()
    for length in [*dense, *spread]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"truncated|not a GGUF file"):
            open_gguf(path)


@pytest.mark.parametrize("at", [8, 16])
def test_huge_counts(at: int, tiny: Path, tmp_path: Path) -> None:
    content = bytearray(tiny.read_bytes())
    content[at : at + 8] = struct.pack("<Q", 2**62)
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError):
        open_gguf(tmp_path / "a.gguf")


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("key", [b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"])
def test_huge_arrays(key: bytes, length: int, tiny: Path, tmp_path: Path) -> None:
    content = bytearray(tiny.read_bytes())
    at = content.index(key) + len(key) + 8
    content[at : at + 8] = struct.pack("<Q", length)
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="truncated"):
        open_gguf(tmp_path / "a.gguf")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_corruption_is_a_model_error_or_nothing(data: st.DataObject, tiny: Path) -> None:
    content = bytearray(tiny.read_bytes())
    head = content.index(b"blk.2.attn_v.weight") + 64
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, head - 1))
        new = data.draw(st.binary(min_size=1, max_size=9))
        content[at : at + len(new)] = new
    path = tiny.with_name("corrupt.gguf")
    path.write_bytes(content)
    try:  # most changes make the file unfit, some (in a text, in a weight) do not
        decoder = decoder_from_gguf(path)
    except ModelError:
        return
    assert isinstance(decoder, Decoder)


def test_unknown_architecture(tmp_path: Path) -> None:
    finish(write(tmp_path / "a.gguf", "mamba"))
    with pytest.raises(ModelError, match="architecture 'mamba', supported are llama, qwen2"):
        decoder_from_gguf(tmp_path / "a.gguf")


def rewritten(source: Path, target: Path, change: Any) -> Path:
    """Copy a GGUF file; ``change(name, array, type)`` -> the same three, or None to leave out."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        changed = change(name, field.contents(), kind)
        if changed is not None:
            if changed[2] == gguf.GGUFValueType.ARRAY and sub is None:
                sub = gguf.GGUFValueType.INT32
            writer.add_key_value(changed[0], changed[1], changed[2], sub)
    for tensor in reader.tensors:
        changed = change(tensor.name, tensor.data, tensor.tensor_type)
        if changed is not None:
            writer.add_tensor(changed[0], np.array(changed[1]), raw_dtype=changed[2])
    finish(writer)
    return target


@pytest.mark.parametrize(
    ("broken", "replacement", "message"),
    [
        ("blk.1.ffn_up.weight", None, "has no tensor blk.1.ffn_up.weight"),
        ("token_embd.weight", None, "has no tensor token_embd.weight"),
        ("llama.block_count", None, "lacks llama.block_count"),
        ("llama.attention.layer_norm_rms_epsilon", None, "lacks llama.attention.layer_norm"),
        (
            "blk.1.attn_norm.weight",
            ("blk.1.attn_norm.weight", np.zeros(63, np.float32), Type.F32),
            r"blk.1.attn_norm.weight has shape \(63,\), should have \(64,\)",
        ),
        (
            "blk.0.ffn_down.weight",
            ("blk.0.ffn_down.weight", np.zeros((64, 110), np.uint8), Type.Q3_K),
            "blk.0.ffn_down.weight has format Q3_K, supported are F32, F16, Q4_0",
        ),
        (
            "blk.0.attn_q.weight",
            ("blk.0.attn_q.weight", np.zeros((64, 64), np.int8), Type.I8),
            "has format I8",
        ),
        (
            "llama.attention.head_count_kv",
            ("llama.attention.head_count_kv", 3, gguf.GGUFValueType.UINT32),
            "4 heads over 3 key-value heads",
        ),
        (
            "llama.attention.head_count",
            ("llama.attention.head_count", 0, gguf.GGUFValueType.UINT32),
            "head_count is 0, should be an integer from 1",
        ),
        (
            "llama.attention.value_length",
            ("llama.attention.value_length", 8, gguf.GGUFValueType.UINT32),
            "values have 8 entries a head and keys 16",
        ),
        (
            "llama.block_count",
            ("llama.block_count", 2, gguf.GGUFValueType.UINT32),
            "9 tensors that llama has no use for: blk.2",
        ),
        (
            "llama.block_count",
            ("llama.block_count", 2**31 - 1, gguf.GGUFValueType.UINT32),
            "has no tensor blk.3.",
        ),
        (
            "llama.rope.freq_base",
            ("llama.rope.scaling.type", "longrope", gguf.GGUFValueType.STRING),
            "'longrope' is not supported",
        ),
    ],
)
def test_refused(broken: str, replacement: Any, message: str, tmp_path: Path, tiny: Path) -> None:
    def change(name: str, value: Any, kind: Any) -> Any:
        if kind == Type.Q3_K:
            return None
        return replacement if name == broken else (name, value, kind)

    path = rewritten(tiny, tmp_path / "a.gguf", change)
    with pytest.raises(ModelError, match=message):
        decoder_from_gguf(path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([2, 2, 2], ""),
        ([2, 1, 2], r"head_count_kv is array\(\[2, 1, 2\].*should be an integer"),
        (None, r"attn_k.weight has shape \(32, 64\), should have \(64, 64\)"),
    ],
)
def test_heads_given_for_each_layer(
    counts: list[int] | None, message: str, tiny: Path, tmp_path: Path
) -> None:
    def change(name: str, value: Any, kind: Any) -> Any:
        if name != "llama.attention.head_count_kv":
            return name, value, kind
        return counts and (name, counts, gguf.GGUFValueType.ARRAY)

    path = rewritten(tiny, tmp_path / "a.gguf", change)
    if message:
        with pytest.raises(ModelError, match=message):
            decoder_from_gguf(path)
    else:
        assert decoder_from_gguf(path).config.kv_heads == 2
