"""The forward pass: a decoder's description run through the kernels, for tokens of many sequences.

Tokens of all sequences stand one after another, without padding, whether they are prompt, scored
text or the one token that a generating sequence is behind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbatch.batching.decoder_tables import DecoderTables, input_sizes
from numbatch.batching.kv_pool import KVPool
from numbatch.batching.row_ranges import RowSplitter
from numbatch.kernels.aligned import aligned
from numbatch.kernels.scoring import attention, logprob
from numbatch.kernels.scoring.activations import COMPUTE, Activations
from numbatch.kernels.scoring.bfloat16_tiles import SHAPES
from numbatch.kernels.scoring.bfloat16_unpack import HALF_BYTES
from numbatch.kernels.scoring.decoder_head import prepare_rows, run_head
from numbatch.kernels.scoring.decoder_step import run_layers
from numbatch.kernels.scoring.gated import gated_memory
from numbatch.kernels.scoring.matmul import padded
from numbatch.kernels.scoring.product import product_memory
from numbatch.kernels.scoring.row_states import state_numbers
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.models.decoder import Decoder

__all__ = ["Batch", "ForwardPass"]

BEFORE_MLP = 2
"""Which inputs are as wide as a hidden state, and free after a layer."""

_NO_POSITIONS = np.empty((0, 0), np.uint8)


class Batch(NamedTuple):
    """The tokens of one step.

    Parameters
    ----------
    tokens, positions : int64 arrays, shape (n,)
        Ids, and places in their sequences.
    rows : int64 array, shape (n,)
        The sequence of each token, a row of ``tables``.
    slots : int64 array, shape (n,)
        Where the token's keys and values go: ``block * block_size + place``.
    tables : int64 array, shape (sequences, blocks)
        The blocks of each sequence, in order.
    """

    tokens: np.ndarray
    positions: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    tables: np.ndarray


class ForwardPass:
    """Runs batches of up to ``max_tokens`` tokens; its working memory is allocated once.

    Parameters
    ----------
    decoder : Decoder
    pool : KVPool
    team : ThreadTeam
    max_tokens : int
    compute : {"float32", "bfloat16", "int8"}
        The arithmetic of products with weights.

    Attributes
    ----------
    cycles : bool array, shape (threads, 0)
        Replace it by an int64 one with a column for each of ``decoder_step.PHASES``, and kernels
        are compiled that add the clock ticks of each to it.
    """

    def __init__(
        self, decoder: Decoder, pool: KVPool, team: ThreadTeam, max_tokens: int, compute: str
    ) -> None:
        self.decoder, self.pool, self.team = decoder, pool, team
        self._compute = COMPUTE[compute]
        self.tables = DecoderTables(decoder, self._compute, team)
        config = decoder.config
        inner = decoder.layers[0].up.weight.rows
        heads, kv = config.heads * config.head_size, config.kv_heads * config.head_size

        def buffer(width: int) -> np.ndarray:
            return aligned((max_tokens, padded(width)), np.float32)

        # Rows are padded to whole vectors and zero there.
        self._hidden, self._normed = buffer(config.width), buffer(config.width)
        self._q, self._k, self._v, self._attended = (buffer(w) for w in (heads, kv, kv, heads))
        turned = 2 * max(1, int(self.tables.layers["pairs"].max()))
        self._cosine, self._sine = buffer(turned), buffer(turned)
        sizes = input_sizes(decoder, self._compute)
        # One place for those of a size: it stays in the cache.
        places = {s: Activations.empty(self._compute, max_tokens, *s).arrays for s in set(sizes)}
        self._inputs = tuple(places[size] for size in sizes)
        widest = max(config.width, heads, inner)
        spans = -(-gated_memory(max_tokens) // 16) * 16
        self._spans = aligned((team.threads, spans), np.float32)
        size = -(-product_memory(self._compute, widest, max_tokens) // 64) * 64
        self._memory = aligned((team.threads, size), np.uint8)
        self._group = config.heads // config.kv_heads
        self._scores = attention.attention_scratch(team.threads, self._group, config.head_size)
        self._plans = np.stack([attention.new_plan(max_tokens) for _ in self.tables.windows])
        self._logprob_scratch = logprob.logprob_scratch(team.threads)
        self._logits = aligned((0, padded(decoder.head.weight.rows)), np.float32)
        self._states = aligned((0, state_numbers(decoder.head.weight.rows)), np.float32)
        self._splitter = RowSplitter(decoder, self._compute, team.threads)
        self._counter = np.zeros(8, np.int64)
        self.cycles = np.zeros((team.threads, 0), np.bool_)

    def run(self, batch: Batch) -> np.ndarray:
        """Run the layers over a batch; return its hidden states, before the final norm.

        Returns
        -------
        float32 array, shape (n, padded(width))
            A view of working memory, valid until the next call.
        """
        tables, kv_heads = self.tables, self.decoder.config.kv_heads
        shares = self._splitter.split(batch.positions)
        for window, plan in zip(tables.windows, self._plans, strict=True):
            attention.plan_attention(
                batch.rows, batch.positions, kv_heads, self._group, window, shares.breaks, plan
            )
        positions = self.decoder.positions
        self._counter[0] = 0
        self.team.run_together(
            run_layers,
            *(self._counter, self._memory, self._scores, self._spans),
            *(
                tables.config,
                tables.matrices,
                tables.norms,
                tables.layers,
                SHAPES,
                HALF_BYTES,
                self.decoder.embedding.data,
            ),
            _NO_POSITIONS if positions is None else positions.data,
            *(batch.tokens, batch.positions, batch.rows, batch.slots, batch.tables),
            *(shares.ranges, shares.apart, shares.block, self._plans),
            *(self.pool.cache, self._hidden, self._normed, self._q, self._k, self._v),
            *(self._attended, self._cosine, self._sine, self._inputs),
            self.cycles,
        )
        return self._hidden[: len(batch.tokens)]

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits for hidden states from :meth:`run`: float32, shape (n, vocabulary).

        Working memory, valid until the next call.
        """
        return self._run_head(hidden, self._states[:0])

    def logits_to_draw(self, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return :meth:`logits`, and the states of their tiles as ``sample_rows`` takes them."""
        if len(self._states) < len(hidden):
            self._states = aligned((len(hidden), self._states.shape[1]), np.float32)
        states = self._states[: len(hidden)]
        return self._run_head(hidden, states), states

    def _run_head(self, hidden: np.ndarray, states: np.ndarray) -> np.ndarray:
        rows = self.decoder.head.weight.rows
        # Kept for the next step: new memory would cost a page fault for every 1,024 logits.
        if len(self._logits) < len(hidden):
            self._logits = aligned((len(hidden), padded(rows)), np.float32)
        out = self._logits[: len(hidden)]
        tables, most = self.tables, len(self._normed)
        for low in range(0, len(hidden), most):
            self._counter[0] = 0
            self.team.run_together(
                run_head,
                *(self._counter, self._memory, tables.config, tables.final_norm, tables.head),
                *(SHAPES, HALF_BYTES, hidden[low : low + most], self._normed),
                *(self._inputs[BEFORE_MLP], out[low : low + most], states[low : low + most]),
            )
        return out if out.shape[1] == rows else np.ascontiguousarray(out[:, :rows])

    def logprobs(self, hidden: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of a target after each hidden state, and whether it is the likeliest."""
        config, tables = self.decoder.config, self.tables
        found, greedy = np.empty(len(targets), np.float32), np.empty(len(targets), np.bool_)
        most = min(logprob.TOKENS, len(self._normed))
        for low in range(0, len(targets), most):
            part = slice(low, min(low + most, len(targets)))
            args = (tables.config, tables.final_norm, hidden[part], self._normed)
            call = Call(prepare_rows, part.stop - low, (*args, self._inputs[BEFORE_MLP]), grain=4)
            self.team.run(call)
            found[part], greedy[part] = logprob.logprobs(
                *(self.team, self._compute, tables.head, self._inputs[BEFORE_MLP]),
                *(config.logit_scale, config.logit_softcap, targets[part]),
                *(self._memory, self._logprob_scratch),
            )
        return found, greedy
