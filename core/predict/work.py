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
from core.predict.stored import Stored
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

        Weights are read once; each sequence reads its own cache.
        """
        moved = self.read_bytes + sequences * self.kv_read(context)
        return Load(moved, rows * self.shape.token_flops(context), rows)

    def prompt(self, tokens: int, sequences: int, model: Model) -> Load:
        """Reading `sequences` prompts: weights once, the head on the last position alone."""
        moved = self.read_bytes + sequences * self.kv_read(tokens)
        flops = sequences * replace(model, shape=self.shape).prefill_flops(tokens)
        return Load(moved, flops, tokens * sequences)

    @functools.cached_property
    def read_bytes(self) -> float:
        """Bytes of every matrix, the head included, as a pass reads them."""
        return float(sum(stored.nbytes(n, k) for stored, n, k in self.matrices()))

    def kv_held(self, capacity: int) -> float:
        """Bytes of one sequence's cache for `capacity` tokens."""
        shape, kv = self.shape, self.found.kv
        if kv is None:
            return float(capacity * shape.kv_values_per_token() * self.found.item)
        heads = shape.layers * shape.kv_heads
        return float(heads * kv.head_bytes(shape.head_dim, capacity, self.found.item))

    def kv_read(self, context: int) -> float:
        """Bytes of one sequence's cache that a token behind `context` others reads; about as many
        are written while they are said.
        """
        shape, kv = self.shape, self.found.kv
        if kv is None:
            return float(context * shape.kv_values_per_token() * self.found.item)
        heads = shape.layers * shape.kv_heads
        return float(heads * kv.read_bytes(shape.head_dim, context, self.found.item))

    def matrices(self) -> list[tuple[Stored, int, int]]:
        """(how it is stored, rows, columns) of every matrix as the lean decoder stacks them, the
        head last.
        """
        shape, found = self.shape, self.found
        chosen, dense = dict(found.mix), DenseBytes(found.dtype)

        def stored(name: str) -> Stored:
            return chosen.get(name, found.stored) or dense

        query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        each = {
            "qkv": (query + 2 * kv, shape.hidden),
            "o": (shape.hidden, query),
            "gate_up": (2 * shape.intermediate, shape.hidden),
            "down": (shape.hidden, shape.intermediate),
        }
        layers = [
            (stored(f"layers.{layer}.{name}"), *size)
            for layer in range(shape.layers)
            for name, size in each.items()
        ]
        return [*layers, (stored("head"), shape.vocabulary, shape.hidden)]


def decoder_work(plan: Plan) -> DecoderWork:
    """The plan's decoder after pruning and quantizing."""
    found = effects(plan)
    return DecoderWork(found.shape(plan.case.model.decoder()), found)


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
    return DecoderWork(model.decoder(), Effects())
