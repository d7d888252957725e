"""Texts on a GPU to ids on the GPU, where a tokenizer's parts allow it; else by way of the host."""

from __future__ import annotations

import functools
import threading
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

from numbatch.kernels.cuda import Gpu
from numbatch.kernels.device_arrays import blocks_for, device_vector, gpu_of, threads_of
from numbatch.kernels.ragged import Ragged
from numbatch.kernels.tokenization.composition import composition_table
from numbatch.kernels.tokenization.cuda.checks import (
    count_literals,
    count_unsure,
    insert_start,
)
from numbatch.kernels.tokenization.cuda.encoder import DeviceEncoder
from numbatch.kernels.tokenization.literals import longest_by_first_byte
from numbatch.kernels.tokenization.merge import MergeTables
from numbatch.kernels.tokenization.tables import build_string_table
from numbatch.models.tokenizers.split_families import compiled_rules
from numbatch.models.tokenizers.text_pipeline import TextPipeline

__all__ = ["DevicePipeline"]

THREADS = threads_of(256, 8)


class DevicePipeline:
    """Encodes texts where they lie; one for a tokenizer, whatever GPUs there are."""

    def __init__(self, pipeline: TextPipeline, tables: MergeTables) -> None:
        self._pipeline, self._tables = pipeline, tables
        self._rules = compiled_rules(pipeline.splitter)
        normalizer = pipeline.normalizer
        self._nfc = (
            isinstance(normalizer, functools.partial)
            and normalizer.func is unicodedata.normalize
            and normalizer.args == ("NFC",)
        )
        self._serves = self._rules is not None and (normalizer is None or self._nfc)
        self._encoders: dict[int, DeviceEncoder | None] = {}
        self._composition: dict[int, Any] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Give back the memory that calls share."""
        for encoder in self._encoders.values():
            if encoder is not None:
                encoder.clear()

    def encode(
        self,
        texts: Ragged,
        start: int | None,
        literals: list[str],
        on_host: Callable[[Ragged], Ragged],
    ) -> Ragged:
        """Return the ids of texts on a GPU, on the GPU.

        Parameters
        ----------
        texts : Ragged of uint8
        start : int or None
            The id that each text begins with.
        literals : list of str
            Tokens that must not be in a text, or be found there before anything else.
        on_host : callable
            Encodes texts on the host, with the start and the literals. It is asked where a text
            holds one of them, is no UTF-8, or may be changed by the normalizer, and where the
            tokenizer's kind has no kernels.
        """
        gpu = gpu_of(texts.values, "values")
        encoder = self._encoder_on(gpu)
        ids = None
        if encoder is not None and self._is_plain(gpu, texts, literals):
            ids = encoder.encode(texts)
        if ids is None:
            return on_host(texts.to_host()).to_device(gpu)
        return ids if start is None else _with_start(gpu, ids, start)

    def _encoder_on(self, gpu: Gpu) -> DeviceEncoder | None:
        with self._lock:
            if gpu.number not in self._encoders:
                built = None
                if self._serves and self._rules is not None:
                    built = DeviceEncoder.build(gpu, self._tables, self._rules)
                self._encoders[gpu.number] = built
            return self._encoders[gpu.number]

    def _is_plain(self, gpu: Gpu, texts: Ragged, literals: list[str]) -> bool:
        """Return whether the texts hold nothing that the kernels do not know."""
        if not literals and not self._nfc:
            return True
        text = device_vector(texts.values, "values", gpu, ("uint8",))
        counters = gpu.upload(np.zeros(1, np.int64))
        blocks = blocks_for(text.size, THREADS)
        if literals:
            rows = Ragged.from_rows(
                [np.frombuffer(name.encode(), np.uint8) for name in dict.fromkeys(literals)],
                np.uint8,
            )
            table, _ = build_string_table(rows, np.arange(len(rows)))
            gpu.launch(
                count_literals, blocks, THREADS, text, text.size,
                gpu.upload(longest_by_first_byte(table)), *map(gpu.upload, table), counters,
            )  # fmt: skip
        if self._nfc:
            if gpu.number not in self._composition:
                self._composition[gpu.number] = gpu.upload(composition_table())
            table = self._composition[gpu.number]
            gpu.launch(count_unsure, blocks, THREADS, text, text.size, table, counters)
        return not gpu.download(counters)[0]


def _with_start(gpu: Gpu, ids: Ragged, start: int) -> Ragged:
    rows = len(ids)
    values = gpu.empty(ids.values.size + rows, np.uint32)
    offsets = gpu.zeros(rows + 1, np.int64)
    gpu.launch(insert_start, rows, THREADS, ids.values, ids.offsets, start, values, offsets)
    gpu.synchronize()
    return Ragged(values, offsets)
