"""Owns position schemes that change with the length of a text, in models that transformers runs.

LongRoPE turns all positions otherwise once a text is longer than the original positions: keys of
before are then wrong and are computed again, as Phi-3's own generate does. Dynamic NTK turns by the
length of the moment, and transformers remembers the longest text that a model ever saw: here each
pass depends on its own text alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# The families whose generate computes the cache again; others go on with the old keys.
RECOMPUTING = ("phi3",)


def original_positions(config: Any) -> int | None:
    """The length beyond which all keys change; None for a model that has none such."""
    rope = getattr(config, "rope_parameters", None) or {}
    if config.model_type not in RECOMPUTING or rope.get("rope_type") != "longrope":
        return None
    return int(rope["original_max_position_embeddings"])


def farthest(config: Any) -> int:
    """Positions that a model was made for; architectures without a bound give a large number.

    Dynamic NTK is made for `factor` times what the model was trained for.
    """
    trained = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "dynamic":
        return trained
    return int(trained * float(rope.get("factor", 1.0)))


def dynamic_parts(model: nn.Module) -> list[tuple[Any, str]]:
    """The rotary modules whose frequencies grow with a text, and the prefix of their buffers."""
    return list(_dynamic(model))


def forget_longest(parts: list[tuple[Any, str]]) -> None:
    """Frequencies as in a fresh model: the next pass computes those of its own text."""
    for module, prefix in parts:
        if int(getattr(module, f"{prefix}max_seq_len_cached", 0)) <= module.original_max_seq_len:
            continue
        name = f"{prefix}inv_freq"
        now: Any = getattr(module, name)
        original: Any = getattr(module, f"{prefix}original_inv_freq")
        module.register_buffer(name, original.to(now.device), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _dynamic(model: nn.Module) -> Iterator[tuple[Any, str]]:
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        named = kinds.items() if isinstance(kinds, dict) else [("", kinds)]
        for layer, kind in named:
            if kind is not None and "dynamic" in str(kind):
                yield module, f"{layer}_" if layer else ""
