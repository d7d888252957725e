"""llama.cpp at its best: its C interface, batches of sequences, weights in several formats.

The functions of llama-cpp-python's ``llama_cpp.llama_cpp`` are those of C; ``llama_batch`` takes
tokens of several sequences, which its ``Llama`` class does not. What Python adds to a call is the
fill of a batch through NumPy views and one ``argmax`` over the rows of logits. But for
``use_extra_bufts`` everything is at its defaults: flash attention (without it all was slower by 15
to 45 % with every file), keys and values in float16.

Compiled by GCC 12.2, llama.cpp dies where it sets up AMX: the compiler drops the stores of the
tiles' shapes before the instruction that reads them. Without that pass of the compiler it lives,
two to four times as fast::

    CMAKE_ARGS="-DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'" \
        python -m pip install --no-binary llama-cpp-python llama-cpp-python
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Llama", "Setting", "logprobs", "quantized_files", "running_llama"]

BATCH = 512
"""Tokens in a call; llama.cpp's own micro-batch has as many."""

SHORT = 64
"""Tokens that there is room for in each text that is generated."""

ROWS = 32
"""Rows of logits that are turned into log-probabilities at a time: they stay in a cache."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A file and how llama.cpp runs it.

    Parameters
    ----------
    path : Path or str
    file : str
        The weights' format, as it is printed.
    repacked : bool
        Weights are repacked at load for the CPU's best instructions, AMX where there is
        (``use_extra_bufts``).
    """

    path: Path | str
    file: str
    repacked: bool

    @property
    def name(self) -> str:
        """What a table says."""
        return f"{self.file}, {'repacked' if self.repacked else 'not repacked'}"


@cache
def _low() -> Any:
    from llama_cpp import llama_cpp as low

    low.llama_backend_init()

    @low.llama_log_callback
    def silent(level: int, text: bytes, data: Any) -> None:
        """Print nothing."""

    low.llama_log_set(silent, None)
    low.kept_callback = silent
    return low


def quantized_files(path: Path, folder: Path, threads: int) -> dict[str, Path]:
    """Return the model's own file and, made from it by llama.cpp, one in Q4_0 and one in Q8_0."""
    low, files = _low(), {path.stem.rpartition(".")[2]: path}
    for name in ("Q4_0", "Q8_0"):
        if name in files:
            continue
        params = low.llama_model_quantize_default_params()
        params.ftype = getattr(low, f"LLAMA_FTYPE_MOSTLY_{name}")
        params.allow_requantize, params.nthread = True, threads
        made = folder / f"{name}.gguf"
        status = low.llama_model_quantize(
            str(path).encode(), str(made).encode(), ctypes.byref(params)
        )
        if status:
            raise RuntimeError(f"llama.cpp cannot quantize {path} to {name}: status {status}")
        files[name] = made
    return files


class _Context:
    """Keys and values of so many texts of up to so many tokens, and a batch to hand over tokens."""

    def __init__(self, model: Any, threads: int, texts: int, tokens: int) -> None:
        low = self._c = _low()
        params = low.llama_context_default_params()
        params.n_ctx, params.n_seq_max = texts * tokens, texts
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        self._context = low.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {texts} x {tokens} tokens")
        self._memory = low.llama_get_memory(self._context)
        self._vocabulary = low.llama_vocab_n_tokens(low.llama_model_get_vocab(model))
        batch = self._batch = low.llama_batch_init(BATCH, 0, 1)
        self._token, self._position, self._wanted, counts = (
            np.ctypeslib.as_array(field, (BATCH,))
            for field in (batch.token, batch.pos, batch.logits, batch.n_seq_id)
        )
        counts[:] = 1
        self._text = [np.ctypeslib.as_array(batch.seq_id[i], (1,)) for i in range(BATCH)]

    def clear(self) -> None:
        """Forget all texts."""
        self._c.llama_memory_clear(self._memory, False)

    def decode(self, tokens: np.ndarray, begin: int, *, all_logits: bool = False) -> np.ndarray:
        """Run tokens ``begin`` on of each text; return the logits of the last ones, or of all.

        The logits are llama.cpp's memory, valid until the next call.
        """
        rows, length = tokens.shape
        n = self._batch.n_tokens = rows * length
        self._token[:n] = tokens.ravel()
        self._position[:n] = np.tile(np.arange(begin, begin + length), rows)
        self._wanted[:n] = all_logits
        self._wanted[length - 1 : n : length] = 1
        for i in range(n):
            self._text[i][0] = i // length
        status = self._c.llama_decode(self._context, self._batch)
        if status:
            raise RuntimeError(f"llama_decode failed with status {status}")
        shape = (n if all_logits else rows, self._vocabulary)
        return np.ctypeslib.as_array(self._c.llama_get_logits(self._context), shape)

    def close(self) -> None:
        """Give the memory back."""
        self._c.llama_batch_free(self._batch)
        self._c.llama_free(self._context)


class Llama:
    """A model in llama.cpp: texts of up to ``BATCH`` tokens, or many short ones together."""

    def __init__(
        self, setting: Setting, threads: int, writers: tuple[int, ...] = (1, 8, 32)
    ) -> None:
        self.setting, self.name, self._c = setting, f"llama.cpp {setting.name}", _low()
        params = self._c.llama_model_default_params()
        params.use_extra_bufts = setting.repacked
        self._model = self._c.llama_model_load_from_file(str(setting.path).encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {setting.path}")
        # One for each number of texts, since memory for texts that are not there costs time.
        self._writers = {n: _Context(self._model, threads, n, SHORT) for n in writers}
        self._threads = threads
        self._scorer: _Context | None = None

    def close(self) -> None:
        """Give the memory back."""
        for context in (*self._writers.values(), self._scorer):
            if context is not None:
                context.close()
        self._c.llama_model_free(self._model)

    def tokens(self, text: str) -> np.ndarray:
        """Return a text's tokens."""
        vocabulary, out = self._c.llama_model_get_vocab(self._model), (ctypes.c_int32 * BATCH)()
        encoded = text.encode()
        n = self._c.llama_tokenize(vocabulary, encoded, len(encoded), out, BATCH, True, False)
        return np.array(out[:n])

    def score(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Return log-probabilities of all tokens but each row's first: whole rows in a call."""
        at_once, found = max(1, min(2, BATCH // tokens.shape[1])), []
        if self._scorer is None:
            self._scorer = _Context(self._model, self._threads, 2, BATCH)
        for low in range(0, len(tokens), at_once):
            part = tokens[low : low + at_once]
            self._scorer.clear()
            logits = self._scorer.decode(part, 0, all_logits=True).reshape(*part.shape, -1)
            for row, own in zip(part, logits, strict=True):
                found.append(logprobs(own[:-1], row[1:]))
        return found

    def generate(self, tokens: np.ndarray, count: int) -> np.ndarray:
        """Return the likeliest ``count`` tokens after each row, a token of each row in a call."""
        writer, length = self._writers[len(tokens)], tokens.shape[1]
        writer.clear()
        drawn = [writer.decode(tokens, 0).argmax(axis=1)]
        for step in range(1, count):
            logits = writer.decode(drawn[-1][:, None], length + step - 1)
            drawn.append(logits.argmax(axis=1))
        return np.stack(drawn, axis=1)


def running_llama(setting: Setting, threads: int) -> Llama:
    """Return a model that has generated: where llama.cpp dies of its weights, it does so here."""
    llama = Llama(setting, threads)
    llama.generate(np.arange(100, 108)[None], 1)
    return llama


def logprobs(logits: Any, targets: np.ndarray) -> np.ndarray:
    """Return the targets' log-probabilities in float32, by torch's log-sum-exp on its threads.

    Parameters
    ----------
    logits : array or tensor, shape (n, vocabulary)
    targets : int64 array, shape (n,)
    """
    import torch

    found = []
    for rows, chosen in zip(
        torch.as_tensor(logits).split(ROWS), torch.from_numpy(targets).split(ROWS), strict=True
    ):
        numbers = rows.float()
        found.append(numbers.gather(-1, chosen[:, None])[:, 0] - torch.logsumexp(numbers, -1))
    return torch.cat(found).numpy()
