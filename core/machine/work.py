"""What a loaded decoder reads and computes for a step and for a prompt, counted on its own tensors.

core.predict.work counts the same from a plan's shapes, before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.model import DecoderShape, attended
from kernels.dtypes import nbytes

if TYPE_CHECKING:
    from core.engine.protocol import TextEngine


@dataclass(frozen=True)
class Work:
    """What an engine does: `weights` bytes that a step reads, `kv` bytes a cached token, `flops` a
    weight-bound token, `attention` FLOPs a token and token attended, `head` FLOPs a sequence.

    `window` is how many tokens attention sees at most (None: all); `format` multiplies. Of a cache
    in codes the newest `near` tokens, on average, have `near_kv` bytes each instead of `kv`.
    `experts` of the weights' bytes belong to experts, of which a token uses the share `used`;
    where layers differ, `shape` says what each attends to.
    """

    weights: float
    kv: float
    flops: float
    attention: float
    head: float
    format: str
    window: int | None = None
    near: float = 0.0
    near_kv: float = 0.0
    experts: float = 0.0
    used: float = 1.0
    shape: DecoderShape | None = None

    def step_bytes(self, sequences: float, context: float) -> float:
        """One pass for one new token of each sequence behind `context` others; of the experts what
        the tokens choose when each chooses evenly and by itself.
        """
        seen = self._seen(context)
        near = min(seen, self.near)
        unread: float = self.experts * (1 - self.used) ** sequences
        return self.weights - unread + sequences * ((seen - near) * self.kv + near * self.near_kv)

    def step_flops(self, sequences: float, context: float) -> float:
        """FLOPs of that pass."""
        return sequences * (self.flops + self.head + self.attention * (self._seen(context) + 1))

    def prompt_flops(self, sequences: float, tokens: int) -> float:
        """Reading `sequences` prompts; the head runs on the last position alone."""
        if self.shape is not None:
            pairs = self.shape.attended_pairs(tokens)
        else:
            pairs = attended(tokens, self.window or 0)
        return sequences * (tokens * self.flops + self.attention * pairs + self.head)

    def _seen(self, context: float) -> float:
        if self.shape is not None:
            return self.shape.seen_tokens(context)
        return context if self.window is None else min(context, self.window - 1)


def work_of(engine: TextEngine, shape: DecoderShape) -> Work:
    """What a loaded decoder reads and computes; `shape` stands in where the engine has no matrices
    of ours (families that run through transformers).

    A table that is only looked up, the embedding that the head does not share, is not read.
    """
    kv, near, near_kv = _kv_bytes(engine, shape)
    weights = float(engine.weight_bytes() - engine.looked_up_bytes())
    form = engine.compute_format
    attention = 4.0 * shape.layers * shape.heads * shape.head_dim
    if engine.lean is not None:
        config, seen = engine.lean.config, engine.lean.config.sliding_window
        attention = 4.0 * config.num_layers * config.num_heads * config.head_dim
        sizes = {
            name: linear.in_features * linear.out_features for name, linear in engine.lean.linears()
        }
        head = 2.0 * sizes.pop("head", 0)
        body = 2.0 * sum(sizes.values())
        return Work(weights, kv, body, attention, head, form, seen, near, near_kv)
    head = 2.0 * shape.head().numbers()
    body = 2.0 * shape.read_params() - head
    experts, used = _experts(engine, shape)
    return Work(
        weights, kv, body, attention, head, form, experts=experts, used=used,
        shape=shape,
    )  # fmt: skip


def _experts(engine: TextEngine, shape: DecoderShape) -> tuple[float, float]:
    """Bytes of the experts of a mixture, and the share of them that a token uses."""
    mixed = [projection for projection in shape.projections() if projection.used < projection.count]
    if not mixed:
        return 0.0, 1.0
    held = sum(tensor.nbytes for name, _, tensor in engine.tensors() if ".experts." in name)
    return float(held), mixed[0].used / mixed[0].count


def _kv_bytes(engine: TextEngine, shape: DecoderShape) -> tuple[float, float, float]:
    """Bytes of keys and values that a cached token holds, as the engine's own cache keeps them; how
    many of the newest tokens are held in another way, on average, and their bytes.
    """
    lean, item = engine.lean, nbytes(engine.compute_format)
    if lean is not None and lean.cache_format is not None:
        config, layout = lean.config, lean.cache_format
        heads = config.num_layers * config.num_kv_heads
        codes = heads * layout.block_bytes(config.head_dim) / layout.group_size
        near = layout.residual + (layout.group_size - 1) / 2
        return codes, near, float(2 * heads * config.head_dim * item)
    tokens = 64
    held = int(engine.new_cache(1, tokens).nbytes)
    if held:
        return held / tokens, 0.0, 0.0
    return float(shape.kv_values_per_token() * item), 0.0, 0.0
