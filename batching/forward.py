"""The forward pass: a decoder's description run through the kernels, for tokens of many sequences.

Tokens of all sequences stand one after another, without padding, whether they are prompt, scored
text or the one token that a generating sequence is behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numbatch.batching.kv_pool import KVPool
from numbatch.kernels.scoring import activation, attention, formats, logprob, norm, rotary
from numbatch.kernels.scoring.matmul import matmul_call, padded, tile_scratch
from numbatch.kernels.threads import Call, ThreadTeam
from numbatch.models.decoder import Decoder, Layer, Linear, Norm

__all__ = ["Batch", "ForwardPass"]

ROWS_GRAIN = 16
"""Rows below which an elementwise kernel is not worth a second thread's wake-up (about 50 us)."""

_NO_BIAS = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Batch:
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
    """

    def __init__(self, decoder: Decoder, pool: KVPool, team: ThreadTeam, max_tokens: int) -> None:
        self.decoder, self.pool, self.team = decoder, pool, team
        config = decoder.config
        inner = max(layer.up.weight.rows for layer in decoder.layers)
        heads, kv = config.heads * config.head_size, config.kv_heads * config.head_size

        def buffer(width: int) -> np.ndarray:
            return np.zeros((max_tokens, width), np.float32)

        # Inputs of products are padded to whole vectors and stay zero there.
        self._hidden, self._normed = buffer(padded(config.width)), buffer(padded(config.width))
        self._added = buffer(config.width)
        self._q, self._k, self._v = buffer(heads), buffer(kv), buffer(kv)
        self._attended = buffer(padded(heads))
        self._gate, self._up = buffer(padded(inner)), buffer(padded(inner))
        pairs = max(
            (len(f) for layer in decoder.layers if (f := layer.inverse_frequencies) is not None),
            default=0,
        )
        self._cosine, self._sine = buffer(pairs), buffer(pairs)
        widest = max(config.width, heads, inner)
        self._tile = tile_scratch(team.threads, widest)
        self._group = config.heads // config.kv_heads
        self._scores = attention.attention_scratch(team.threads, self._group, config.head_size)
        self._plans = {layer.window: attention.new_plan(max_tokens) for layer in decoder.layers}
        self._items = dict.fromkeys(self._plans, 0)
        self._logprob_scratch = logprob.logprob_scratch(team.threads, config.width)

    def run(self, batch: Batch) -> np.ndarray:
        """Run the layers over a batch; return its hidden states, before the final norm.

        Returns
        -------
        float32 array, shape (n, padded(width))
            A view of working memory, valid until the next call.
        """
        n = len(batch.tokens)
        hidden = self._hidden[:n]
        self._embed(batch, hidden)
        for window, plan in self._plans.items():
            heads = (self.decoder.config.kv_heads, self._group)
            place = (batch.rows, batch.positions)
            self._items[window] = attention.plan_attention(*place, *heads, window, plan)
        frequencies = None
        for index, layer in enumerate(self.decoder.layers):
            if layer.inverse_frequencies is not frequencies:
                frequencies = layer.inverse_frequencies
                self._fill_rotary_table(batch.positions, frequencies)
            self._attention(index, layer, batch, hidden)
            self._mlp(layer, hidden)
        return hidden

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits for hidden states from :meth:`run`: float32, shape (n, vocabulary)."""
        config, head = self.decoder.config, self.decoder.head
        normed = self._final_norm(hidden)
        out = np.empty((len(hidden), head.weight.rows), np.float32)
        self.team.run(self._product(head, normed, out))
        if config.logit_scale != 1 or config.logit_softcap:
            scale, cap = np.float32(config.logit_scale), np.float32(config.logit_softcap)
            self.team.run(Call(logprob.scale_logits, len(out), (out, scale, cap)))
        return out

    def logprobs(self, hidden: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of a target after each hidden state, and whether it is the likeliest."""
        config, head = self.decoder.config, self.decoder.head
        return logprob.logprobs(
            self.team,
            self._final_norm(hidden),
            head.weight.data,
            head.weight.format,
            head.weight.columns,
            _bias(head),
            config.logit_scale,
            config.logit_softcap,
            targets,
            self._logprob_scratch,
        )

    def _embed(self, batch: Batch, hidden: np.ndarray) -> None:
        config = self.decoder.config
        out = self._added[: len(hidden)]
        table = self.decoder.embedding
        formats.unpack_rows(table.data, table.format, batch.tokens, out)
        hidden[:, : config.width] = out
        if config.embedding_scale != 1:
            hidden *= np.float32(config.embedding_scale)
        if self.decoder.positions is not None:
            table = self.decoder.positions
            formats.unpack_rows(table.data, table.format, batch.positions, out)
            hidden[:, : config.width] += out

    def _fill_rotary_table(self, positions: np.ndarray, frequencies: np.ndarray | None) -> None:
        if frequencies is None:
            return
        n = len(positions)
        magnitude = float(self.decoder.config.rotary_magnitude)
        args = (positions, frequencies, magnitude, self._cosine[:n], self._sine[:n])
        self.team.run(Call(rotary.rotary_table, n, args, grain=ROWS_GRAIN))

    def _attention(self, index: int, layer: Layer, batch: Batch, hidden: np.ndarray) -> None:
        config, n = self.decoder.config, len(hidden)
        normed = self._norm(layer.attention_norm, hidden, self._normed[:n])
        q, k, v = self._q[:n], self._k[:n], self._v[:n]
        self.team.run(
            self._product(layer.query, normed, q),
            self._product(layer.key, normed, k),
            self._product(layer.value, normed, v),
        )
        for x, heads, head_norm in (
            (q, config.heads, layer.query_norm),
            (k, config.kv_heads, layer.key_norm),
        ):
            if head_norm is not None:
                rows = x.reshape(n * heads, config.head_size)
                self._norm(head_norm, rows, rows)
            self._rotate(layer, x, heads)
        cache = self.pool.cache
        args = (k, v, batch.slots, index, config.head_size, cache)
        self.team.run(Call(attention.store_kv, n, args, grain=ROWS_GRAIN))
        attended = self._attended[:n]
        scale, cap = np.float32(config.attention_scale), np.float32(config.attention_softcap)
        self.team.run(
            Call(
                attention.attend_kernel(cache.dtype),
                self._items[layer.window],
                (
                    *(q, cache, batch.tables, batch.rows, batch.positions),
                    *(self._plans[layer.window], index, self._group, config.head_size),
                    *(layer.window, scale, cap, attended),
                ),
                self._scores,
            )
        )
        self._add(layer.output, attended, layer.post_attention_norm, hidden)

    def _rotate(self, layer: Layer, x: np.ndarray, heads: int) -> None:
        if layer.inverse_frequencies is None:
            return
        config, n = self.decoder.config, len(x)
        pairs = len(layer.inverse_frequencies)
        layout = (heads, config.head_size, pairs, config.rotary_interleaved)
        args = (x, *layout, self._cosine[:n], self._sine[:n])
        self.team.run(Call(rotary.rotate, n, args, grain=ROWS_GRAIN))

    def _mlp(self, layer: Layer, hidden: np.ndarray) -> None:
        config, n = self.decoder.config, len(hidden)
        normed = self._norm(layer.mlp_norm, hidden, self._normed[:n])
        gate, up = self._gate[:n], self._up[:n]
        products = [self._product(layer.up, normed, up)]
        if layer.gate is not None:
            products.append(self._product(layer.gate, normed, gate))
        self.team.run(*products)
        code = activation.ACTIVATIONS[config.activation]
        args = (code, layer.gate is not None, gate, up, layer.up.weight.rows)
        self.team.run(Call(activation.activate, n, args, grain=ROWS_GRAIN))
        self._add(layer.down, up, layer.post_mlp_norm, hidden)

    def _add(
        self, linear: Linear, x: np.ndarray, post_norm: Norm | None, hidden: np.ndarray
    ) -> None:
        """Add a product, normed where the family does that, to the residual stream."""
        added = self._added[: len(x)]
        self.team.run(self._product(linear, x, added))
        if post_norm is not None:
            self._norm(post_norm, added, added)
        hidden[:, : added.shape[1]] += added

    def _product(self, linear: Linear, x: np.ndarray, out: np.ndarray) -> Call:
        weight = linear.weight
        return matmul_call(
            x, weight.data, weight.format, weight.columns, _bias(linear), out, self._tile
        )

    def _norm(self, weights: Norm, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        config = self.decoder.config
        # The norms over heads are RMS norms in every family, and have no bias.
        args: tuple[Any, ...] = (x, weights.weight, config.norm_epsilon, out)
        kernel = norm.rms_norm
        if weights.bias is not None:
            kernel = norm.layer_norm
            args = (x, weights.weight, weights.bias, config.norm_epsilon, out)
        self.team.run(Call(kernel, len(x), args, grain=ROWS_GRAIN))
        return out

    def _final_norm(self, hidden: np.ndarray) -> np.ndarray:
        return self._norm(self.decoder.final_norm, hidden, np.zeros_like(hidden))


def _bias(linear: Linear) -> np.ndarray:
    return _NO_BIAS if linear.bias is None else linear.bias
