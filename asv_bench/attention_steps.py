"""Steps of attention as a model takes them: random keys and values for every layer, no model."""

import numpy as np

from numbatch.kernels.scoring import attention
from numbatch.kernels.threads import Call, ThreadTeam

NO_BREAKS = np.empty(0, np.int64)

SMOLLM2 = {"heads": 9, "kv_heads": 3, "head_size": 64, "layers": 30}


class AttentionSteps:
    """Each of ``sequences`` has ``context`` tokens, the last ``tokens`` of which are attended for.

    Blocks are shuffled, as they are after a while in use.
    """

    def __init__(
        self, sequences, context, tokens, dtype, *, threads, heads, kv_heads, head_size, layers
    ):
        rng = np.random.default_rng(0)
        self.team, self.layers, self.dtype = ThreadTeam(threads), layers, attention.kv_dtype(dtype)
        self.shape = (kv_heads, heads // kv_heads, head_size)
        blocks = -(-context // attention.BLOCK)
        order = rng.permutation(sequences * blocks)
        self.tables = order.reshape(sequences, blocks)
        self.cache = attention.new_cache(len(order), layers, kv_heads, head_size, self.dtype)
        n = sequences * context
        k, v = rng.standard_normal((2, n, kv_heads * head_size)).astype(np.float32)
        slots = self._slots(
            np.repeat(np.arange(sequences), context), np.tile(range(context), sequences)
        )
        attention.store_kv(0, n, k, v, slots, 0, head_size, self.cache)
        self.cache[:, 1:] = self.cache[:, :1]
        self.kv = k, v
        self.rows = np.repeat(np.arange(sequences), tokens)
        self.positions = np.tile(np.arange(context - tokens, context), sequences)
        self.q = rng.standard_normal((len(self.rows), heads * head_size)).astype(np.float32)
        self.out = np.empty_like(self.q)
        self.plan = attention.new_plan(len(self.rows))
        self.scratch = attention.attention_scratch(threads, heads // kv_heads, head_size)

    def _slots(self, rows, positions):
        block, place = np.divmod(positions, attention.BLOCK)
        return self.tables[rows, block] * attention.BLOCK + place

    def store(self):
        """Store the keys and values of the step's tokens, in every layer."""
        slots = self._slots(self.rows, self.positions)
        k, v = (x[: len(slots)] for x in self.kv)
        for layer in range(self.layers):
            args = (k, v, slots, layer, self.shape[2], self.cache)
            self.team.run(Call(attention.store_kv, len(slots), args))

    def attend(self):
        """Attend in every layer."""
        items = attention.plan_attention(
            self.rows, self.positions, *self.shape[:2], 0, NO_BREAKS, self.plan
        )
        scale, cap = np.float32(self.shape[2] ** -0.5), np.float32(0)
        for layer in range(self.layers):
            args = (self.q, self.cache, self.tables, self.rows, self.positions, self.plan)
            numbers = (layer, *self.shape[1:], 0, scale, cap)
            self.team.run(Call(attention.attend, items, (*args, *numbers, self.out), self.scratch))

    def kv_bytes(self):
        """Return the bytes of keys and values that a step reads at least once."""
        return self.cache.nbytes

    def products(self):
        """Return the multiply-adds of scores and sums that causality leaves."""
        kv_heads, group, head_size = self.shape
        return 2 * int((self.positions + 1).sum()) * kv_heads * group * head_size * self.layers
