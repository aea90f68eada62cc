"""What a loaded decoder reads and computes for a step and for a prompt, counted on its own tensors.

core.predict.work counts the same from a plan's shapes, before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.model import DecoderShape


@dataclass(frozen=True)
class Work:
    """What an engine does: `weights` bytes that a step reads, `kv` bytes a cached token, `flops` a
    weight-bound token, `attention` FLOPs a token and token attended, `head` FLOPs a sequence.

    `window` is how many tokens attention sees at most (None: all); `format` multiplies.
    """

    weights: float
    kv: float
    flops: float
    attention: float
    head: float
    format: str
    window: int | None = None

    def step_bytes(self, sequences: float, context: float) -> float:
        """One pass for one new token of each sequence behind `context` others."""
        seen = context if self.window is None else min(context, self.window)
        return self.weights + sequences * seen * self.kv

    def step_flops(self, sequences: float, context: float) -> float:
        """FLOPs of that pass."""
        seen = context if self.window is None else min(context, self.window)
        return sequences * (self.flops + self.head + self.attention * (seen + 1))

    def prompt_flops(self, sequences: float, tokens: int) -> float:
        """Reading `sequences` prompts; the head runs on the last position alone."""
        attended = tokens * (tokens + 1) / 2
        if self.window is not None and tokens > self.window:
            attended -= (tokens - self.window) * (tokens - self.window + 1) / 2
        return sequences * (tokens * self.flops + self.attention * attended + self.head)


def work_of(engine: Any, shape: DecoderShape) -> Work:
    """What a loaded decoder reads and computes; `shape` stands in where the engine has no matrices
    of ours (families that run through transformers).

    A table that is only looked up, the embedding that the head does not share, is not read.
    """
    kv = _kv_bytes(engine, shape)
    weights = float(engine.weight_bytes() - _looked_up(engine))
    window = getattr(getattr(engine, "config", None), "sliding_window", None)
    seen = window if isinstance(window, int) and window > 0 else None
    attention = 4.0 * shape.layers * shape.heads * shape.head_dim
    if hasattr(engine, "linears"):
        config = engine.config
        attention = 4.0 * config.num_layers * config.num_heads * config.head_dim
        sizes = {name: one.in_features * one.out_features for name, one in engine.linears()}
        head = 2.0 * sizes.pop("head", 0)
        return Work(
            weights, kv, 2.0 * sum(sizes.values()), attention, head, format_of(engine), seen
        )
    body, head = 2.0 * shape.layers * shape.layer_params(), 2.0 * shape.vocabulary * shape.hidden
    return Work(weights, kv, body, attention, head, format_of(engine), seen)


def _looked_up(engine: Any) -> int:
    """Bytes of the embedding table unless the head reads it too."""
    table = getattr(engine, "embedding", None)
    if table is not None and hasattr(engine, "head"):
        read = [tensor.data_ptr() for tensor in engine.head.tensors()]
        return 0 if table.data_ptr() in read else int(table.nbytes)
    model = getattr(engine, "model", None)
    if model is None or not hasattr(model, "get_input_embeddings"):
        return 0
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    if outer is None or outer.weight.data_ptr() == inner.weight.data_ptr():
        return 0
    return int(inner.weight.nbytes)


def _kv_bytes(engine: Any, shape: DecoderShape) -> float:
    """Bytes of keys and values that a cached token holds, as the engine's own cache keeps them."""
    tokens = 64
    held = int(engine.new_cache(1, tokens).nbytes)
    if held:
        return held / tokens
    return float(shape.kv_values_per_token() * (4 if format_of(engine) == "fp32" else 2))


def format_of(engine: Any) -> str:
    """The format that multiplies: packed weights are widened to that of the activations first."""
    names = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
    kind = getattr(engine, "dtype", None) or getattr(getattr(engine, "model", None), "dtype", None)
    if kind is None and hasattr(engine, "parameters"):
        kind = next(engine.parameters()).dtype
    return names.get(str(kind), str(kind).removeprefix("torch."))
