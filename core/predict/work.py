"""Bytes and FLOPs of a plan: what a prompt and a step read and compute.

Only arithmetic over shapes; what lies in memory is account.py's business, how long it takes
roofline.py's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from core.errors import BadInput
from core.model import DecoderShape, Model
from core.plan import Plan
from core.predict.effects import Effects, effects

KV_BYTES = 2.0


@dataclass(frozen=True)
class Load:
    """Bytes that must move and FLOPs that must be done; `rows` are the token positions at once."""

    bytes: float
    flops: float
    rows: int

    def __add__(self, other: Load) -> Load:
        return Load(self.bytes + other.bytes, self.flops + other.flops, self.rows + other.rows)


@dataclass(frozen=True)
class DecoderWork:
    """One decoder in one storage format."""

    shape: DecoderShape
    found: Effects
    stored_bits: float

    def step(self, rows: int, sequences: int, context: int) -> Load:
        """One forward pass of `rows` new positions in all, each behind `context` cached tokens.

        Weights are read once; each sequence reads its own cache.
        """
        cache = sequences * context * self.shape.kv_values_per_token() * KV_BYTES
        moved = self._layers_bytes() + self._head_bytes() + cache
        return Load(moved, rows * self.shape.token_flops(context), rows)

    def prompt(self, tokens: int, sequences: int, model: Model) -> Load:
        """Reading `sequences` prompts: weights once, the head on the last position alone."""
        written = sequences * tokens * self.shape.kv_values_per_token() * KV_BYTES
        moved = self._layers_bytes() + self._head_bytes() + written
        flops = sequences * replace(model, shape=self.shape).prefill_flops(tokens)
        return Load(moved, flops, tokens * sequences)

    def _layers_bytes(self) -> float:
        shape = self.shape
        rows = shape.head_dim * (shape.heads + 2 * shape.kv_heads) + 2 * shape.hidden
        rows += 2 * shape.intermediate
        return shape.layers * self.found.matrix_bytes(shape.layer_params(), rows)

    def _head_bytes(self) -> float:
        shape = self.shape
        return self.found.matrix_bytes(shape.vocabulary * shape.hidden, shape.vocabulary)


def decoder_work(plan: Plan) -> DecoderWork:
    """The plan's decoder after pruning and quantizing."""
    found = effects(plan)
    model = plan.case.model
    return DecoderWork(found.shape(model.decoder()), found, float(model.bits))


def draft_work(found: Effects) -> DecoderWork | None:
    """The draft model, unchanged as it is loaded; None without one or when it is not at hand.

    A hub id is not at hand: predicting never downloads.
    """
    if found.draft is None:
        return None
    from core.catalogue import models

    if found.draft.startswith("shape:"):
        return _draft(found.draft, 0)
    folder = models.folder_of(found.draft)
    config = None if folder is None else folder / "config.json"
    if config is None or not config.is_file():
        return None
    return _draft(found.draft, config.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _draft(model_id: str, changed_at: int) -> DecoderWork | None:
    """A model of the zoo, of a folder or a shape; read again when its config changed."""
    from core.catalogue import models

    try:
        model = models.resolve(model_id)
    except BadInput:
        return None
    if model.task != "text":
        return None
    return DecoderWork(model.decoder(), Effects(bits=float(model.bits)), float(model.bits))
