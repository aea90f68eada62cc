"""Bytes and FLOPs of a plan: what a prompt and a step read and compute.

Only arithmetic over shapes; what lies in memory is account.py's business, how long it takes
roofline.py's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from core.catalogue import models
from core.errors import BadInput
from core.files.storage import Storage
from core.model import DecoderShape, Projection
from core.plan import Plan
from core.predict.effects import effects
from core.techniques.effects import Effects
from kernels.lowbit_bytes import DenseBytes


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
    """One decoder as the plan's techniques store it."""

    shape: DecoderShape
    found: Effects

    def step(self, rows: int, sequences: int, context: int) -> Load:
        """One forward pass of `rows` new positions in all, each behind `context` cached tokens.

        Weights are read once, of experts those that the rows choose; each sequence reads its cache.
        """
        moved = self.read_bytes(rows) + sequences * self.kv_read(context)
        return Load(moved, rows * self.shape.token_flops(context), rows)

    def prompt(self, tokens: int, sequences: int) -> Load:
        """Reading `sequences` prompts: weights once, the head on the last position alone."""
        rows = tokens * sequences
        moved = self.read_bytes(rows) + sequences * self.kv_read(tokens)
        return Load(moved, sequences * self.shape.prompt_flops(tokens), rows)

    def read_bytes(self, rows: int) -> float:
        """Bytes of every matrix, the head included, as a pass over so many positions reads them."""
        return float(sum(held.nbytes * held.what.read(rows) for held in self.matrices()))

    def kv_held(self, capacity: int) -> float:
        """Bytes of one sequence's cache for `capacity` tokens."""
        shape, kv = self.shape, self.found.kv
        if kv is None:
            kept = shape.kept_tokens(capacity)
            return kept * shape.kv_values_per_token() * self.found.item
        heads = shape.layers * shape.kv_heads
        return float(heads * kv.head_bytes(shape.head_dim, capacity, self.found.item))

    def kv_read(self, context: int) -> float:
        """Bytes of one sequence's cache that a token behind `context` others reads; about as many
        are written while they are said.
        """
        shape, kv = self.shape, self.found.kv
        seen = shape.seen_tokens(context)
        if kv is None:
            return seen * shape.kv_values_per_token() * self.found.item
        heads = shape.layers * shape.kv_heads
        return float(heads * kv.read_bytes(shape.head_dim, round(seen), self.found.item))

    def matrices(self) -> list[Held]:
        """Every matrix as the engine holds it, a layer's experts together, the head last."""
        shape, effect = self.shape, self.found
        chosen, dense = dict(effect.mix), DenseBytes(effect.dtype)

        def held(name: str, what: Projection) -> Held:
            stored = (chosen.get(name, effect.stored) or dense) if what.linear else dense
            return Held(stored, what)

        layers = [
            held(f"layers.{index}.{what.name}", what)
            for kind in shape.layer_kinds()
            for index in kind.indices
            for what in kind.projections
        ]
        outside = [held(what.name, what) for what in shape.outside]
        return [*layers, *outside, held("head", shape.head())]


@dataclass(frozen=True)
class Held:
    """Alike matrices and how each of them is stored."""

    stored: Storage
    what: Projection

    @property
    def nbytes(self) -> float:
        """Bytes of one of them."""
        return self.stored.nbytes(self.what.rows, self.what.columns)


def decoder_work(plan: Plan) -> DecoderWork:
    """The plan's decoder after pruning and quantizing."""
    effect = effects(plan)
    return DecoderWork(effect.shape(plan.case.model.decoder()), effect)


def draft_work(effect: Effects) -> DecoderWork | None:
    """The draft model, unchanged as it is loaded; None without one or when it is not at hand.

    A hub id is not at hand: predicting never downloads.
    """
    if effect.draft is None:
        return None
    if effect.draft.startswith("shape:"):
        return _draft(effect.draft, 0)
    folder = models.folder_of(effect.draft)
    config = None if folder is None else folder / "config.json"
    if config is None or not config.is_file():
        return None
    return _draft(effect.draft, config.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _draft(model_id: str, changed_at: int) -> DecoderWork | None:
    """A model of the zoo, of a folder or a shape; read again when its config changed."""
    try:
        model = models.resolve(model_id)
    except BadInput:
        return None
    if model.task != "text":
        return None
    return DecoderWork(model.decoder(), Effects(model.precision))
