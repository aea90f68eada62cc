"""Bytes and FLOPs of a plan: what lies in memory, what a prompt and a step read and compute.

Only arithmetic over shapes; how long it takes is roofline.py's business.
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
class Memory:
    """Bytes that serving needs: weights (a draft's included), KV cache, activations."""

    weights: float
    kv: float
    workspace: float

    @property
    def total(self) -> float:
        """All three."""
        return self.weights + self.kv + self.workspace


@dataclass(frozen=True)
class DecoderWork:
    """One decoder in one storage format."""

    shape: DecoderShape
    found: Effects
    stored_bits: float

    def weight_bytes(self) -> float:
        """Resident bytes: embedding in the stored width, matrices and the head in the plan's.

        A tied head shares the embedding until it is packed into a matrix of its own.
        """
        shape = self.shape
        table = shape.vocabulary * shape.hidden
        norms = shape.hidden * (2 * shape.layers + 1)
        total = (table + norms) * self.stored_bits / 8 + self._layers_bytes()
        return total + (self._head_bytes() if self.found.packed or not shape.tied else 0.0)

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


def memory(plan: Plan) -> Memory:
    """Bytes to serve the plan's workload, one group of the plan's batch at a time.

    Workspace of a decoder: the widest activations of the prompt (hidden, query and twice the MLP
    width, 16 bit) and one row of fp32 logits a sequence.
    """
    found = effects(plan)
    workload = plan.workload()
    work = decoder_work(plan)
    draft = draft_work(found)
    tokens = workload.prompt_tokens + workload.output_tokens + found.draft_tokens
    shape = work.shape
    sequences = found.batch
    kv = sequences * tokens * shape.kv_values_per_token() * KV_BYTES
    wide = 2 * shape.hidden + shape.heads * shape.head_dim + 3 * shape.intermediate
    space = sequences * (workload.prompt_tokens * wide * 2.0 + shape.vocabulary * 4.0)
    weights = work.weight_bytes()
    if draft is not None:
        weights += draft.weight_bytes()
        kv += sequences * tokens * draft.shape.kv_values_per_token() * KV_BYTES
    return Memory(weights, kv, space)
