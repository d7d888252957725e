"""The forward pass on a GPU: weights and activations in bfloat16, sums and residual in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.cuda.attention import Attention
from numbatch.batching.cuda.products import Products
from numbatch.batching.cuda.single import SingleStep, fits_single
from numbatch.batching.cuda.target_scorer import Scores, TargetScorer
from numbatch.batching.cuda.weights import DeviceLayer, DeviceNorm, DeviceWeights
from numbatch.batching.cuda.workspace import StepInputs, Workspace, block_threads
from numbatch.batching.forward import Batch
from numbatch.batching.kv_pool import KVPool
from numbatch.kernels.cuda import LANES, Gpu, is_simulated
from numbatch.kernels.scoring.activation import ACTIVATIONS
from numbatch.kernels.scoring.cuda import activation, heads, norms, rows
from numbatch.kernels.scoring.cuda.results import ADD, GATED, LOGITS, STORE
from numbatch.kernels.threads import ThreadTeam
from numbatch.models.decoder import Decoder

__all__ = ["CudaForward", "HiddenStates"]

ROW_THREADS = 512
"""Threads that work on one row between two products."""

WARPS_OF_HEADS = 8

HEAD_THREADS = 384
"""Threads that rotate and store the heads of a token."""

SMALLEST = 64
"""Tokens that buffers are made for at least."""


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """Rows of the hidden states of a step, on the device: all, or those at ``places``."""

    places: np.ndarray

    def __getitem__(self, chosen: Any) -> HiddenStates:
        """Return some of the rows."""
        return HiddenStates(self.places[chosen])

    def __len__(self) -> int:
        """How many rows."""
        return len(self.places)


class CudaForward:
    """Runs batches of up to ``max_tokens`` tokens on a GPU.

    Parameters
    ----------
    gpu : Gpu
    decoder : Decoder
    weights : DeviceWeights
    pool : KVPool
        Its cache lies on the GPU.
    max_tokens, max_sequences : int
        The largest step.
    context : int
        The longest sequence, in tokens.
    invariant : bool
        Whether a token's bits must not depend on what else is in a step.
    """

    def __init__(
        self,
        gpu: Gpu,
        decoder: Decoder,
        weights: DeviceWeights,
        pool: KVPool,
        max_tokens: int,
        max_sequences: int,
        context: int,
        *,
        invariant: bool = False,
    ) -> None:
        self.gpu, self.decoder, self.weights, self.pool = gpu, decoder, weights, pool
        self.team = ThreadTeam(1)  # what sizes are estimated with asks for it
        self.max_tokens, self.max_sequences, self.context = max_tokens, max_sequences, context
        config = decoder.config
        self.products = Products(gpu, weights, invariant=invariant)
        self.attention = Attention(gpu, config, pool, invariant=invariant)
        self.blocks = pool.blocks_for(context)
        self.smallest = SMALLEST
        self.inputs = StepInputs(gpu, max_tokens, max_sequences, self.blocks)
        self._workspace: Workspace | None = None
        self._angles = [self._rotary_tables(each) for each in weights.frequencies]
        self._nowhere = gpu.zeros(0, np.int32)
        self._target_scorer = TargetScorer(gpu, config, weights.head, self.products, max_tokens)
        self._is_single = not (invariant or is_simulated()) and fits_single(self)
        self._single: SingleStep | None = None

    def _rotary_tables(self, frequencies: np.ndarray) -> tuple[Any, Any]:
        """Return cosine and sine for every position: float32, shape (context, pairs)."""
        positions = np.arange(self.context, dtype=np.float32)
        angles = (positions[:, None] * frequencies[None]).astype(np.float64)
        magnitude = self.decoder.config.rotary_magnitude
        cosine, sine = (
            self.gpu.upload((turn(angles) * magnitude).astype(np.float32))
            for turn in (np.cos, np.sin)
        )
        return cosine, sine

    def workspace(self, tokens: int) -> Workspace:
        """Return buffers for so many tokens; MemoryError if there is no memory for them."""
        if self._workspace is None or self._workspace.capacity < tokens:
            capacity = min(self.max_tokens, max(self.smallest, 1 << (tokens - 1).bit_length()))
            self._workspace = None
            self._workspace = self.new_workspace(max(capacity, tokens))
        return self._workspace

    def new_workspace(self, tokens: int) -> Workspace:
        """Allocate buffers for so many tokens."""
        return Workspace(self.gpu, self.decoder.config, self.weights, tokens)

    def run(self, batch: Batch) -> HiddenStates:
        """Run the layers over a batch.

        Returns
        -------
        HiddenStates
            Valid until the next call.
        """
        self.gpu.use()
        n = len(batch.tokens)
        space = self.workspace(n)
        tables = np.zeros((len(batch.tables), self.blocks), np.int32)
        width = min(self.blocks, batch.tables.shape[1])
        tables[:, :width] = batch.tables[:, :width]
        self.inputs.write(
            tokens=batch.tokens, positions=batch.positions, rows=batch.rows, tables=tables
        )
        plan = self.attention.plan(batch, self.inputs)
        self.layers(n, space, self.inputs, plan)
        return HiddenStates(np.arange(n))

    def layers(self, n: int, space: Workspace, inputs: StepInputs, plan: Any) -> None:
        """Start the kernels of all layers; the result is ``space.hidden``."""
        self._embed(n, space, inputs)
        for number, layer in enumerate(self.weights.layers):
            self._attend(number, layer, n, space, inputs, plan)
            self._mlp(layer, n, space)

    def step(self, n: int, space: Workspace, inputs: StepInputs, plan: Any, out: Any) -> None:
        """Start the kernels of a step of one token a sequence; ``out`` gets the logits."""
        if n == 1 and self._is_single:
            if self._single is None:
                self._single = SingleStep(self)
            self._embed(n, space, inputs)
            self._single.start(space, inputs, plan, out)
            return
        self.layers(n, space, inputs, plan)
        self.norm(self.weights.final_norm, space.hidden, n, space.normed)
        self.head(space, n, out)

    def _embed(self, n: int, space: Workspace, inputs: StepInputs) -> None:
        config, gpu, weights = self.decoder.config, self.gpu, self.weights
        places = weights.none16 if weights.positions is None else weights.positions.words
        gpu.launch(
            rows.embed, n, block_threads(ROW_THREADS), inputs.tokens, inputs.positions,
            weights.embedding.words, np.float32(config.embedding_scale), places,
            weights.positions is not None, config.width, space.hidden,
        )  # fmt: skip

    def _attend(
        self, number: int, layer: DeviceLayer, n: int, space: Workspace, inputs: StepInputs,
        plan: Any,
    ) -> None:  # fmt: skip
        self.norm(layer.attention_norm, space.hidden, n, space.normed)
        self.products.run(layer.attention_inputs, space.normed, n, space.inputs, mode=STORE)
        self.mix(number, layer, n, space, inputs, plan)
        self._add(layer.output, space.attended, layer.post_attention_norm, n, space)

    def mix(
        self, number: int, layer: DeviceLayer, n: int, space: Workspace, inputs: StepInputs,
        plan: Any,
    ) -> None:  # fmt: skip
        """Attend, from ``space.inputs`` to ``space.attended``."""
        if self._is_turned_whole(layer, space) and self.attention.fits_step(plan):
            angles = self._angles[layer.rotary]
            self.attention.run_step(
                plan, space.inputs, angles, inputs, 2 * number, layer.window, space.attended
            )
            return
        self._prepare_heads(number, layer, n, space, inputs)
        self.attention.run(plan, space.q, inputs, 2 * number, layer.window, space.attended)

    def _is_turned_whole(self, layer: DeviceLayer, space: Workspace) -> bool:
        """Whether nothing but a rotation of whole heads, in halves, comes before attention."""
        config, pairs = self.decoder.config, self._angles[layer.rotary][0].shape[1]
        is_bare = not (layer.attention_inputs.has_bias or layer.query_norm.size)
        is_whole = not config.rotary_interleaved
        is_whole = is_whole and 2 * pairs == config.head_size == space.q.shape[2]
        return is_bare and is_whole and pairs % 8 == 0

    def _prepare_heads(
        self, number: int, layer: DeviceLayer, n: int, space: Workspace, inputs: StepInputs
    ) -> None:
        """Rotate queries and keys, and store keys and values in the cache."""
        config = self.decoder.config
        cosine, sine = self._angles[layer.rotary]
        if self._is_turned_whole(layer, space):
            self.gpu.launch(
                heads.prepare_heads_words, n, block_threads(HEAD_THREADS), space.inputs, cosine,
                sine, inputs.positions, inputs.rows, inputs.tables, 2 * number, space.q,
                self.pool.cache,
            )  # fmt: skip
            return
        warps = block_threads(WARPS_OF_HEADS)
        total = config.heads + 2 * config.kv_heads
        self.gpu.launch(
            heads.prepare_heads, (n, -(-total // warps)), (LANES, warps), space.inputs,
            layer.attention_inputs.bias, layer.query_norm, layer.key_norm,
            np.float32(config.norm_epsilon), cosine, sine, config.rotary_interleaved,
            inputs.positions, inputs.rows, inputs.tables, 2 * number, config.head_size, space.q,
            self.pool.cache,
        )  # fmt: skip

    def _mlp(self, layer: DeviceLayer, n: int, space: Workspace) -> None:
        self.norm(layer.mlp_norm, space.hidden, n, space.normed)
        inner = layer.down.columns
        code = ACTIVATIONS[self.decoder.config.activation]
        linear = layer.mlp_inputs
        if layer.is_gated and not linear.has_bias and self.products.fits_matvec(linear, n):
            self.products.run(
                linear, space.normed, n, space.active, mode=GATED, apart=inner, code=code
            )
        else:
            self.products.run(linear, space.normed, n, space.wide, mode=STORE)
            self._activate(layer, n, code, inner, space)
        self._add(layer.down, space.active, layer.post_mlp_norm, n, space)

    def _activate(
        self, layer: DeviceLayer, n: int, code: int, inner: int, space: Workspace
    ) -> None:
        threads = block_threads(ROW_THREADS)
        if layer.is_gated and not layer.mlp_inputs.has_bias and inner % 8 == 0:
            grid = (n, -(-inner // (8 * threads)))
            self.gpu.launch(
                activation.activate_words, grid, threads, code, space.wide, inner, space.active
            )
            return
        self.gpu.launch(
            activation.activate, n, threads, code, layer.is_gated, space.wide,
            layer.mlp_inputs.bias, inner, space.active,
        )  # fmt: skip

    def _add(
        self, linear: Any, x: Any, post_norm: DeviceNorm | None, n: int, space: Workspace
    ) -> None:
        """Add a product, normed where the family does that, to the residual stream."""
        threads = block_threads(ROW_THREADS)
        if post_norm is None:
            self.products.run(linear, x, n, space.hidden, mode=ADD)
            if linear.has_bias:
                self.gpu.launch(rows.add_bias, n, threads, linear.bias, space.hidden)
            return
        self.products.run(linear, x, n, space.added, mode=LOGITS)
        if linear.has_bias:
            self.gpu.launch(rows.add_bias, n, threads, linear.bias, space.added)
        epsilon = np.float32(self.decoder.config.norm_epsilon)
        self.gpu.launch(
            norms.add_norm, n, threads, space.added, post_norm.weight, epsilon, space.hidden
        )

    def norm(self, norm: DeviceNorm, x: Any, n: int, out: Any, places: Any = None) -> None:
        """Start the norm of ``n`` rows, or of the rows at ``places``."""
        epsilon = np.float32(self.decoder.config.norm_epsilon)
        chosen = self._nowhere if places is None else places
        threads = block_threads(ROW_THREADS)
        if norm.bias is None:
            # Few enough that each holds 16 numbers.
            threads = min(threads, -(-norm.weight.size // 512) * 32)
            self.gpu.launch(norms.rms_norm, n, threads, x, chosen, norm.weight, epsilon, out)
        else:
            self.gpu.launch(
                norms.layer_norm, n, threads, x, chosen, norm.weight, norm.bias, epsilon, out
            )

    def logits_to_draw(self, hidden: HiddenStates) -> tuple[Any]:
        """Return logits for hidden states: float32 on the device, shape (n, vocabulary)."""
        space = self.workspace(len(hidden))
        out = self.gpu.empty((len(hidden), self.decoder.config.vocabulary), np.float32)
        places = self.gpu.upload(hidden.places.astype(np.int32))
        self.norm(self.weights.final_norm, space.hidden, len(hidden), space.normed, places)
        self.head(space, len(hidden), out)
        return (out,)

    def head(self, space: Workspace, n: int, out: Any) -> None:
        """Start the product onto the vocabulary, from normed hidden states."""
        config, head = self.decoder.config, self.weights.head
        scale, cap = config.logit_scale, config.logit_softcap
        self.products.run(head, space.normed, n, out, mode=LOGITS, scale=scale, cap=cap)
        if head.has_bias:
            self.gpu.launch(rows.add_bias, n, block_threads(ROW_THREADS), head.bias, out)

    def logprobs(self, hidden: HiddenStates, targets: np.ndarray) -> Scores:
        """Log-probability of a target after each hidden state, and whether it is the likeliest."""
        return self.begin_logprobs(hidden, targets)()

    def begin_logprobs(self, hidden: HiddenStates, targets: np.ndarray) -> Callable[[], Scores]:
        """Start what :meth:`logprobs` does; return what waits for the result."""
        space, n = self.workspace(len(targets)), len(targets)
        places = self.gpu.upload(hidden.places.astype(np.int32))
        self.norm(self.weights.final_norm, space.hidden, n, space.normed, places)
        return self._target_scorer.begin(space.normed, targets)
