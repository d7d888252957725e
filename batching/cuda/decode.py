"""Steps that give each of some sequences one token, without waiting for the host in between.

Tokens, positions and sampling parameters stay on the GPU; a step reads the tokens that the step
before drew. The kernels of a step are captured as a CUDA graph for each size of batch (a power of
two), so that the host starts them with one call. The host reads a step's tokens while the next one
runs.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np

from numbatch.batching.cuda.forward import CudaForward
from numbatch.batching.cuda.sampler import CudaSampler, SamplingRows, histories
from numbatch.batching.cuda.workspace import StepInputs, Workspace
from numbatch.batching.sequence import Sequence
from numbatch.kernels.cuda import Download, Gpu, is_simulated
from numbatch.kernels.scoring.cuda.sampling import PARAMETERS, RECORD, WHOLE

__all__ = ["Decode"]


class Decode:
    """Runs decode steps for up to ``max_sequences`` sequences.

    Parameters
    ----------
    gpu : Gpu
    forward : CudaForward
    sampler : CudaSampler
    max_sequences : int

    Attributes
    ----------
    wanted : int
        How many of the likeliest tokens the records of the present run hold.
    """

    def __init__(
        self, gpu: Gpu, forward: CudaForward, sampler: CudaSampler, max_sequences: int
    ) -> None:
        self._gpu, self._forward, self._sampler = gpu, forward, sampler
        self._max = max_sequences
        self.wanted = 0
        self._space: Workspace | None = None
        self._graphs: dict[tuple[Any, ...], Any] = {}
        self._pending: list[Download] = []
        self._state: list[tuple[int, int]] = []  # arrivals and lengths at the last begin()
        self._launched = 0

    def _open(self) -> None:
        """Allocate the memory of all steps, at the first."""
        gpu, forward, n = self._gpu, self._forward, self._max
        self._inputs = StepInputs(gpu, n, n, forward.blocks)
        ones = np.ones(n)
        self._inputs.write(
            rows=np.arange(n), singles=np.arange(n), tile_rows=np.arange(n),
            tile_tokens=np.arange(n), tile_counts=ones, positions=-ones,
        )  # fmt: skip
        self._logits = gpu.empty((n, self._sampler.vocabulary), np.float32)
        self._parts = self._sampler.parts(n)
        self._parameters = gpu.zeros((n, len(PARAMETERS)), np.float64)
        self._whole = gpu.zeros((n, len(WHOLE)), np.int64)
        self._stops = gpu.zeros((n, 1), np.int32)
        self._history = self._counts = gpu.zeros((1, 1), np.int32)
        self._record = gpu.zeros((n, RECORD), np.int32)
        self._space = forward.new_workspace(n)

    def begin(self, sequences: Rows[Sequence], steps: int) -> None:
        """Copy the state of sequences to the GPU; each is one token behind.

        Parameters
        ----------
        sequences : sequence of Sequence
            They hold the blocks for ``steps`` more tokens.
        steps : int
        """
        self._gpu.use()
        if self._space is None:
            self._open()
        n = len(sequences)
        self._sequences, self._bucket = n, min(self._max, 1 << (n - 1).bit_length())
        state = [(sequence.arrival, sequence.length) for sequence in sequences]
        # Where the same sequences go on, the GPU has all of their state but new blocks.
        if state != [(arrival, length + self._launched) for arrival, length in self._state]:
            self._state = []  # in case there is no memory for it
            self._write_state(sequences)
        self._state, self._launched = state, 0
        tables = np.zeros((self._bucket, self._forward.blocks), np.int32)
        for i, sequence in enumerate(sequences):
            tables[i, : len(sequence.blocks)] = sequence.blocks
        self._inputs.write(tables=tables)
        length = max(sequence.length for sequence in sequences) - 1 + steps
        self._plan = self._forward.attention.single_plan(self._bucket, length)
        if self._plan.parts:
            self._forward.attention.scratch(self._bucket, self._plan.parts)

    def _write_state(self, sequences: Rows[Sequence]) -> None:
        gpu, n = self._gpu, len(sequences)
        rows = SamplingRows.of(sequences, self._sampler.seed, self._sampler.eos_ids)
        self._fit(rows)
        positions = np.full(self._bucket, -1, np.int32)
        tokens = np.zeros(self._bucket, np.int32)
        for i, sequence in enumerate(sequences):
            positions[i], tokens[i] = sequence.length - 1, sequence.tokens[sequence.length - 1]
        self._inputs.write(positions=positions, tokens=tokens)
        gpu.write(self._parameters, rows.parameters)
        gpu.write(self._whole, rows.whole)
        stops = np.full((n, self._stops.shape[1]), -1, np.int32)
        stops[:, : rows.stops.shape[1]] = rows.stops
        gpu.write(self._stops, stops)
        if rows.has_history:
            gpu.write(self._history, histories(sequences, self._forward.context))
        self._has_history = rows.has_history

    def _fit(self, rows: SamplingRows) -> None:
        """Make room for as many stop tokens, likeliest tokens and as much history as are asked."""
        gpu, n = self._gpu, self._max
        self.wanted = rows.wanted
        if rows.stops.shape[1] > self._stops.shape[1]:
            self._stops = gpu.zeros((n, rows.stops.shape[1]), np.int32)
            self._graphs.clear()
        if RECORD + 2 * rows.wanted != self._record.shape[1]:
            self._record = gpu.zeros((n, RECORD + 2 * rows.wanted), np.int32)
            self._graphs.clear()
        if rows.has_history and self._history.shape[0] < n:
            self._history = gpu.zeros((n, self._forward.context), np.int32)
            self._counts = self._sampler.counts(n)
            self._graphs.clear()

    def launch(self) -> None:
        """Start a step; its record can be waited for in the order of the launches."""
        key = (self._bucket, self._plan, self.wanted, self._has_history)
        state = self._graphs.get(key)
        if state is None or is_simulated():
            self._start_kernels()  # compiles them, which cannot be done while they are captured
            self._graphs[key] = "compiled"
        else:
            if isinstance(state, str):
                state = self._graphs[key] = self._capture()
            state.launch(self._gpu.stream)
        self._launched += 1
        self._pending.append(self._gpu.begin_download(self._record, self._sequences))

    def _start_kernels(self) -> None:
        n, space = self._bucket, self._space
        if space is None:
            raise ValueError("begin() must come before launch()")
        forward, sampler = self._forward, self._sampler
        forward.step(n, space, self._inputs, self._plan, self._logits)
        sampler.start(
            n, self._logits, self._parts, self._parameters, self._whole, self._stops, self._counts,
            self._history, self._has_history, self._inputs.tokens, self._inputs.positions,
            self.wanted, self._record,
        )  # fmt: skip

    def _capture(self) -> Any:
        stream = self._gpu.stream
        stream.begin_capture()
        try:
            with self._gpu.overlapping():
                self._start_kernels()
        except BaseException:
            stream.end_capture()
            raise
        return stream.end_capture()

    def wait(self) -> np.ndarray:
        """Return the record of the oldest step that was not waited for.

        Raises
        ------
        DeviceError
            If a kernel failed.
        """
        return self._pending.pop(0).wait()
