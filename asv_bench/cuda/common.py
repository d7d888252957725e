"""Models of real shapes with random weights, timing, and the machine's limits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from numbatch.kernels.scoring import formats
from numbatch.models.decoder import Decoder, DecoderConfig, Layer, Linear, Matrix, Norm
from numbatch.models.load import LoadedModel

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "layers": 16, "width": 2048, "inner": 8192, "heads": 32, "kv_heads": 8, "head_size": 64,
        "tied": True,
    },
    "8B": {
        "layers": 32, "width": 4096, "inner": 14336, "heads": 32, "kv_heads": 8, "head_size": 128,
        "tied": False,
    },
}  # fmt: skip
"""Llama-3.2-1B and Llama-3.1-8B."""

VOCABULARY, CONTEXT, THETA = 128256, 4096, 500000.0


class NoTokenizer:
    """Stands for a tokenizer where requests are token ids and nobody reads the text."""

    eos_ids: tuple[int, ...] = ()

    def stream_decoder(self, **_: Any) -> Any:
        """Return a decoder that says nothing."""
        return _Silent()


class _Silent:
    def push(self, _: int) -> str:
        return ""

    def flush(self) -> str:
        return ""

    def decode(self, *_: Any) -> str:
        return ""


@functools.cache
def _noise() -> np.ndarray:
    """128 million bfloat16 numbers of standard deviation 0.02, as bits."""
    values = np.random.default_rng(0).standard_normal(1 << 27, np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _matrix(rows: int, columns: int, number: int) -> Matrix:
    """Return a matrix of noise; matrices begin at different places of it."""
    noise, size = _noise(), rows * columns
    begin = (number * 7_654_321) % (len(noise) // 4) & ~7
    data = noise[begin : begin + size] if size <= len(noise) - begin else np.resize(noise, size)
    return Matrix(data.reshape(rows, columns).view(np.uint8), formats.BF16, columns)


def _quantized(matrix: Matrix) -> Matrix:
    """Return random weights of the same shape as Q4_0."""
    count = matrix.rows * matrix.columns // 32
    noise = _noise().view(np.uint8)
    # np.resize copies all of the noise, which took longer than all else of a model of this size.
    is_enough = noise.size >= 18 * count
    blocks = noise[: 18 * count].copy() if is_enough else np.resize(noise, 18 * count)
    blocks = blocks.reshape(count, 18)
    blocks[:, :2] = np.array([0.005], np.float16).view(np.uint8)
    return Matrix(blocks.reshape(matrix.rows, -1), formats.Q4_0, matrix.columns)


def model(name: str, *, bits: int = 16) -> LoadedModel:
    """Return a model of a real shape with random weights, bfloat16 or 4-bit."""
    shape = SHAPES[name]
    width, inner, size = shape["width"], shape["inner"], shape["head_size"]
    heads, kv = shape["heads"] * size, shape["kv_heads"] * size
    numbers = iter(range(10**6))

    def linear(rows: int, columns: int) -> Linear:
        matrix = _matrix(rows, columns, next(numbers))
        return Linear(_quantized(matrix) if bits == 4 else matrix)

    norm = Norm(np.ones(width, np.float32))
    angles = THETA ** (-np.arange(0, size, 2) / size)
    layers = tuple(
        Layer(
            attention_norm=norm, query=linear(heads, width), key=linear(kv, width),
            value=linear(kv, width), output=linear(width, heads), mlp_norm=norm,
            up=linear(inner, width), down=linear(width, inner), gate=linear(inner, width),
            inverse_frequencies=angles.astype(np.float32),
        )
        for _ in range(shape["layers"])
    )  # fmt: skip
    config = DecoderConfig(
        "llama", VOCABULARY, width, shape["heads"], shape["kv_heads"], size, CONTEXT,
        attention_scale=size**-0.5,
    )  # fmt: skip
    embedding = _matrix(VOCABULARY, width, 99)
    head = Linear(embedding) if shape["tied"] and bits == 16 else linear(VOCABULARY, width)
    decoder = Decoder(config, embedding, layers, norm, head, name=name)
    return LoadedModel(decoder, NoTokenizer(), frozenset(), Path(name))  # type: ignore[arg-type]


def weights_of(loaded: LoadedModel) -> int:
    """Return how many weights a token meets, the embedding's row aside."""
    decoder = loaded.decoder
    linears = [
        linear.weight
        for layer in decoder.layers
        for linear in (layer.query, layer.key, layer.value, layer.output, layer.gate, layer.up,
                       layer.down)
        if linear is not None
    ]  # fmt: skip
    return sum(each.rows * each.columns for each in [*linears, decoder.head.weight])


def torch_model(name: str, loaded: LoadedModel | None = None, **options: Any) -> Any:
    """Return transformers' model of a shape on the GPU, with the weights of ``loaded``."""
    import torch
    import transformers

    shape = SHAPES[name]
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=shape["width"], intermediate_size=shape["inner"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"], head_dim=shape["head_size"],
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=shape["tied"],
        rope_parameters={"rope_type": "default", "rope_theta": THETA}, **options,
    )  # fmt: skip
    config._attn_implementation = options.get("attn_implementation", "sdpa")
    with torch.device("meta"):
        found = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    found = found.to_empty(device="cuda").eval()
    rotary = found.model.rotary_emb
    found.model.rotary_emb = type(rotary)(config).to("cuda")
    found.tie_weights()
    with torch.no_grad():
        for parameter_name, parameter in found.named_parameters():
            if loaded is None:
                parameter.normal_(0, 0.02)
            else:
                _copy(parameter, _weight(loaded.decoder, parameter_name))
    return found


def _weight(decoder: Decoder, name: str) -> np.ndarray:
    parts = {
        "q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output",
        "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
        "input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm",
    }  # fmt: skip
    if "embed_tokens" in name:
        return decoder.embedding.data
    if "lm_head" in name:
        return decoder.head.weight.data
    if name == "model.norm.weight":
        return decoder.final_norm.weight
    layer = decoder.layers[int(name.split(".")[2])]
    part = getattr(layer, parts[name.split(".")[-2]])
    return part.weight.data if isinstance(part, Linear) else part.weight


def _copy(parameter: Any, values: np.ndarray) -> None:
    import torch

    if values.dtype == np.uint8:
        bits = torch.from_numpy(values.view(np.int16).copy())
        parameter.copy_(bits.view(torch.bfloat16).reshape(parameter.shape))
    else:
        parameter.copy_(torch.from_numpy(np.array(values)))


def seconds_of(action: Any, stream: Any = None, repeats: int = 5, warm: int = 1) -> float:
    """Return the median seconds of an action on the GPU, by events on a CuPy stream."""
    stream = stream or cupy.cuda.get_current_stream()
    for _ in range(warm):
        action()
    times = []
    for _ in range(repeats):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(stream)
        action()
        end.record(stream)
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) / 1000)
    return float(np.median(times))


@functools.cache
def copy_bandwidth() -> float:
    """Bytes a second that a large copy on the device reads and writes."""
    import torch

    source = torch.empty(2**31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * 2**31 / torch_seconds(lambda: target.copy_(source))


@functools.cache
def matrix_rate() -> float:
    """Operations a second of a large bfloat16 matrix product on random numbers."""
    import torch

    a, b = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / torch_seconds(lambda: a @ b, repeats=10)


def torch_seconds(action: Any, repeats: int = 5, warm: int = 2) -> float:
    """Return the median seconds of an action of torch's on the GPU."""
    import torch

    for _ in range(warm):
        action()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        action()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return float(np.median(times))


def limits() -> str:
    """Describe the device and its limits."""
    import torch

    return (
        f"{torch.cuda.get_device_name()}: copy {copy_bandwidth() / 1e12:.2f} TB/s, "
        f"bfloat16 product {matrix_rate() / 1e12:.0f} TFLOP/s"
    )


def row(name: str, *cells: str) -> None:
    """Print a row of the table."""
    print(f"| {name:46} | " + " | ".join(f"{cell:>14}" for cell in cells) + " |", flush=True)
